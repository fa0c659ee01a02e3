"""What goes wrong is told in one error, with the status that the contract says; nothing is lost, nothing is left."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.people import left_sessions
from tests.serving import served

from dibble.packages.debian_sources import host_mirrors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.people import Person

pytestmark = pytest.mark.build


@pytest.fixture(params=["ourselves", "ordinary_user"])
def person(request: pytest.FixtureRequest) -> Person:
    found: Person = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def place(person: Person) -> Path:
    return person.directory("failures")


def element(place: Path, person: Person, name: str, **files: str) -> None:
    """An element with files by name (`/` written as `__`); what begins with an interpreter line can be executed."""
    for file, text in files.items():
        path = place / "elements" / name / file.replace("__", "/").replace("_D_", ".").replace("_", "-")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    for path in (place / "elements").rglob("*"):
        os.chown(path, person.uid, person.gid)


def fails(person: Person, place: Path, *words: str, status: int = 2, verb: str = "build", **variables: str) -> str:
    """Run a build that must fail; returns what it says on standard error."""
    before = {path.name for path in place.iterdir()}
    env = person.environment(ELEMENTS_PATH=str(place / "elements"), **variables)
    (place / "elements").mkdir(exist_ok=True)
    done = person.dibble(verb, *words, cwd=place, env=env, check=False, timeout=600)
    assert done.returncode == status, done.stdout[-2000:] + done.stderr
    assert "fault in dibble" not in done.stderr
    assert done.stderr.count("dibble: ") == 1, done.stderr
    assert {path.name for path in place.iterdir()} - before <= {"elements"}, "files were left"
    assert left_sessions(person) == []
    return done.stderr


TINY = "#!/bin/bash\nset -eu\nmkdir -p $TARGET_ROOT/{etc,proc,sys,dev,tmp,root,var/log}\necho x > $TARGET_ROOT/etc/x\n"


def tiny(place: Path, person: Person, **files: str) -> None:
    """An operating system that is nothing but directories: for builds that end before it is entered."""
    element(place, person, "tiny", element_provides="operating-system\n", root_D_d__10_tiny=TINY, **files)


def test_an_unknown_element_is_told_with_the_nearest(person: Person, place: Path) -> None:
    said = fails(person, place, "debian-minimaal", "vm")
    assert "debian-minimaal" in said
    assert "debian-minimal" in said.split("hint:")[1]
    assert fails(person, place, "debian-minimaal", verb="disk-image-create", status=1)


def test_an_unknown_option_is_told_with_the_nearest(person: Person, place: Path) -> None:
    said = fails(person, place, "--image-sizes", "5", "debian-minimal")
    assert "--image-sizes" in said
    assert "--image-size" in said.split("hint:")[1]
    fails(person, place, "--no-such-thing", "debian-minimal", verb="disk-image-create", status=1)


def test_an_unknown_output_is_told_before_anything_is_built(person: Person, place: Path) -> None:
    said = fails(person, place, "-t", "qcow3", "debian-minimal")
    assert "qcow3" in said
    assert "qcow2" in said


def test_a_recipe_that_is_no_yaml_is_told_with_line_and_column(person: Person, place: Path) -> None:
    (place / "image.yaml").write_text("elements:\n  - debian-minimal\n - vm\n")
    said = fails(person, place, "image.yaml")
    assert "image.yaml:3" in said


def test_a_block_device_description_is_told_with_its_place(person: Person, place: Path) -> None:
    (place / "layout.yaml").write_text("- local_loop:\n    name: image0\n    sise: 5GiB\n")
    said = fails(person, place, "debian-minimal", "vm", DIB_BLOCK_DEVICE_CONFIG=f"file://{place}/layout.yaml")
    assert "layout.yaml:3" in said
    assert "size" in said


def test_an_unknown_package_is_named(person: Person, place: Path) -> None:
    said = fails(person, place, "-p", "no-such-package-anywhere", "debian-minimal", status=1)
    assert "no-such-package-anywhere" in said


def test_a_mirror_that_does_not_answer_is_named(person: Person, place: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        closed = listener.getsockname()[1]
    mirror = f"http://127.0.0.1:{closed}/debian"
    said = fails(person, place, "debian-minimal", status=1, DIB_DISTRIBUTION_MIRROR=mirror)
    assert f"127.0.0.1:{closed}" in said
    assert "hint:" in said


@pytest.fixture
def forged_mirror(tmp_path: Path) -> Iterator[str]:
    """A mirror whose signed index was changed by one letter."""
    suite = tmp_path / "debian" / "dists" / "trixie"
    suite.mkdir(parents=True)
    done = subprocess.run(
        ["curl", "-fsS", f"{host_mirrors().archive}/dists/trixie/InRelease"], check=True, capture_output=True
    )
    (suite / "InRelease").write_bytes(done.stdout.replace(b"Origin: Debian", b"Origin: Debiaan", 1))
    with served(tmp_path) as address:
        yield f"{address}/debian"


def test_a_wrong_signature_is_refused(person: Person, place: Path, forged_mirror: str) -> None:
    said = fails(person, place, "debian-minimal", status=1, DIB_DISTRIBUTION_MIRROR=forged_mirror, DIB_RELEASE="trixie")
    assert f"the signature of {forged_mirror} trixie does not verify" in said
    assert said.count("Message has been manipulated") == 1


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_a_failing_hook_gives_its_status_script_line_and_last_lines(person: Person, place: Path, where: str) -> None:
    script = "#!/bin/bash\nset -eu\necho this is the last line\n\n(exit 7)\n"
    if where == "outside":
        tiny(place, person, extra_data_D_d__20_breaks=script)
        said = fails(person, place, "-n", "tiny", status=7)
        assert "extra-data.d/20-breaks:5" in said
        assert "element tiny" in said
    else:
        element(place, person, "breaks", post_install_D_d__20_breaks=script)
        said = fails(person, place, "debian-minimal", "breaks", status=7)
        assert "post-install.d/20-breaks:5" in said
        assert "element breaks" in said
    assert "this is the last line" in said


def test_a_failed_build_goes_on_where_it_failed(person: Person, place: Path) -> None:
    tiny(
        place,
        person,
        root_D_d__20_more=f"#!/bin/bash\n# {uuid.uuid4()}\necho made >> $TARGET_ROOT/etc/more\n",
        extra_data_D_d__20_breaks="#!/bin/bash\nexit 3\n",
    )
    fails(person, place, "-n", "tiny", status=3)
    (place / "elements/tiny/extra-data.d/20-breaks").write_text("#!/bin/bash\n:\n")
    env = person.environment(ELEMENTS_PATH=str(place / "elements"))
    done = person.dibble("build", "-n", "-t", "tar", "-o", "tiny", "tiny", cwd=place, env=env)
    assert "Cached root.d/10-tiny" in done.stdout
    assert "Cached root.d/20-more" in done.stdout
    listed = subprocess.run(["tar", "xOf", place / "tiny.tar", "./etc/more"], check=True, capture_output=True).stdout
    assert listed == b"made\n"


def test_an_empty_root_is_told(person: Person, place: Path) -> None:
    element(place, person, "empty", element_provides="operating-system\n", root_D_d__10_empty="#!/bin/bash\n:\n")
    said = fails(person, place, "-n", "empty", status=1)
    assert "left the root tree empty" in said


def test_a_root_without_the_places_of_the_system_is_told(person: Person, place: Path) -> None:
    script = "#!/bin/bash\nmkdir -p $TARGET_ROOT/{etc,dev}\n"
    element(place, person, "bare", element_provides="operating-system\n", root_D_d__10_bare=script)
    said = fails(person, place, "-n", "bare", status=1)
    assert "made no /proc, no /sys in the root tree" in said
    assert "mkdir -p $TARGET_ROOT/proc $TARGET_ROOT/sys" in said


def test_a_directory_that_does_not_exist_is_told_before_the_build(person: Person, place: Path) -> None:
    said = fails(person, place, "-o", "no/such/image", "debian-minimal", status=1)
    assert "mkdir -p" in said


def test_a_disk_that_is_too_small_is_told(person: Person, place: Path) -> None:
    tiny(place, person, root_D_d__20_more="#!/bin/bash\nhead -c 90000000 /dev/zero > $TARGET_ROOT/etc/zero\n")
    said = fails(person, place, "-n", "--image-size", "0.1", "tiny", status=2)
    assert "/ needs at least" in said
    assert "--image-size" in said


def test_a_conversion_that_fails_leaves_nothing_in_memory_or_on_disk(person: Person, place: Path) -> None:
    """`fails` looks beside the image and for sessions; diskimage-builder leaves a file system in memory."""
    tiny(place, person)
    before = {path for path in Path("/tmp").glob("dib*") if path.stat().st_uid == person.uid}
    mounts = Path("/proc/self/mounts").read_text()
    assert "cluster_size=3" in fails(person, place, "-n", "--qemu-img-options", "cluster_size=3", "tiny", status=1)
    assert {path for path in Path("/tmp").glob("dib*") if path.stat().st_uid == person.uid} <= before
    assert Path("/proc/self/mounts").read_text() == mounts


def test_a_full_disk_in_the_cache_is_told(ourselves: Person) -> None:
    if os.getuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = ourselves.directory("failures")
    small = place / "cache"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", small], check=True)
    try:
        env = ourselves.environment(DIB_IMAGE_CACHE=str(small))
        done = ourselves.dibble("build", "debian-minimal", cwd=place, env=env, check=False)
    finally:
        subprocess.run(["umount", "-l", small], check=True)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert f"no room left in {small}" in done.stderr
    assert "hint:" in done.stderr


def test_no_subordinate_ids_are_told_with_the_order_to_add_them(debian_packages: None) -> None:
    if os.getuid() != 0:
        pytest.skip("making a user needs root")
    from tests import people

    other = "dibble-nobody"
    if subprocess.run(["id", other], check=False, capture_output=True).returncode:
        subprocess.run(["useradd", "--create-home", "--shell", "/bin/bash", other], check=True)
        for file in ("/etc/subuid", "/etc/subgid"):
            kept = [line for line in Path(file).read_text().splitlines() if not line.startswith(f"{other}:")]
            Path(file).write_text("\n".join(kept) + "\n")
    normal = people.ordinary_user()
    env = {"HOME": f"/home/{other}", "PATH": "/usr/bin:/bin", "DIBBLE_VENV": str(normal.checkout / ".venv")}
    normal.dibble("--version")  # its virtual environment is there
    for folder in (normal.home, normal.checkout):
        folder.chmod(0o755)
    done = subprocess.run(
        ["runuser", "-u", other, "--", "env", "-i", *(f"{name}={value}" for name, value in env.items()),
         str(normal.checkout / "dibble"), "build", "debian-minimal"],
        cwd=f"/home/{other}", check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "subordinate" in done.stderr
    assert "--add-subuids" in done.stderr
    shutil.rmtree(f"/home/{other}/.cache", ignore_errors=True)


def test_temporary_files_are_in_memory_only_when_that_is_wanted(person: Person, place: Path) -> None:
    script = "#!/bin/bash\nset -eu\nstat -f -c 'kind=%T' /tmp > $TARGET_ROOT/etc/kind\n"
    kinds = []
    for number, words in enumerate(([], ["--no-tmpfs"], ["--min-tmpfs", "1000000"])):
        tiny(place, person, root_D_d__20_kind=f"{script}# {number} {uuid.uuid4()}\n")
        env = person.environment(ELEMENTS_PATH=str(place / "elements"))
        done = person.dibble("build", "-n", "-t", "tar", "-o", f"t{number}", *words, "tiny", cwd=place, env=env)
        assert ("temporary files are kept on disk" in done.stdout) is bool(words)
        tar = place / f"t{number}.tar"
        kinds.append(subprocess.run(["tar", "xOf", tar, "./etc/kind"], check=True, capture_output=True).stdout)
    assert kinds[0] == b"kind=tmpfs\n"
    assert b"kind=tmpfs\n" not in kinds[1:]


@pytest.mark.parametrize("kind", ["bash", "cp", "python"])
def test_a_script_that_writes_elsewhere_is_stopped_and_told_where_it_can(
    person: Person, place: Path, kind: str
) -> None:
    writes = {
        "bash": "#!/bin/bash\nset -eu\n\necho x > /etc/elsewhere\n",
        "cp": "#!/bin/bash\nset -eu\n\ncp /etc/passwd /usr/share/elsewhere\n",
        "python": '#!/usr/bin/python3\n\n\nopen("/usr/lib/elsewhere", "w")\n',
    }
    tiny(place, person, extra_data_D_d__20_writes=writes[kind])
    said = fails(person, place, "-n", "tiny", status=1)
    path = {"bash": "/etc/elsewhere", "cp": "/usr/share/elsewhere", "python": "/usr/lib/elsewhere"}[kind]
    assert "extra-data.d/20-writes:4" in said
    assert "element tiny" in said
    assert f"{path} is not of the image" in said.split("hint:")[1]
    assert "$TARGET_ROOT" in said


def test_a_script_that_goes_on_after_writing_elsewhere_is_warned_of(person: Person, place: Path) -> None:
    tiny(
        place,
        person,
        extra_data_D_d__20_writes=f"#!/bin/bash\n# {uuid.uuid4()}\necho x > /etc/elsewhere\n"
        "echo x > /tmp/x\necho x > /var/tmp/x\necho x > ~/x\necho x > $DIB_IMAGE_CACHE/x\nrm $DIB_IMAGE_CACHE/x\n"
        "echo x > beside\necho x > $TMP_HOOKS_PATH/x\necho x > $TMP_MOUNT_PATH/etc/y\n",
        extra_data_D_d__30_reads=f"#!/bin/bash\n# {uuid.uuid4()}\n[ ! -e /etc/elsewhere ]\n",
    )
    env = person.environment(ELEMENTS_PATH=str(place / "elements"))
    done = person.dibble("build", "-n", "-t", "tar", "-o", "tiny", "tiny", cwd=place, env=env)
    assert "20-writes went on: /etc/elsewhere is not of the image" in done.stdout
    assert done.stdout.count("Read-only file system") == 1
    assert (place / "beside").read_text() == "x\n"
    assert not (person.home / "x").exists()


def test_processes_that_a_script_leaves_are_ended_and_named(person: Person, place: Path) -> None:
    tiny(
        place,
        person,
        extra_data_D_d__20_leaves=f"#!/bin/bash\n# {uuid.uuid4()}\n(sleep 1000 > /dev/null 2>&1 &)\n"
        "(setsid bash -c 'sleep 2000; :' > /dev/null 2>&1 &)\n"
        # a process has its own name once it has begun
        'until [ "$(cat /proc/[0-9]*/comm 2> /dev/null | grep -cx sleep)" = 2 ]; do :; done\n',
    )
    env = person.environment(ELEMENTS_PATH=str(place / "elements"))
    done = person.dibble("build", "-n", "-t", "tar", "-o", "tiny", "tiny", cwd=place, env=env)
    assert "extra-data.d/20-leaves left processes behind, which were ended: " in done.stdout
    ended = done.stdout.split("which were ended: ")[1].splitlines()[0].split(", ")
    assert {"sleep", "bash"} <= set(ended)
