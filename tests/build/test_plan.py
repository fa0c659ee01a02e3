"""The plan is what the build does; what changes runs again and nothing else; every miss is explained."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from tests.build.small_elements import SmallElements, cached, printed, ran

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.build


@pytest.fixture(params=["ourselves", "ordinary_user"])
def elements(request: pytest.FixtureRequest) -> SmallElements:
    person: Person = request.getfixturevalue(request.param)
    made = SmallElements(person, person.directory("plan"))
    made.write("web/README.rst", "===\nweb\n===\nA web server.\n")
    made.write("web/element-deps", "small\n")
    made.script("web/install.d/20-first", "echo first > /etc/first")
    made.script("web/install.d/50-web", "echo one > /etc/web")
    made.script("web/post-install.d/10-after", "cat /etc/web > /etc/after")
    made.write("web/environment.d/10-web.bash", "export WEB_PORT=${WEB_PORT:-80}\n")
    return made


def of(plan: dict[str, Any], step: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = [one for one in plan["steps"] if one["step"] == step]
    assert len(found) == 1, [one["step"] for one in plan["steps"]]
    return found[0]


def to_run(plan: dict[str, Any]) -> list[str]:
    return [one["step"] for one in plan["steps"] if one["status"] != "cached"]


def test_the_build_does_what_the_plan_says_and_a_script_alone_is_done_again(elements: SmallElements) -> None:
    plan = elements.plan("web")
    assert all(one["status"] != "cached" for one in plan["steps"])
    first = elements.build("web")
    assert ran(first) == to_run(plan)
    (started,) = [event for event in first if event["event"] == "BuildStarted"]
    assert (started["steps"], started["steps_to_run"]) == (len(plan["steps"]), len(plan["steps"]))

    plan = elements.plan("web")
    assert to_run(plan) == []
    assert all(output["cached"] for output in plan["outputs"])
    assert ran(elements.build("web")) == []

    script = elements.script("web/install.d/50-web", "echo two > /etc/web")
    plan = elements.plan("web")
    edited = of(plan, "install.d/50-web")
    assert edited["status"] == "run"
    (reason,) = edited["reasons"]
    assert (reason["file"], reason["line"]) == (str(script), 3)
    assert (reason["old"], reason["new"]) == ("echo one > /etc/web", "echo two > /etc/web")
    assert of(plan, "install.d/20-first")["status"] == "cached", "it does not look at its neighbour"
    assert of(plan, "post-install.d/10-after")["status"] == "follows"
    again = elements.build("web")
    assert ran(again) == to_run(plan)
    assert "install.d/20-first" in cached(again)
    tar = elements.place / "web.tar"
    assert subprocess.check_output(["tar", "xOf", tar, "./etc/after"], text=True) == "two\n"

    explained = elements.run("explain", "--last").stdout
    assert f"{script} has changed in line 3" in explained
    assert "install.d/20-first" not in explained
    one = elements.run("explain", "--last", "install.d/20-first").stdout
    assert one == "install.d/20-first: in the cache\n"


def test_what_does_not_matter_redoes_nothing(elements: SmallElements) -> None:
    elements.build("web")
    elements.write("web/README.rst", "===\nweb\n===\nAnother text.\n")
    assert to_run(elements.plan("web")) == []
    assert to_run(elements.plan("web", LANG="de_DE.UTF-8", CI_JOB_ID="77", TERM="vt100")) == []


def test_a_script_that_runs_to_the_same_result_redoes_nothing_behind_it(elements: SmallElements) -> None:
    elements.build("web")
    elements.script("web/install.d/50-web", "# a comment\necho one > /etc/web")
    assert ran(elements.build("web")) == ["install.d/50-web"]


def test_a_variable_redoes_from_the_first_phase_that_sees_it_and_is_named(elements: SmallElements) -> None:
    elements.build("web")
    plan = elements.plan("web", WEB_PORT="8080")
    (reason,) = plan["steps"][0]["reasons"]
    assert (reason["part"], reason["new"]) == ("variable WEB_PORT", "8080")


def test_an_edit_of_a_later_phase_leaves_earlier_ones_alone(elements: SmallElements) -> None:
    elements.build("web")
    elements.script("web/post-install.d/10-after", "cat /etc/web /etc/web > /etc/after")
    plan = elements.plan("web")
    assert to_run(plan)[0] == "post-install.d/10-after"
    assert ran(elements.build("web"))[0] == "post-install.d/10-after"


def test_what_is_not_in_the_key_is_not_shown_to_a_script(elements: SmallElements) -> None:
    elements.script("web/install.d/30-look", "d=/tmp/in_target.d/install.\nd=${d}d\nls $d\nls ${d%/*}")
    events = elements.build("web")
    lines = printed(events, "install.d/30-look")
    assert "30-look" in lines
    assert "20-first" not in lines
    assert "environment.d" in lines
    elements.script("web/install.d/30-look", 'for file in "$(dirname "$0")"/*; do echo "${file##*/}"; done')
    lines = printed(elements.build("web"), "install.d/30-look")
    assert {"20-first", "30-look", "50-web"} <= set(lines)


def test_refresh_runs_again_what_it_names_and_takes_the_new_result(elements: SmallElements) -> None:
    elements.script("web/install.d/60-when", "read -r now _ < /proc/uptime\necho $now > /etc/when\nsleep 0.02")
    elements.build("web")

    def when() -> str:
        tar = elements.place / "web.tar"
        return subprocess.check_output(["tar", "xOf", tar, "./etc/when"], text=True)

    before = when()
    assert ran(elements.build("web")) == []
    assert ran(elements.build("web", "--refresh", "60-when"))[0] == "install.d/60-when"
    after = when()
    assert after != before
    assert ran(elements.build("web")) == [], "from now on the new result counts"
    assert when() == after
    done = elements.run("plan", "-n", "--refresh", "instal.d", "web", check=False)
    assert done.returncode == 2
    assert "did you mean install.d" in done.stderr
    everything = elements.plan("web", "--refresh", "all")
    assert all(one["status"] == "run" for one in everything["steps"])


def test_offline_there_is_no_network_at_all(elements: SmallElements) -> None:
    elements.script("web/install.d/70-net", "cat /proc/net/dev | cut -d: -f1 | tr -d ' '")
    lines = printed(elements.build("web", "--offline"), "install.d/70-net")
    assert [line for line in lines if line and "|" not in line] == ["lo"]


def test_a_step_that_used_the_network_is_marked_with_what_it_reached_and_its_age(elements: SmallElements) -> None:
    """An address of a link that no packet leaves (RFC 5737): what counts is that the script tried."""
    elements.script("web/install.d/70-net", "(exec 3<>/dev/udp/192.0.2.7/4711) 2>/dev/null || :")
    elements.script("web/install.d/71-local", "(exec 3<>/dev/udp/127.0.0.1/4711) 2>/dev/null || :")
    events = elements.build("web")
    (finished,) = [one for one in events if one["event"] == "StepFinished" and one["step"] == "install.d/70-net"]
    assert finished["network"] == ["192.0.2.7:4711"]
    plan = elements.plan("web")
    step = of(plan, "install.d/70-net")
    assert step["network"] == ["192.0.2.7:4711"]
    assert 0 <= step["age_s"] < 3600
    assert [one["step"] for one in plan["steps"] if one["network"]] == ["install.d/70-net"]
    text = elements.run("plan", "-n", "-t", "tar", "web").stdout
    assert re.search(r"✓ install.d/70-net .* s old, used the network", text)


def test_the_graph_of_a_plan_has_every_step_and_output(elements: SmallElements) -> None:
    text = elements.run("plan", "-n", "-t", "tar", "--dot", "web").stdout
    steps = elements.plan("web")["steps"]
    assert text.startswith("digraph plan {")
    assert text.count("{") == text.count("}")
    assert len(re.findall(r"^    s\d+ \[label=", text, re.MULTILINE)) == len(steps)
    assert len(re.findall(r"^  s\d+ -> s\d+;", text, re.MULTILINE)) == len(steps) - 1
    assert '"web.tar"' in text


def test_a_plan_warns_of_what_a_build_would_warn_of(elements: SmallElements) -> None:
    elements.write("bare/README.rst", "====\nbare\n====\nA script that does not say who runs it.\n")
    elements.write("bare/install.d/50-bare", "echo\n", 0o755)
    done = elements.run("plan", "-n", "-t", "tar", "--json", "small", "bare")
    assert "install.d/50-bare has no interpreter line" in done.stderr
    assert json.loads(done.stdout)["steps"], "warnings do not get into what programs read"


def test_the_plan_for_people_draws_the_disk(elements: SmallElements) -> None:
    config = "-t", "raw,tar", "web"
    disk = """
