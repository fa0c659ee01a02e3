"""Words of a command line of our own that a program reads, and not a person: a wrong one is an error as any other."""

from __future__ import annotations

import argparse
from typing import NoReturn

from dibble.errors import UsageError


class Words(argparse.ArgumentParser):
    """Raises UsageError where argparse would end the process; `program` begins its message. No word is abbreviated."""

    def __init__(self, program: str) -> None:
        super().__init__(program, add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}", hint=self.format_usage().strip())
