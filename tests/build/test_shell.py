"""A build that failed goes on at the failed step, and every place in a build can be entered to find out why."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import uuid
from typing import TYPE_CHECKING

import pytest
from tests.build.small_elements import BASE, SmallElements, cached, printed, ran
from tests.leftovers import left_after_a_while, mounts
from tests.people import leaving_sessions, left_sessions
from tests.terminal_user import PATIENCE_S, TerminalUser

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.build

HALF = "echo half > /etc/half\necho said before"
ROOT_MARK = str(uuid.uuid4())
"""The tests share one root; what comes after it is each one's own."""
PROMPT = "] /# "
WAITING = "bash -c 'echo $((40 + 2)); exec sleep 1000'\n"
"""Tells when it is at it; the terminal echoes what is typed, too, but not this number."""


@pytest.fixture(params=["ourselves", "ordinary_user"])
def elements(request: pytest.FixtureRequest) -> SmallElements:
    person: Person = request.getfixturevalue(request.param)
    made = SmallElements(person, person.directory("shell"), ROOT_MARK)
    mark = made.write("web/mark", str(uuid.uuid4())).read_text()
    made.write("web/README.rst", "===\nweb\n===\nA web server.\n")
    made.write("web/element-deps", "small\n")
    made.write("web/environment.d/10-web.bash", "export WEB_PORT=${WEB_PORT:-80}\n")
    made.script(
        "web/extra-data.d/10-extra",
        f'echo extra > "$TMP_MOUNT_PATH/etc/extra"\necho {mark} > "$TMP_MOUNT_PATH/etc/test"',
    )
    made.script("web/install.d/20-first", "echo first > /etc/first")
    made.script("web/install.d/50-web", f"{HALF}\necho web > /etc/web")
    made.script("web/post-install.d/10-after", "cat /etc/web > /etc/after")
    return made