- local_loop: {name: image0, size: 256MiB}
- partitioning:
    base: image0
    label: mbr
    partitions:
      - {name: boot, size: 16MiB, flags: [primary], mkfs: {type: vfat, mount: {mount_point: /boot}}}
      - {name: root, size: 100%, flags: [boot, primary], mkfs: {mount: {mount_point: /}}}
"""
    text = elements.run("plan", "-n", *config, DIB_BLOCK_DEVICE_CONFIG=disk).stdout
    assert "disk image0: 268 MB, mbr" in text
    assert re.search(r"│ *boot *│ *root *│", text), text
    assert "on /boot" in text


def test_the_plan_is_quick_when_nothing_has_to_be_asked(elements: SmallElements, tmp_path: Path) -> None:
    """No clock: it must not enter a namespace, which would show in what it calls."""
    elements.build("web")
    trace = tmp_path / "trace"
    trace.touch()
    trace.chmod(0o666)
    tmp_path.chmod(0o777)
    code = (
        "import os, sys; from dibble.sandbox import enter; "
        "enter.run_in_namespace = lambda *a, **k: sys.exit('entered'); "
        "from dibble.cli.main import main; sys.exit(main())"
    )
    python = elements.person.checkout / ".venv/bin/python"
    env = elements.person.environment(
        ELEMENTS_PATH=str(elements.elements), PYTHONPATH=str(elements.person.checkout / "src")
    )
    argv: list[str | Path] = [python, "-c", code, "plan", "-n", "-t", "tar", "--json", "web"]
    done = elements.person.run(argv, cwd=elements.place, env=env)
    assert to_run(json.loads(done.stdout)) == []
