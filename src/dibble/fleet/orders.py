"""A job as it goes to another machine, and what it is there: paths and variables are another machine's."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dibble.fleet.cells import Work
from dibble.fleet.inputs import kept
from dibble.fleet.model import Cell
from dibble.fleet.pool import Job
from dibble.fleet.spec import BootCheck, HostTree, Policy
from dibble.recipe import kinds
from dibble.recipe.options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dibble.fleet.inputs import Input, Inputs

_MARK = "dibble-input:"
_NOT_SENT = frozenset({"secure_boot_key", "remote_cache_key", "secrets", "cache_dir", "name", "logfile"})
"""Options whose files stay where they are: secrets, which must be at the same path on the workers, and places to write
to."""
_PATHS = [option for option in OPTIONS if option.kind in (kinds.PATH, kinds.PATHS) and option.key not in _NOT_SENT]
_OPTION_VARIABLES = frozenset(option.variable for option in OPTIONS if option.variable)
_OF_THE_CALLER = frozenset({"DIB_IMAGE_CACHE", "DIBBLE_REMOTE_CACHE_KEY", "DIBBLE_HISTORY", "IMAGE_NAME", "TMP_DIR"})
OF_THE_WORKER = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_\w+|TZ|TMPDIR|XDG_\w+|PYTHONPATH|(https?|ftp|all|no)_proxy|SSL_CERT_\w+"
    r"|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|PIP_\w+|AWS_\w+|FSSPEC_\w+|GOOGLE_\w+|DIB_IMAGE_CACHE|DIBBLE_\w+",
    re.IGNORECASE,
)
"""Variables of the worker that a build gets. The others would be parts of its layers' keys, and every worker has its
own (SLURM_JOB_ID, KUBERNETES_PORT …)."""


def order_of(job: Job, inputs: Inputs) -> tuple[str, list[Input]]:
    """A job as JSON, with marks where paths of inputs will stand, and these inputs. Raises ReadError."""
    needed: dict[str, Input] = {}

    def mark(text: str) -> str:
        path = Path(text)
        if not path.is_absolute() or not path.exists():
            return text
        found = inputs.of(path)
        needed[found.name] = found
        return f"{_MARK}{found.name}"

    work = job.work
    recipe: dict[str, Any] = json.loads(json.dumps(work.recipe, default=str))
    environment = {name: text for name, text in job.environment.items() if _travels(name)}
    for option in _PATHS:
        if option.recipe_key in recipe:
            value = recipe[option.recipe_key]
            recipe[option.recipe_key] = [mark(one) for one in value] if isinstance(value, list) else mark(str(value))
        if environment.get(option.variable):
            environment[option.variable] = ":".join(map(mark, environment[option.variable].split(":")))
    if work.tests is None:
        recipe["arch"] = recipe.get("arch") or environment.get("ARCH") or _own_arch()
    text = json.dumps(
        {
            "cell": asdict(work.cell),
            "kind": work.kind,
            "recipe": recipe,
            "policy": asdict(work.policy),
            "image": work.image,
            "tests": mark(str(work.tests)) if work.tests else "",
            "tree": mark(str(job.tree)) if job.tree else "",
            "environment": environment,
        }
    )
    return text, list(needed.values())


def _travels(name: str) -> bool:
    """Whether a variable of the caller goes along: those that belong to dibble and its elements, and no other.

    A shell's environment holds what is nobody's business on other machines.
    """
    ours = name.startswith(("DIB_", "DIBBLE_")) or name in _OPTION_VARIABLES
    return ours and name not in _OF_THE_CALLER


def arch_of(job_recipe: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """The architecture of a cell: as its recipe or the environment says, else that of the caller's machine."""
    said = job_recipe.get("arch") or environment.get("ARCH") or _own_arch()
    return str(said[0] if isinstance(said, list) else said).split(",")[0]


@functools.cache
def _own_arch() -> str:
    from dibble.recipe.load import this_host
    from dibble.recipe.merge import debian_arch

    return debian_arch(this_host().machine)


def job_of(text: str, directory: Path, place: Path, environ: Mapping[str, str], store: Path) -> Job:
    """The job of an order, in a directory of this machine. Inputs are below `place`, a host's things too."""

    def there(value: Any) -> Any:  # a value of JSON
        if isinstance(value, str):
            return re.sub(f"{_MARK}([\\w.+-]+)", lambda found: str(kept(place, found[1])), value)
        if isinstance(value, list):
            return [there(one) for one in value]
        return {key: there(one) for key, one in value.items()} if isinstance(value, dict) else value

    data = there(json.loads(text))
    cell, policy = data["cell"], data["policy"]
    boot = policy["boot"]
    if isinstance(boot, dict):
        boot = BootCheck(**{**boot, "commands": tuple(boot["commands"])})
    tree = Path(data["tree"]) if data["tree"] else None
    own = {name: value for name, value in environ.items() if OF_THE_WORKER.fullmatch(name)}
    work = Work(
        cell=Cell(**{**cell, "needs": tuple(cell["needs"])}),
        kind=data["kind"],
        recipe=data["recipe"],
        host=HostTree(tree=tree),
        policy=Policy(**{**policy, "boot": boot}),
        image=data["image"],
        tests=Path(data["tests"]) if data["tests"] else None,
    )
    return Job(
        work=work,
        directory=directory,
        store=store,
        environment={**own, **data["environment"]},
        tree=tree,
        host_directory=place / "hosts" / work.cell.host if tree else None,
    )
