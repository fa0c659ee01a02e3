"""Whether a package's preinst may run after its files are in place, or must have dpkg's exact order."""

from __future__ import annotations

import re

# Tools with which a preinst decides where, or as whose, files are going to be placed; and what makes a call harmless:
# a question, a removal (there is nothing yet in a first installation), a diversion that is only registered.
_TOOLS = {
    b"dpkg-divert": re.compile(rb"--(truename|list|listpackage|no-rename|remove)\b"),
    b"dpkg-statoverride": re.compile(rb"--(list|remove)\b"),
    b"update-alternatives": re.compile(rb"--(query|list|display|get-selections|remove|remove-all|auto)\b"),
}


def is_risky(preinst: bytes) -> bool:
    """Whether the script may move, override or link files; diversions with --no-rename are honoured afterwards.

    Works line by line on the text (with continued lines joined, without comments): a tool named in any other way than
    a harmless call counts as a risk.
    """
    code = re.sub(rb"\\\n", b" ", preinst)
    for line in code.splitlines():
        line = line.partition(b" #")[0] if b" #" in line else line  # noqa: PLW2901
        if line.lstrip().startswith(b"#"):
            continue
        for tool, harmless in _TOOLS.items():
            if len(re.findall(rb"(?<![\w/.-])(?:/usr/s?bin/)?" + tool + rb"\b", line)) > len(harmless.findall(line)):
                return True
    return False
