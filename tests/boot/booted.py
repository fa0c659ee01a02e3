"""Booting an image that a test has built, on a larger disk, and asking the guest things."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.people import Person

PASSWORD = "correct horse"
ROOT_MIB = 3500
"""What the root file system is larger than when it has grown; the image itself is smaller."""
QEMU_ABORTED = "QEMU ended with status 134"
"""An assertion of QEMU's own failed, as one about MSI-X of 10.0 does at times under TCG; the image is not at fault."""
# An interface that is plugged in is set up beside the boot, which does not wait for it.
ADDRESS = "timeout 90 sh -c 'until ip -4 -o address show scope global | grep .; do sleep 1; done'"


def grow(image: Path) -> None:
    """Make the disk larger, as a user would before starting it."""
    subprocess.run(["qemu-img", "resize", "-q", image, "5G"], check=True)


def boot(
    person: Person, image: Path, user: str, commands: Mapping[str, str], *options: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """What `dibble boot` says of the boot, and what each of the commands, named as the caller does, printed."""
    log = image.with_name("serial.log")
    words: list[str | Path] = ["--json", "--timeout", "900", "--serial-log", log, "--login", user]
    words += [word for command in commands.values() for word in ("--command", command)]
    for _ in range(2):
        done = person.dibble("boot", image, *options, "--password", PASSWORD, *words, check=False, timeout=2400)
        lines = done.stdout.splitlines()
        assert lines, done.stderr
        result: dict[str, Any] = json.loads(lines[-1])
        if QEMU_ABORTED not in str(result["error"]):
            break
    assert result["error"] is None, f"{result['error']}\n{done.stderr[-2000:]}\n{log.read_text()[-4000:]}"
    printed = {entry["command"]: str(entry["output"]) for entry in result["commands"]}
    return result, {name: printed[command] for name, command in commands.items()}
