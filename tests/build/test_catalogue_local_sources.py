"""Elements that install from sources whose servers cannot be reached from everywhere: real git and files of ours stand
in for them, through the variables that say where sources are."""

from __future__ import annotations

import gzip
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest
import zstandard
from tests.build.catalogue_images import Image, build, owned
from tests.build.small_elements import SmallElements
from tests.ramdisks import names_in

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.build

WHEELS = ("pip==25.3", "virtualenv==20.35.4", "setuptools==80.9.0", "pbr==7.0.3")
GLEAN = "1.25.1"
GET_PIP = """
import glob, runpy, sys
wheel, = glob.glob("/tmp/pypi/pip/pip-*.whl")
sys.path.insert(0, wheel)
sys.argv = ["pip", "install", "pip"]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
SETUP = """
from setuptools import setup
scripts = ["{script}={name}:main"]
setup(name="{name}", version="{version}", py_modules=["{name}"], entry_points={{"console_scripts": scripts}})
"""
PYTHON_BUILD = """#!/bin/sh
set -eu
if [ "$1" = --definitions ]; then
    printf '%s\\n' 3.8.1 3.9.2 3.9.11 3.9-dev
    exit
fi
mkdir -p "$2/bin" "$2/share"
printf '#!/bin/sh\\necho Python %s\\n' "$1" > "$2/bin/python${1%.*}"
cp "$2/bin/python${1%.*}" "$2/bin/python3"
chmod +x "$2"/bin/*
"""


def mirror(person: Person) -> None:
    """Fill the mirror of PyPI beside the cache with what the sources need."""
    place = person.cache / "pypi/mirror"
    loaded = place / "-".join(("wheels", *WHEELS))
    if not loaded.is_dir():
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--only-binary=:all:",
            "--dest",
            str(loaded),
            *WHEELS,
        ]
        subprocess.run(pip, check=True)
    for wheel in loaded.glob("*.whl"):
        folder = place / wheel.name.partition("-")[0].lower().replace("_", "-")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / wheel.name).write_bytes(wheel.read_bytes())
        links = (f'<a href="{one.name}">{one.name}</a>\n' for one in sorted(folder.glob("*.whl")))
        (folder / "index.html").write_text("".join(links))


def repository(person: Person, place: Path, files: dict[str, str], tag: str = "") -> str:
    """A git repository with these files, committed; its address."""
    for name, text in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    owned(person, place)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    person.run(["git", "-C", place, "init", "--quiet", "--initial-branch=master"])
    person.run(["git", "-C", place, "add", "."])
    person.run(["git", "-C", place, *who, "commit", "--quiet", "-m", "all"])
    if tag:
        person.run(["git", "-C", place, "tag", tag])
    return f"file://{place}"


def unpacked_glean(person: Person, place: Path) -> Path:
    """The sources of glean, as its release on PyPI has them."""
    archive = person.cache / f"glean-{GLEAN}.tar.gz"
    if not archive.is_file():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
        subprocess.run([*pip, "--dest", str(person.cache), f"glean=={GLEAN}"], check=True)
    with tarfile.open(archive) as sources:
        sources.extractall(place, filter="data")
    return place / f"glean-{GLEAN}"


def package(name: str, version: str, script: str) -> dict[str, str]:
    return {"setup.py": SETUP.format(name=name, version=version, script=script), f"{name}.py": "def main(): pass\n"}


@pytest.fixture(scope="module")
def image(ourselves: Person) -> Image:
    person = ourselves
    elements = SmallElements(person, person.directory("catalogue-local-sources"))
    mirror(person)
    sources = elements.place / "sources"
    (sources).mkdir()
    (sources / "get-pip.py").write_text(GET_PIP)
    keylime = package("keylime", "6.4.3", "keylime_agent")
    keylime["keylime.conf"] = "[cloud_agent]\ncloudagent_port = 1\nregistrar_ip = 127.0.0.1\nregistrar_port = 2\n"
    pyenv = {"plugins/python-build/bin/python-build": PYTHON_BUILD}
    variables = {
        "DIB_REPOLOCATION_pip_and_virtualenv": f"file://{sources}/get-pip.py",
        "DIB_REPOLOCATION_simple_init": repository(person, unpacked_glean(person, sources), {}),
        "DIB_REPOLOCATION_keylime": repository(person, sources / "keylime", keylime, "v6.4.3"),
        "DIB_REPOLOCATION_python_stow_versions": repository(person, sources / "pyenv", pyenv),
        "DIB_PYTHON_VERSIONS": "3.9",
        "DIB_NO_PYPI_PIP": "1",
        "WHEELS_OF_TEST": " ".join(WHEELS),  # nothing else tells that there is another mirror
        "DIB_KEYLIME_AGENT_REGISTRAR_IP": "10.0.0.1",
    }
    words = "debian-minimal dracut-regenerate iscsi-boot keylime-agent pip-and-virtualenv pypi python-stow-versions"
    words += " simple-init tpm-emulator"
    return build(elements, "sources", *words.split(), **variables)


def test_pip_and_virtualenv_come_from_the_script_that_was_named(image: Image) -> None:
    assert "usr/local/bin/pip3" in image.modes
    assert "usr/local/bin/virtualenv" in image.modes
    assert "python3-pip" not in image.packages
    assert "tmp/get-pip.py" not in image.modes


def test_glean_is_installed_from_git(image: Image) -> None:
    assert "opt/glean/bin/glean" in image.modes
    assert [path for path in image.modes if path.endswith(f"/glean-{GLEAN}.dist-info")]
    assert image.enabled("glean-early.service")


def test_the_agent_of_keylime_has_its_settings_and_a_list_of_all_files(image: Image) -> None:
    assert "opt/keylime/venv/bin/keylime_agent" in image.modes
    settings = image.lines("etc/keylime.conf")
    assert settings == ["[cloud_agent]", "cloudagent_port = 9002", "registrar_ip = 10.0.0.1", "registrar_port = 8890"]
    assert image.modes["etc/keylime.conf"] == 0o600
    assert image.enabled("keylime_agent.service")
    assert "measure func=BPRM_CHECK" in image.lines("etc/ima/ima-policy")
    listed = (image.directory / "sources-allowlist.txt").read_text().splitlines()
    assert [line for line in listed if line.endswith("  /etc/keylime.conf")]
    assert "sources-allowlist.txt" in (image.directory / "sources-checksum.txt").read_text()


def test_the_tpm_is_emulated(image: Image) -> None:
    assert {"swtpm", "tpm2-abrmd"} <= set(image.packages)
    assert image.enabled("tpm_emulator.service")
    assert "port=2321" in image.text["etc/systemd/system/tpm_emulator.service"]


def test_the_newest_release_of_a_python_is_under_stow(image: Image) -> None:
    assert image.links["usr/local/bin/python3.9"].endswith("stow/python-3.9.11/bin/python3.9")
    assert "usr/local/bin/python3" not in image.modes


def test_dracut_makes_the_initial_ramdisk_with_the_modules_that_were_named(image: Image, tmp_path: Path) -> None:
    (name,) = [path for path in image.modes if path.startswith("boot/initrd.img-")]
    ramdisk = tmp_path / "ramdisk"
    with tarfile.open(image.directory / "sources.tar") as archive:
        data = archive.extractfile(f"./{name}")
        assert data is not None
        packed = zstandard.ZstdDecompressor().stream_reader(data)
        ramdisk.write_bytes(gzip.compress(packed.read(), 1))
    ends = {path.rpartition("/")[2] for path in names_in(ramdisk)}
    assert {"dracut-crypt-lib.sh", "lvm", "systemd-cryptsetup"} <= ends
    assert "etc/dib_dracut_modules" not in image.modes


def test_a_root_on_iscsi_is_found_by_the_initial_ramdisk(image: Image) -> None:
    assert image.lines("etc/iscsi/iscsi.initramfs") == ["ISCSI_AUTO=true"]
    assert "open-iscsi" in image.packages
    assert image.lines("etc/iscsi/initiatorname.iscsi") == ["GenerateName=yes"]
