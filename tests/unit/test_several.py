"""How many builds run at a time, and how their lines are told apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dibble.cli.build_several import jobs, print_line
from dibble.errors import UsageError
from dibble.outputs.container_image import reference
from dibble.recipe.load import requests_of
from dibble.recipe.merge import Host
from dibble.run.prepare import CATALOGUE

pytestmark = pytest.mark.unit

GIB = 1 << 30
HOST = Host("x86_64", Path("/home/me"), Path("/here"), CATALOGUE / "elements")


@pytest.mark.parametrize(
    ("wanted", "cores", "available", "expected"),
    [(2, 8, 64 * GIB, 2), (4, 2, 64 * GIB, 2), (4, 8, 5 * GIB, 2), (4, 8, GIB, 1), (3, 1, 0, 1)],
)
def test_cores_and_memory_bound_what_runs_at_a_time(wanted: int, cores: int, available: int, expected: int) -> None:
    assert jobs(wanted, cores, available) == expected


def test_each_architecture_once_with_its_name() -> None:
    found = requests_of(("an-os",), {"arch": "x86_64, i386,amd64", "name": "out/web"}, {}, host=HOST)
    assert [(request.arch, request.name) for request in found] == [("amd64", "out/web-amd64"), ("i386", "out/web-i386")]


def test_one_architecture_keeps_the_name() -> None:
    (request,) = requests_of(("an-os",), {"arch": "x86_64"}, {}, host=HOST)
    assert (request.arch, request.name) == ("amd64", "an-os")
    with pytest.raises(UsageError):
        requests_of((), {"arch": "amd64,i386"}, {}, host=HOST)


@pytest.mark.parametrize(
    ("target", "tags"),
    [("web", ["web:amd64", "web:i386"]), ("x.org:5/web:1", ["x.org:5/web:1-amd64", "x.org:5/web:1-i386"])],
)
def test_each_architecture_has_a_tag_of_its_own(target: str, tags: list[str]) -> None:
    found = requests_of(("an-os",), {"arch": "amd64,i386", "docker_target": target}, {}, host=HOST)
    assert [reference(request) for request in found] == tags


def test_a_line_tells_its_architecture(capsys: pytest.CaptureFixture[str]) -> None:
    print_line("hello", "i386", as_json=False)
    print_line('{"event": "Note"}', "i386", as_json=True)
    print_line("no json", "i386", as_json=True)
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "i386: hello"
    assert json.loads(second) == {"arch": "i386", "event": "Note"}
    assert third == "i386: no json"


@pytest.mark.parametrize(
    ("name", "target", "expected"),
    [
        ("Web Server!", None, "web-server:latest"),
        ("out/debian-minimal-vm", None, "debian-minimal-vm:latest"),
        ("..a__--b..", None, "a_b:latest"),
        ("x", "example.org:5000/web", "example.org:5000/web:latest"),
        ("x", "web:1", "web:1"),
    ],
)
def test_the_name_of_a_container_image(name: str, target: str | None, expected: str) -> None:
    (request,) = requests_of(("an-os",), {}, {}, host=HOST)
    assert reference(replace(request, name=name, docker_target=target)) == expected
