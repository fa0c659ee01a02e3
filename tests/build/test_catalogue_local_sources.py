"""Elements that install from sources whose servers cannot be reached from everywhere: real git and files of ours stand
in for them, through the variables that say where sources are."""

from __future__ import annotations

import gzip
import hashlib
import re
import subprocess
import sys
import tarfile
import zipfile
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
OURS = ("proliantutils", "python-brick-cinderclient-ext", "python-cinderclient")
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

HPE = """
mkdir -p "$TMP_MOUNT_PATH/opt/hpe" "$TMP_MOUNT_PATH/etc/apt/sources.list.d"
cp {place}/Packages {place}/*.deb "$TMP_MOUNT_PATH/opt/hpe/"
cp "$(dirname "$0")/packages.list" "$TMP_MOUNT_PATH/etc/apt/sources.list.d/hpe.list"
"""
POLICY = """
mkdir -p /etc/selinux/ours/contexts/files
printf 'SELINUX=permissive\\nSELINUXTYPE=ours\\n' > /etc/selinux/config
printf '/.*  system_u:object_r:default_t:s0\\n/tmp(/.*)?  system_u:object_r:tmp_t:s0\\n' \
    > /etc/selinux/ours/contexts/files/file_contexts
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


def wheel(person: Person, name: str, version: str, script: str = "") -> None:
    """A wheel of ours with one module in the mirror, in place of one that needs a hundred others."""
    module = name.replace("-", "_")
    place = person.cache / "pypi/mirror" / name
    place.mkdir(parents=True, exist_ok=True)
    for old in place.glob("*.whl"):
        old.unlink()
    told = f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": "def main(): pass\n",
        f"{told}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{told}/WHEEL": "Wheel-Version: 1.0\nGenerator: ours\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{told}/entry_points.txt": f"[console_scripts]\n{script} = {module}:main\n" if script else "",
    }
    listed = "".join(f"{path},,\n" for path in (*files, f"{told}/RECORD"))
    with zipfile.ZipFile(place / f"{module}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in {**files, f"{told}/RECORD": listed}.items():
            archive.writestr(path, text)
    links = "".join(f'<a href="{one.name}">{one.name}</a>\n' for one in place.glob("*.whl"))
    (place / "index.html").write_text(links)


def apt_repository(place: Path) -> str:
    """A directory that apt takes packages from, with a package `ssacli` of ours; the line for apt's sources."""
    tree = place / "tree"
    for path, text in {
        "DEBIAN/control": "Package: ssacli\nVersion: 6.45-8.0\nArchitecture: all\n"
        "Maintainer: a <a@b>\nDescription: x\n",
        "usr/sbin/ssacli": "#!/bin/sh\necho ssacli of ours\n",
    }.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    (tree / "usr/sbin/ssacli").chmod(0o755)
    package = place / "ssacli_6.45-8.0_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", tree, package], check=True, capture_output=True
    )
    data = package.read_bytes()
    entry = (tree / "DEBIAN/control").read_text()
    entry += f"Filename: ./{package.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
    (place / "Packages").write_text(entry)
    return "deb [trusted=yes] file:/opt/hpe ./\n"


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
    hpe = sources / "hpe"
    hpe.mkdir()
    elements.write("hpe/README.rst", "===\nhpe\n===\nA directory with HPE's packages.\n")
    elements.write("hpe/extra-data.d/packages.list", apt_repository(hpe))
    elements.script("hpe/extra-data.d/50-hpe", HPE.format(place=hpe))
    elements.write("policy/README.rst", "======\npolicy\n======\nOne rule of SELinux.\n")
    elements.write("policy/package-installs.yaml", "policycoreutils:\n")
    elements.script("policy/install.d/50-policy", POLICY)
    for name in OURS:
        wheel(person, name, "1.0", "cinder" if name == "python-cinderclient" else "")
    variables = {
        "DIB_REPOLOCATION_pip_and_virtualenv": f"file://{sources}/get-pip.py",
        "DIB_REPOLOCATION_simple_init": repository(person, unpacked_glean(person, sources), {}),
        "DIB_REPOLOCATION_keylime": repository(person, sources / "keylime", keylime, "v6.4.3"),
        "DIB_REPOLOCATION_python_stow_versions": repository(person, sources / "pyenv", pyenv),
        "DIB_PYTHON_VERSIONS": "3.9",
        "DIB_NO_PYPI_PIP": "1",
        "PIP_INDEX_URL": "file:///tmp/pypi",  # in post-install.d the settings of pypi are gone
        "WHEELS_OF_TEST": " ".join((*WHEELS, *OURS)),  # nothing else tells that there is another mirror
        "DIB_KEYLIME_AGENT_REGISTRAR_IP": "10.0.0.1",
    }
    words = "debian-minimal dracut-regenerate iscsi-boot keylime-agent pip-and-virtualenv pypi python-stow-versions"
    words += " simple-init tpm-emulator dracut-network hpe policy proliant-tools python-brickclient"
    words += " selinux-fixfiles-restore"
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


def test_the_tool_of_hpe_comes_from_its_repository_and_its_python_package_from_pip(image: Image) -> None:
    """The repository and both packages are ours: HPE's server cannot be reached from everywhere."""
    assert image.packages["ssacli"] == "6.45-8.0"
    assert image.text["usr/sbin/ssacli"].endswith("echo ssacli of ours\n")
    assert [path for path in image.modes if re.fullmatch(r"usr/share/proliantutils/lib/.*/proliantutils\.py", path)]
    assert {"dmidecode", "ethtool", "net-tools", "pciutils"} <= set(image.packages)


def test_the_client_of_block_storage_lies_in_its_environment_and_its_command_is_linked(image: Image) -> None:
    assert image.links["usr/local/bin/cinder"] == "/usr/share/python-brickclient/venv/bin/cinder"
    venv = "usr/share/python-brickclient/venv/lib/"
    assert [
        path for path in image.modes if path.startswith(venv) and path.endswith("/python_brick_cinderclient_ext.py")
    ]
    assert {"open-iscsi", "lsscsi", "multipath-tools", "nfs-common", "nvme-cli", "sg3-utils"} <= set(image.packages)
    assert image.enabled("multipathd.service")
    assert image.enabled("open-iscsi.service")


def test_files_get_labels_or_the_first_boot_is_told_to_give_them(image: Image) -> None:
    """Which of the two depends on the rights of whoever builds; the policy is one of our own."""
    labels = image.attributes("security.selinux")
    if "Labels cannot be written here" in image.output:
        assert ".autorelabel" in image.modes
        assert labels == {}
    else:
        assert ".autorelabel" not in image.modes
        assert labels["etc/hosts"].startswith("system_u:object_r:default_t")
    assert not [path for path in image.modes if path.startswith("tmp/label.")]


def test_what_does_nothing_any_more_is_there_to_be_named(image: Image) -> None:
    assert "dracut-network" in image.output
