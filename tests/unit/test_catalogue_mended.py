"""What shipped elements do better than those of diskimage-builder (docs/differences.md), without a build."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import pytest
from tests.unit.hook_build import ELEMENTS, HookBuild, run_inside
from tests.unit.test_catalogue import environment_after

from dibble.elements.assemble import element_set
from dibble.elements.find import depends_of, provides_of
from dibble.elements.model import Element
from dibble.elements.phases import BY_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.unit


def texts() -> Iterator[tuple[str, str]]:
    """Every line of the shipped elements that a build or a machine acts on, with its place."""
    for path in sorted(ELEMENTS.rglob("*")):
        if path.is_file() and path.suffix != ".rst":
            for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), start=1):
                if number == 1 or not line.lstrip().startswith("#"):
                    yield f"{path.relative_to(ELEMENTS)}:{number}", line


def places_with(*patterns: str) -> list[str]:
    pattern = re.compile("|".join(patterns))
    return [f"{place}: {line}" for place, line in texts() if pattern.search(line)]


# --- tools and releases of old


def test_no_element_calls_a_tool_that_distributions_have_dropped() -> None:
    assert places_with(r"\bapt-key\b", r"/usr/bin/python(?![0-9])", r"env python(?![0-9])", r"\beasy_install-") == []


@pytest.mark.parametrize("distro", ["debian", "ubuntu", "fedora", "centos", "opensuse", "gentoo"])
def test_scripts_get_python_3_of_every_distribution(distro: str) -> None:
    found = environment_after(["dib-python"], DISTRO_NAME=distro, DIB_RELEASE="stable")
    assert (found["DIB_PYTHON_VERSION"], found["DIB_PYTHON"]) == ("3", "python3")


@pytest.mark.parametrize(
    ("name", "oldest"),
    [
        ("fedora", 43), ("fedora-container", 43), ("fedora-minimal", 43),
        ("opensuse", 15.6), ("opensuse-minimal", 15.6), ("ubuntu-common", "noble"), ("centos", "9"),
        ("centos-minimal", "9"),
    ],
)  # fmt: skip
def test_no_release_is_the_default_that_has_no_updates_any_more(name: str, oldest: float | str) -> None:
    release = environment_after([name])["DIB_RELEASE"]
    assert (release if isinstance(oldest, str) else float(release)) >= oldest  # type: ignore[operator]  # alike


# --- what is fetched


def test_no_element_leaves_out_the_check_of_certificates_or_signatures() -> None:
    found = places_with(
        r"\bcurl\b.* (-[a-zA-Z]*k\b|--insecure)",
        r"--no-check-certificate",
        r"--no-gpg-?checks?",
        r"--nogpgcheck",
        r"\bgpgcheck=(0|no|false)",
        r"--allow-unauthenticated|--force-yes|AllowUnauthenticated|AllowInsecureRepositories",
        r"http\.sslVerify|GIT_SSL_NO_VERIFY|--trusted-host",
        r"trusted=yes",
    )
    # Where whoever builds has said so, by a variable of its own.
    assert [place.partition(":")[0] for place in found] == ["ubuntu/pre-install.d/00-ubuntu-mirror"]


@pytest.mark.parametrize(("text", "status"), [("the tool", 0), ("something else", 1)])
def test_the_tool_of_hpe_has_the_checksum_that_was_named(tmp_path: Path, text: str, status: int) -> None:
    build = HookBuild(tmp_path)
    build.fake("curl", 'while [ "$1" != --output ]; do shift; done', f'printf %s "{text}" > "$2"')
    build.fake("install-packages")
    build.fake("virtualenv", 'mkdir -p "$1/bin"', 'printf "#!/bin/sh\\n" > "$1/bin/pip"', 'chmod +x "$1/bin/pip"')
    env = {
        "DIB_SSACLI_URL": "https://example.org/ssacli.deb",
        "DIB_SSACLI_SHA256": hashlib.sha256(b"the tool").hexdigest(),
        "DIB_PYTHON_VIRTUALENV": "virtualenv",
        "TMPDIR": str(tmp_path),
    }
    script = "proliant-tools/install.d/65-proliant-tools"
    done = run_inside(build, script, status=status, env=env, instead={"/usr/share/": f"{tmp_path}/share/"})
    assert ("install-packages" in build.calls) is (status == 0)
    assert ("another checksum" in done.output) is (status == 1)
    assert not {"-k", "--insecure"} & set(build.calls)


# --- single elements


def test_every_element_that_another_one_needs_is_there() -> None:
    elements = [Element(path.name, path) for path in ELEMENTS.iterdir() if path.is_dir()]
    known = {element.name for element in elements}
    known.update(entry.name for element in elements for entry in provides_of(element))
    for element in elements:
        assert {entry.name for entry in depends_of(element)} <= known, element.name


def test_every_script_of_a_phase_can_be_executed() -> None:
    """diskimage-builder passes one over in silence, because its mode is that of data."""
    for phase in BY_DIRECTORY:
        for path in ELEMENTS.glob(f"*/{phase}/*"):
            if path.is_file() and path.read_bytes().startswith(b"#!"):
                assert path.stat().st_mode & 0o111, path


def test_a_blacklist_of_modules_goes_together_with_other_settings_of_modprobe() -> None:
    found = element_set(["debian-minimal", "modprobe", "modprobe-blacklist"], [ELEMENTS], arch="amd64", environment={})
    assert {"modprobe", "modprobe-blacklist"} <= {element.name for element in found.elements}


@pytest.mark.parametrize("status", [0, 255])
def test_only_settings_of_fail2ban_that_are_wrong_end_the_build(tmp_path: Path, status: int) -> None:
    build = HookBuild(tmp_path)
    (build.target / "etc/fail2ban").mkdir()
    build.fake("fail2ban-client", f"exit {status}")
    build.fake("systemctl")
    env = {"DIB_INIT_SYSTEM": "systemd"}
    done = run_inside(build, "fail2ban/post-install.d/80-fail2ban", status=status, env=env)
    assert done.output == ""
    assert ("enable" in build.calls) is (status == 0)
    assert (build.target / "etc/fail2ban/jail.local").is_file()


@pytest.mark.parametrize("name", ["dracut-regenerate", "lvm"])
def test_initial_ramdisks_with_volumes_need_no_particular_distribution(name: str) -> None:
    found = element_set([name, "debian-minimal"], [ELEMENTS], arch="amd64", environment={})
    assert not {element.name for element in found.elements if "ubuntu" in element.name or "redhat" in element.name}