def shell(
    elements: SmallElements, *words: str, typed: str | None = None, status: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `dibble shell` without a terminal, with `typed` on standard input."""
    person = elements.person
    ours = os.getuid() == person.uid
    done = subprocess.run(
        [str(person.checkout / "dibble"), "shell", *BASE, *words],
        cwd=elements.place,
        env=elements.environment(**variables),
        input=typed or "",
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        user=None if ours else person.uid,
        group=None if ours else person.gid,
        extra_groups=None if ours else [],
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def at_terminal(elements: SmallElements, verb: str, *words: str, **variables: str) -> TerminalUser:
    argv: list[str | Path] = [elements.person.checkout / "dibble", verb, *BASE, *words]
    return TerminalUser(elements.person, argv, cwd=elements.place, env=elements.environment(**variables))


def stopped(
    elements: SmallElements, points: str, command: str = "", *, outside: str = "", status: int = 0
) -> subprocess.CompletedProcess[str]:
    """Build with break points, without a terminal."""
    env = {**elements.environment(), "break": points, "break_cmd": command, "break_outside_target": outside}
    dibble = elements.person.checkout / "dibble"
    done = elements.person.run([dibble, "build", *BASE, "web"], cwd=elements.place, env=env, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def mark_of(elements: SmallElements) -> str:
    return (elements.elements / "web/mark").read_text()


def break_in_the_middle(elements: SmallElements) -> None:
    elements.script("web/install.d/50-web", f"{HALF}\n: > /etc/{mark_of(elements)}\n(exit 7)")


def kept(elements: SmallElements) -> list[Path]:
    """What the store has of failures of `break_in_the_middle` in this test."""
    return list((elements.person.cache / "layers").glob(f"failed-*/*/mnt/etc/{mark_of(elements)}"))


# --- going on


def test_a_build_that_failed_goes_on_at_the_failed_step(elements: SmallElements) -> None:
    break_in_the_middle(elements)
    assert ran(elements.build("web", check=False))[-1] == "install.d/50-web"
    again = elements.build("web", check=False)
    assert ran(again) == ["install.d/50-web"]
    elements.script("web/install.d/50-web", f"{HALF}\necho web > /etc/web")
    mended = elements.build("web")
    assert ran(mended) == ["install.d/50-web", "post-install.d/10-after", "engine/fstab", "engine/finish"]
    assert cached(mended) == ["root.d/10-small", "engine/resolv-conf", "extra-data.d/10-extra", "install.d/20-first"]


# --- the place


def test_at_a_step_is_before_it_and_after_it_is_behind_it(elements: SmallElements) -> None:
    look = ("--command", "cd /etc; ls -d first web after 2> /dev/null; :")
    done = shell(elements, "--at", "install.d/50-web", "web", *look)
    assert done.stdout.split() == ["first"]
    assert "Running install.d/20-first" in done.stderr, "what was missing is built first"
    assert "50-web completed" not in done.stderr
    assert shell(elements, "--after", "50-web", "web", *look).stdout.split() == ["first", "web"]
    finished = shell(elements, "web", *look)
    assert finished.stdout.split() == ["after", "first", "web"]
    assert ran(elements.build("web")) == [], "what was built on the way counts"


def test_the_first_line_says_what_comes_next_and_how_to_run_it(elements: SmallElements) -> None:
    (line,) = shell(elements, "--at", "20-first", "web", "--", "id").stderr.splitlines()[-1:]
    assert line.startswith("dibble: before install.d/20-first, inside the target; ")
    assert "dropped" in line
    script = line.rpartition(" ")[2]
    assert script == "/tmp/in_target.d/install.d/20-first"
    done = shell(elements, "--at", "20-first", "web", "--command", f"{script} && cat /etc/first")
    assert done.stdout == "first\n"
    assert done.stderr.splitlines() == [line], "and nothing else, when nothing has to be built"
    # Behind a step its neighbour can be run as well, though this one does not see it while it is built.
    behind = shell(elements, "--after", "20-first", "web", "--", "/tmp/in_target.d/install.d/50-web")
    assert behind.stdout == "said before\n"
    assert behind.stderr.strip().endswith("/tmp/in_target.d/install.d/50-web")
    outside = shell(elements, "--at", "10-extra", "web", "--", "id").stderr.strip().rpartition(" ")[2]
    run = f"{outside} && cat $TMP_MOUNT_PATH/etc/extra"
    assert shell(elements, "--at", "10-extra", "web", "--command", run).stdout == "extra\n"
    other = shell(elements, "--after", "10-extra", "web", "--", "id").stderr
    assert other.strip().endswith("Next comes install.d/20-first, inside the target.")
    assert shell(elements, "web", "--", "id").stderr.strip().endswith("No step comes after it.")


def test_a_shell_has_the_side_the_environment_and_the_directory_of_its_script(elements: SmallElements) -> None:
    look = ("--command", 'pwd; echo "$WEB_PORT $HOME"; [ -e /etc/mark ] && echo target')
    inside = shell(elements, "--at", "50-web", "web", *look, WEB_PORT="8080", status=0)
    assert inside.stdout.splitlines() == ["/", "8080 /root", "target"]
    outside = shell(elements, "--at", "10-extra", "web", *look, status=1)
    assert outside.stdout.splitlines() == [str(elements.place), f"80 {elements.person.home}"]
    look_at_target = ("--outside", "web", "--command", "pwd; cat $TMP_MOUNT_PATH/etc/mark; cat /proc/self/mounts")
    chosen = shell(elements, "--at", "50-web", *look_at_target)
    assert chosen.stdout.splitlines()[:2] == [str(elements.place), elements.mark]
    assert "/tmp/dib_build.image" in chosen.stdout
    within = shell(elements, "--at", "10-extra", "--inside", "web", "--", "cat", "/etc/mark", "/proc/1/comm")
    assert within.stdout.splitlines()[0] == elements.mark
    assert len(within.stdout.splitlines()) == 2, "/proc is there"


def test_before_there_is_a_target_one_can_only_be_outside(elements: SmallElements) -> None:
    done = shell(elements, "--at", "root.d/10-small", "web", "--command", 'ls -a "$TARGET_ROOT"')
    assert done.stdout.split() == [".", ".."]
    done = shell(elements, "--at", "root.d/10-small", "--inside", "web", "--", "id", status=1)
    assert "no shell in the target" in done.stderr
    assert "--outside" in done.stderr


def test_a_wrong_place_is_told(elements: SmallElements) -> None:
    done = shell(elements, "--at", "install.d/50-wbe", "web", status=2)
    assert 'unknown step "install.d/50-wbe"' in done.stderr
    assert "did you mean install.d/50-web or" in done.stderr
    assert (
        "say one of: install.d/20-first, install.d/50-web"
        in shell(elements, "--at", "install.d", "web", status=2).stderr
    )
    assert "--at and --after" in shell(elements, "--at", "50-web", "--after", "50-web", "web", status=2).stderr
    assert "twice" in shell(elements, "--command", "id", "web", "--", "id", status=2).stderr
    assert "amd64, arm64" in shell(elements, "-a", "amd64,arm64", "web", status=2).stderr
    assert "no element" in shell(elements, "--at", "50-web", status=2).stderr


def test_a_step_that_fails_on_the_way_is_told_as_by_a_build(elements: SmallElements) -> None:
    break_in_the_middle(elements)
    done = shell(elements, "web", "--", "id", status=7)
    assert "install.d/50-web:6" in done.stderr
    assert done.stderr.strip().endswith(" shell --at install.d/50-web -n -t tar web")


# --- what runs


def test_a_command_has_its_own_output_and_status(elements: SmallElements) -> None:
    assert (
        shell(elements, "--at", "50-web", "web", "--command", "echo to stdout; exit 5", status=5).stdout
        == "to stdout\n"
    )
    assert shell(elements, "--at", "50-web", "web", "--command", "kill -9 $$", status=137).stdout == ""


def test_words_are_handed_on_as_they_are(elements: SmallElements) -> None:
    done = shell(elements, "--at", "50-web", "web", "--", "bash", "-c", 'printf "<%s>" "$@"', "x", "a b", "--at", "*")
    assert done.stdout == "<a b><--at><*>"
    assert "not found" in shell(elements, "--at", "50-web", "web", "--", "no-such-program", status=127).stderr


def test_a_shell_reads_commands_from_a_pipe(elements: SmallElements) -> None:
    done = shell(
        elements, "--at", "50-web", "web", typed="cat /etc/first\nread -r line\nthat\necho $line\nexit 4\n", status=4
    )
    assert done.stdout == "first\nthat\n"


def test_what_is_changed_in_a_shell_is_dropped(elements: SmallElements) -> None:
    change = "echo other > /etc/first; rm /etc/mark; echo beside > $HOME/beside"
    assert shell(elements, "--after", "20-first", "web", "--command", change).stdout == ""
    outside = 'echo x > beside.txt; echo x > "$TMP_MOUNT_PATH/etc/first"; echo x >> "$TMP_HOOKS_PATH/install.d/50-web"'
    shell(elements, "--after", "20-first", "--outside", "web", "--command", outside)
    done = shell(elements, "--after", "20-first", "web", "--", "cat", "/etc/first", "/etc/mark")
    assert done.stdout == f"first\n{elements.mark}\n"
    assert {path.name for path in elements.place.iterdir()} == {"elements"}
    assert ran(elements.build("web"))[0] == "install.d/50-web"


def test_the_engine_answers_in_a_shell_and_tells_of_its_failures(elements: SmallElements) -> None:
    elements.write("web/pkg-map", '{"default": {"server": "nginx"}}')
    engine = ("dib-engine", "pkg-map", "--element", "web")
    done = shell(elements, "--at", "50-web", "web", "--", *engine, "server", DISTRO_NAME="debian")
    assert done.stdout == "nginx\n"
    done = shell(elements, "--at", "50-web", "web", "--command", "dib-engine install nginx || echo refused $?")
    assert done.stdout == "refused 1\n"
    assert len(done.stderr.splitlines()) > 1, "it says why"


def test_packages_can_be_installed_in_a_shell(ordinary_user: Person) -> None:
    place = ordinary_user.directory("shell")
    command = "install-packages hello && hello --greeting=installed; echo $?"
    done = ordinary_user.dibble(
        "shell",
        "--after",
        "install.d/01-package-installs",
        "debian-minimal",
        "--command",
        command,
        cwd=place,
        timeout=900,
    )
    assert done.stdout.splitlines()[-2:] == ["installed", "0"], done.stdout
    gone = ordinary_user.dibble(
        "shell",
        "--after",
        "install.d/01-package-installs",
        "debian-minimal",
        "--",
        "hello",
        cwd=place,
        timeout=900,
        check=False,
    )
    assert gone.returncode == 127


def test_a_shell_has_keys_variables_and_results_of_the_build_itself(elements: SmallElements) -> None:
    """Its own options are not among those that a script is told of (DIB_ARGS)."""
    elements.script("web/install.d/60-args", "printf '%s\n' \"$DIB_ARGS\" > /etc/args")
    elements.build("web")
    done = shell(elements, "--after", "60-args", "web", "--", "cat", "/etc/args")
    assert "Running" not in done.stderr
    assert done.stdout == "-n web\n"


# --- what a failed step left


def test_what_a_failed_step_had_written_is_kept_and_entered(elements: SmallElements) -> None:
    break_in_the_middle(elements)
    said = elements.run("build", *BASE, "web", check=False).stderr
    assert kept(elements) == []
    assert "--at install.d/50-web" in said
    assert "nothing is kept" in shell(elements, "--failed", "web", status=2).stderr
    said = elements.run("build", *BASE, "--keep-on-failure", "web", check=False).stderr
    assert " shell --failed -n -t tar web" in said
    assert len(kept(elements)) == 1
    done = shell(elements, "--failed", "web", "--", "cat", "/etc/half", "/etc/first")
    assert done.stdout == "half\nfirst\n"
    assert "as install.d/50-web failed" in done.stderr
    assert "half" not in shell(elements, "--at", "50-web", "web", "--command", "ls /etc").stdout
    # The script may be edited meanwhile.
    elements.script("web/install.d/50-web", "# better\nexit 8")
    assert shell(elements, "--failed", "web", "--", "cat", "/etc/half").stdout == "half\n"
    assert elements.run("build", *BASE, "web", check=False).returncode == 8
    elements.script("web/install.d/50-web", "echo web > /etc/web")
    elements.build("web")
    assert "no step has failed" in shell(elements, "--failed", "web", status=2).stderr
    assert kept(elements) == [], "it is of no use any more"


def test_the_last_failure_counts(elements: SmallElements) -> None:
    elements.script("web/install.d/50-web", "echo $RANDOM > /etc/half\ncat /etc/half\n(exit 7)")
    numbers = [
        printed(elements.build("web", check=False, DIBBLE_KEEP_ON_FAILURE="1"), "install.d/50-web")[0] for _ in range(2)
    ]
    assert shell(elements, "--failed", "web", "--", "cat", "/etc/half").stdout == f"{numbers[1]}\n"


def test_the_hint_of_a_failure_is_a_command_line_that_works(elements: SmallElements) -> None:
    break_in_the_middle(elements)
    said = elements.run("build", *BASE, "-o", "my $image's", "web", check=False).stderr
    command = re.search(r"hint: to look around where it failed: (.*)", said)
    assert command is not None
    done = elements.person.run(
        ["/bin/sh", "-c", f"{command[1]} --command 'cat /etc/first; echo $IMAGE_NAME'"],
        cwd=elements.place,
        env=elements.environment(),
    )
    assert done.stdout == "first\nmy $image's\n"
    assert "Running" not in done.stderr
    compatible = elements.run("disk-image-create", "-n", "-t", "tar", "--no-tmp", "web", check=False).stderr
    command = re.search(r"hint: to look around where it failed: (.*)", compatible)
    assert command is not None
    done = elements.person.run(
        ["/bin/sh", "-c", f"{command[1]} -- printenv IMAGE_NAME"], cwd=elements.place, env=elements.environment()
    )
    assert done.stdout == "image\n"


# --- a terminal


def test_a_shell_on_a_terminal_has_job_control_and_follows_its_size(elements: SmallElements) -> None:
    shell(elements, "--at", "50-web", "web", "--", "id")
    with at_terminal(elements, "shell", "--at", "50-web", "web") as user:
        before = user.settings()
        assert "dropped" in user.wait_for("[before install.d/50-web" + PROMPT)
        assert user.settings() != before, "keys go through as they are"
        user.type("cat /etc/first; echo $((6 * 7))\n")
        assert "first\n42\n" in user.wait_for(PROMPT)
        user.type("bash -c 'echo $((40 + 2)); exec cat'\n")
        user.wait_for("42\n")
        user.type("\x1a")  # Ctrl-Z
        user.wait_for("Stopped")
        user.wait_for(PROMPT)
        user.type("jobs; kill -l | grep -c TSTP; fg\n")
        user.wait_for("Stopped")
        user.wait_for("\n1\n")
        user.wait_for("exec cat")
        user.type("here\n")
        user.wait_for("here\nhere\n")  # the terminal's, and that of the job, which has it again
        user.type("\x03")  # Ctrl-C
        user.wait_for(PROMPT)
        user.type("echo status $?\n")
        user.wait_for("status 130\n")
        user.wait_for(PROMPT)
        user.resize(41, 90)
        user.type("kill -WINCH $$; id > /dev/null; echo size $LINES $COLUMNS\n")
        user.wait_for("size 41 90\n")
        user.wait_for(PROMPT)
        user.type("exit 9\n")
        assert user.end() == 9
        assert user.settings() == before


def test_steps_are_shown_before_a_shell_on_a_terminal_and_not_over_it(elements: SmallElements) -> None:
    elements.script("web/install.d/55-slow", "sleep 0.5\necho slow > /etc/slow")
    with at_terminal(elements, "shell", "--after", "55-slow", "web") as user:
        user.wait_for("install.d/55-slow")
        user.wait_for(PROMPT)
        user.type("sleep 0.5; cat /etc/slow\n")
        shown = user.wait_for(PROMPT)
        assert shown.replace("sleep 0.5; cat /etc/slow\n", "", 1) == "slow\n[after install.d/55-slow"
        user.type("\x04")  # Ctrl-D
        assert user.end() == 0


def test_a_command_on_a_terminal_is_interrupted_by_ctrl_c(elements: SmallElements) -> None:
    with at_terminal(elements, "shell", "--at", "50-web", "web", "--command", "echo up; sleep 1000") as user:
        user.wait_for("up\n")
        user.type("\x03")
        assert user.end() == 130


@pytest.mark.parametrize("end", ["kill -9", "hang up"])
def test_a_shell_that_is_killed_or_hung_up_leaves_nothing(elements: SmallElements, end: str) -> None:
    shell(elements, "--at", "50-web", "web", "--", "id")
    before = mounts()
    mark = str(uuid.uuid4())
    with leaving_sessions(elements.person):
        with at_terminal(elements, "shell", "--at", "50-web", "web", DIBBLE_TEST_MARK=mark) as user:
            user.wait_for(PROMPT)
            user.type(f"sleep 1000 & {WAITING}")
            user.wait_for("42\n")
            user.process.send_signal(signal.SIGKILL) if end == "kill -9" else user.hang_up()
            user.process.wait(PATIENCE_S)
            assert left_after_a_while(mark) == []
        assert mounts() == before
        shell(elements, "--at", "50-web", "web", "--", "id")
    assert left_sessions(elements.person) == [], "the next one has swept up"


def test_a_killed_shell_inside_leaves_the_terminal_as_it_was(elements: SmallElements) -> None:
    shell(elements, "--at", "50-web", "web", "--", "id")
    with at_terminal(elements, "shell", "--at", "50-web", "web") as user:
        before = user.settings()
        user.wait_for(PROMPT)
        user.type("kill -9 $$\n")
        assert user.end() == 137
        assert user.settings() == before


# --- break points


POINTS = "before-root,after-root,before-extra-data,before-install,after-install,after-cleanup"


def stages(text: str) -> list[str]:
    return re.findall(r"At stage (\S+)", text)


def test_break_points_stop_a_build_also_when_everything_is_cached(elements: SmallElements) -> None:
    command = 'echo "at $(pwd) $WEB_PORT: $(ls $TARGET_ROOT/etc 2> /dev/null | grep -cx -e first -e web)"'
    for number in range(2):
        done = stopped(elements, POINTS, command)
        assert stages(done.stderr) == POINTS.split(",")
        assert done.stderr.count("Starting debug shell") == len(stages(done.stderr)) == done.stderr.count("Resuming")
        # Outside a path of the target is below TARGET_ROOT; only root.d and cleanup.d have that, as in DIB.
        outside = f"at {elements.place} 80:"
        said = [line for line in done.stdout.splitlines() if line.startswith("at ")]
        assert said == [f"{outside} 0", f"{outside} 0", f"{outside} 0", "at / 80: 0", "at / 80: 2", f"{outside} 2"]
        assert ("Running install.d/50-web" in done.stdout) == (number == 0)
        assert ("nothing has changed" in done.stdout) == (number == 1)


def test_break_points_of_the_target_exist_only_with_their_phase(elements: SmallElements) -> None:
    done = stopped(elements, "before-pre-install,after-finalise,before-post-root,after-block-device", "id")
    assert stages(done.stderr) == ["before-post-root", "after-block-device"]


def test_an_unknown_break_point_is_told_and_the_build_goes_on(elements: SmallElements) -> None:
    done = stopped(elements, "before-instal")
    assert 'unknown break point "before-instal": did you mean before-install' in done.stdout


def test_break_points_are_in_no_key_and_change_nothing(elements: SmallElements) -> None:
    elements.build("web")
    command = "echo broken > /etc/first; echo x >> $TMP_HOOKS_PATH/install.d/50-web; echo left > beside.txt"
    done = stopped(elements, "after-install", f"{command}; exit 3", outside="1")
    assert "nothing has changed" in done.stdout
    assert "break_cmd ended with status 3" in done.stdout
    assert (elements.place / "beside.txt").read_text() == "left\n", "what lies beside the image stays"
    tar = elements.place / "web.tar"
    assert subprocess.check_output(["tar", "xOf", tar, "./etc/first"], text=True) == "first\n"


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_after_error_shows_what_the_failed_step_left(elements: SmallElements, where: str) -> None:
    if where == "outside":
        elements.script("web/extra-data.d/50-web", 'echo half > "$TMP_MOUNT_PATH/etc/half"\nexit 7')
    else:
        break_in_the_middle(elements)
    half = "$TMP_MOUNT_PATH/etc/half" if where == "outside" else "/etc/half"
    done = stopped(elements, "after-error", f"cat {half}; pwd", status=7)
    assert stages(done.stderr) == ["after-error"]
    directory = str(elements.place) if where == "outside" else "/"
    assert done.stdout.splitlines()[-2:] == ["half", directory]
    assert "50-web ended with status 7" in done.stderr


def test_after_error_outside_the_target_collects_files_as_the_tests_of_dib_do(elements: SmallElements) -> None:
    elements.script("web/install.d/50-web", "touch /tmp/dib-test-should-fail\nexit 1")
    image = elements.place / "out"
    image.mkdir()
    os.chown(image, elements.person.uid, elements.person.gid)
    env = {
        **elements.environment(),
        "break": "after-error",
        "break_outside_target": "1",
        "break_cmd": f"cp -v $TMP_MOUNT_PATH/tmp/dib-test-should-fail {image} || true",
    }
    words = ("-x", "-n", "-t", "tar", "-o", f"{image}/image", "web")
    dibble = elements.person.checkout / "dibble"
    done = elements.person.run([dibble, "disk-image-create", *words], cwd=elements.place, env=env, check=False)
    assert done.returncode == 1
    assert [path.name for path in image.iterdir()] == ["dib-test-should-fail"]


def test_a_break_without_a_terminal_does_not_hang(elements: SmallElements) -> None:
    break_in_the_middle(elements)
    done = stopped(elements, "before-install,after-error", status=7)
    assert done.stdout.count("there is no terminal for a shell") == 2
    assert stages(done.stderr) == []


def test_a_break_on_a_terminal_is_a_shell_and_the_build_goes_on_after_it(elements: SmallElements) -> None:
    with at_terminal(elements, "build", "web", **{"break": "before-install,after-cleanup"}) as user:
        user.wait_for("At stage before-install\n")
        user.wait_for("[before-install" + PROMPT)
        user.type("echo $WEB_PORT; ls /tmp/in_target.d/install.d\n")
        assert "80\n20-first" in user.wait_for(PROMPT)
        user.type("exit\n")
        user.wait_for("Resuming")
        user.wait_for("[after-cleanup] ")
        user.type("cat $TMP_MOUNT_PATH/etc/after; exit 3\n")
        user.wait_for("web\n")
        user.wait_for("Build completed successfully")
        assert user.end() == 0
    with at_terminal(elements, "build", "web", **{"break": "after-install"}) as user:
        user.wait_for("[after-install" + PROMPT)
        user.type("cat /etc/web; exit\n")
        user.wait_for("web\n")
        user.wait_for("nothing has changed")
        assert user.end() == 0


def test_a_build_with_break_points_makes_no_difference_to_the_image(elements: SmallElements, tmp_path: Path) -> None:
    stopped(elements, "before-install", "id")
    with_break = (elements.place / "web.tar").read_bytes()
    elements.run("build", *BASE, "--refresh", "all", "web")
    assert (elements.place / "web.tar").read_bytes() == with_break
