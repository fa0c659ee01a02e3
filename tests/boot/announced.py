"""examples/one-configuration in a guest, whatever distribution it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

USER = "maintainer"
RECIPE = "examples/one-configuration/image.yaml"
"""In the checkout of whoever builds."""
_ISSUE = "/run/issue.d/50-announce.issue"
COMMANDS = {
    # the network comes up beside the boot, which does not wait for it
    "announced": f"timeout 90 sh -c 'until grep -q 10.0.2. {_ISSUE}; do sleep 1; done'; cat {_ISSUE}",
    "announce": "systemctl is-active announce",
    "servers": "ss --tcp --listening --numeric --no-header '( sport = :22 )' | wc -l",
    "who": "id -un; sudo -n id -u",
}


def check(printed: Mapping[str, str], system: str, machine: str = "x86_64") -> None:
    """What all distributions have in common; `system` begins the name in os-release."""
    lines = printed["announced"].splitlines()
    assert any(line.startswith(system) and line.endswith(f" on {machine}") for line in lines), lines
    assert any("10.0.2." in line for line in lines), "the network of the guest"
    assert printed["announce"] == "active"
    assert int(printed["servers"]) >= 1
    assert printed["who"].split() == [USER, "0"]
