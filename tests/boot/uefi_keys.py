"""Keys for Secure Boot that a test makes, and firmware that has one of them enrolled."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.inside import with_tools

if TYPE_CHECKING:
    from tests.people import Person

    from dibble.sandbox.toolbox import Toolbox

VARIABLES = "usr/share/OVMF/OVMF_VARS_4M.fd"


@dataclass(frozen=True, slots=True)
class UefiKey:
    """Files: a private key and its certificate in PEM, and OVMF's variables with no other certificate in them."""

    key: Path
    certificate: Path
    variables: Path

    @property
    def options(self) -> tuple[str, ...]:
        """What signs with it, relative to where the key is."""
        return ("--secure-boot-key", self.key.name, "--secure-boot-cert", self.certificate.name)


def new_key(person: Person, cache: Path, directory: Path, name: str) -> UefiKey:
    """A new key in a directory of `person`; OVMF comes from the tools tree in `cache`."""
    found = UefiKey(*(directory / f"{name}.{suffix}" for suffix in ("key", "pem", "fd")))
    request = ("openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}/")
    subprocess.run([*request, "-keyout", found.key, "-out", found.certificate], check=True, capture_output=True)
    template = found.variables.with_suffix(".template")
    template.write_bytes(with_tools(cache, _template, "qemu-system"))
    owner = str(uuid.uuid4())
    enrol = [word for option in ("--set-pk", "--add-kek", "--add-db") for word in (option, owner, found.certificate)]
    program = Path(sys.executable).with_name("virt-fw-vars")
    command = [program, "--input", template, "--output", found.variables, *enrol, "--sb"]
    subprocess.run(command, check=True, capture_output=True)
    found.key.chmod(0o600)
    for path in (found.key, found.certificate, found.variables):
        os.chown(path, person.uid, person.gid)
    return found


def _template(toolbox: Toolbox, _: Path) -> bytes:
    assert toolbox.root is not None
    return (toolbox.root / VARIABLES).read_bytes()
