"""What the shipped elements fetch: `cache-url`, `extract-image` and source-repositories, on directories."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

import pytest
from tests.unit import needed
from tests.unit.hook_build import SYSTEM, HookBuild

from dibble.sandbox.process import run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dibble.sandbox.process import Completed

pytestmark = pytest.mark.unit

WRITES = 'echo "$DATA" > "${@: -1}"'


@pytest.fixture
def build(tmp_path: Path) -> HookBuild:
    found = HookBuild(tmp_path)
    found.fake("dib-engine")
    return found


def test_a_download_replaces_an_old_file(build: HookBuild) -> None:
    file = build.cache / "f"
    file.write_text("old\n")
    build.fake("dib-engine", WRITES)
    build.run("cache-url/bin/cache-url", "http://x/f", str(file), env={"DATA": "new"})
    assert file.read_text() == "new\n"
    assert [path.name for path in build.cache.iterdir()] == ["f"]


@needed.programs("cmp")
def test_a_download_that_changes_nothing_leaves_the_file_alone(build: HookBuild) -> None:
    file = build.cache / "f"
    file.write_text("same\n")
    before = file.stat().st_ino
    build.fake("dib-engine", WRITES)
    build.run("cache-url/bin/cache-url", "http://x/f", str(file), env={"DATA": "same"})
    assert file.stat().st_ino == before


@pytest.mark.parametrize(("status", "expected"), [(44, 44), (1, 1), (6, 1)])
def test_a_failed_download_tells_a_missing_file_from_other_failures(
    build: HookBuild, status: int, expected: int
) -> None:
    file = build.cache / "f"
    file.write_text("old\n")
    build.fake("dib-engine", f"exit {status}")
    build.run("cache-url/bin/cache-url", "-f", "http://x/f", str(file), status=expected)
    assert file.read_text() == "old\n"
    assert [path.name for path in build.cache.iterdir()] == ["f"]


def test_offline_a_cached_file_is_taken_and_another_is_an_error(build: HookBuild) -> None:
    (build.cache / "f").write_text("old\n")
    build.run("cache-url/bin/cache-url", "http://x/f", str(build.cache / "f"), env={"DIB_OFFLINE": "1"})
    build.run("cache-url/bin/cache-url", "http://x/g", str(build.cache / "g"), status=1, env={"DIB_OFFLINE": "1"})
    assert build.calls == ["dib-engine", "fetched", "url", "http://x/f"]


def test_an_archive_is_unpacked_into_the_target(build: HookBuild) -> None:
    tree = build.root / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/os-release").write_text("ID=x\n")
    run(["tar", "-C", str(tree), "-czf", str(build.cache / "x.tar.gz"), "."], env={"PATH": SYSTEM})
    build.run(
        "sysprep/bin/extract-image",
        "x.tar.gz",
        "x.tgz",
        "http://x/",
        "/c",
        env={"DIB_LOCAL_IMAGE": str(build.cache / "x.tar.gz")},
    )
    assert (build.target / "etc/os-release").read_text() == "ID=x\n"


def git(where: Path, *arguments: str) -> str:
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    env = {"PATH": SYSTEM, "HOME": str(where.parent), **who}
    return run(["git", "-C", str(where), *arguments], env=env).output.strip()


@pytest.fixture
def upstream(build: HookBuild) -> Path:
    """A git repository with the branches main (head) and other."""
    if not shutil.which("git", path=SYSTEM):
        pytest.skip("git is not installed")
    where = build.root / "upstream"
    where.mkdir()
    git(where, "init", "-q", "-b", "main")
    (where / "f").write_text("main\n")
    git(where, "add", "f")
    git(where, "commit", "-q", "-m", "one")
    git(where, "checkout", "-q", "-b", "other")
    (where / "f").write_text("other\n")
    git(where, "commit", "-q", "-a", "-m", "two")
    git(where, "checkout", "-q", "main")
    return where


def get_sources(build: HookBuild, *lines: str, status: int = 0, env: Mapping[str, str] | None = None) -> Completed:
    (build.hooks / "source-repository-x").write_text("\n".join(lines))  # the last line without its end
    build.command("cache-url", "cache-url")
    return build.run("source-repositories/extra-data.d/98-source-repositories", status=status, env=env)


def test_a_repository_without_a_reference_comes_at_its_head(build: HookBuild, upstream: Path) -> None:
    get_sources(build, "# comment", "", f"my-tool git /opt/tool file://{upstream}")
    assert (build.target / "opt/tool/f").read_text() == "main\n"
    assert (build.target / "etc/dib-source-repositories").read_text() == "/opt/tool\n"


@pytest.mark.parametrize("by", ["branch", "commit"])
def test_a_repository_comes_at_its_branch_or_commit(build: HookBuild, upstream: Path, by: str) -> None:
    commit = git(upstream, "rev-parse", "other")
    ref = "other" if by == "branch" else commit
    get_sources(build, f"my-tool git /opt/tool file://{upstream} {ref}")
    assert (build.target / "opt/tool/f").read_text() == "other\n"
    assert git(build.target / "opt/tool", "rev-parse", f"fetch_{ref}") == commit
    record = (build.hooks / "dib-manifest-git").read_text()
    assert record == f"my-tool git /opt/tool file://{upstream} {commit}\n"
    # A branch can move on, a commit cannot.
    told = ["dib-engine", "fetched", "git", f"file://{upstream}", "other", commit]
    assert build.calls == (told if by == "branch" else [])


def test_of_all_branches_it_is_told_before_they_are_fetched(build: HookBuild, upstream: Path) -> None:
    get_sources(build, f"my-tool git /opt/tool file://{upstream} *")
    assert build.calls == ["dib-engine", "fetched", "git", f"file://{upstream}", "*"]


def test_variables_override_location_and_reference(build: HookBuild, upstream: Path) -> None:
    location = {"DIB_REPOLOCATION_my_tool": f"file://{upstream}", "DIB_REPOREF_my_tool": "other"}
    get_sources(build, "my-tool git /opt/tool https://nowhere.invalid/x main", env=location)
    assert (build.target / "opt/tool/f").read_text() == "other\n"


def test_a_missing_reference_is_named(build: HookBuild, upstream: Path) -> None:
    build.fake("sleep")
    done = get_sources(build, f"my-tool git /opt/tool file://{upstream} no-such", status=1)
    assert "no-such" in done.output


def test_offline_a_cached_repository_serves(build: HookBuild, upstream: Path) -> None:
    get_sources(build, f"my-tool git /opt/tool file://{upstream} other")
    shutil.rmtree(upstream)
    shutil.rmtree(build.target / "opt")
    get_sources(build, f"my-tool git /opt/tool file://{upstream} other", env={"DIB_OFFLINE": "1"})
    assert (build.target / "opt/tool/f").read_text() == "other\n"


def test_the_same_repository_may_be_named_twice_for_one_place(build: HookBuild, upstream: Path) -> None:
    line = f"my-tool git /opt/tool file://{upstream} other"
    get_sources(build, line, line)
    assert (build.target / "opt/tool/f").read_text() == "other\n"


@pytest.mark.parametrize("end", ["", "/"])
def test_a_base_of_ones_own_takes_the_place_of_host_and_scheme_and_the_cache_stays(
    build: HookBuild, upstream: Path, end: str
) -> None:
    build.fake("sleep")
    env = {"DIB_GITREPOBASE": f"file://{build.root}{end}"}
    get_sources(build, "my-tool git /opt/tool https://nowhere.invalid/upstream other", env=env)
    assert (build.target / "opt/tool/f").read_text() == "other\n"
    assert (build.hooks / "dib-manifest-git").read_text().split()[3] == f"file://{upstream}"
    assert [path.name for path in build.cache.iterdir()] == ["source-repositories"]
    assert [path.name[:8] for path in (build.cache / "source-repositories").glob("*_*") if path.is_dir()] == [
        "my_tool_"
    ]


def test_a_base_leaves_a_location_of_ones_own_alone(build: HookBuild, upstream: Path) -> None:
    build.fake("sleep")
    env = {"DIB_GITREPOBASE": "https://nowhere.invalid", "DIB_REPOLOCATION_my_tool": f"file://{upstream}"}
    get_sources(build, "my-tool git /opt/tool https://elsewhere.invalid/x other", env=env)
    assert (build.target / "opt/tool/f").read_text() == "other\n"


@pytest.mark.parametrize("variables", [{}, {"DIB_INSTALLTYPE_tool": "source"}])
def test_of_a_source_that_is_a_package_there_is_nothing_to_get(build: HookBuild, variables: dict[str, str]) -> None:
    done = get_sources(build, "tool package /opt/tool https://nowhere.invalid/tool", env=variables)
    assert "nothing to get" in done.output
    assert not (build.target / "opt").exists()


def test_two_files_for_one_place_are_refused(build: HookBuild) -> None:
    data = build.root / "data"
    data.write_text("x")
    done = get_sources(build, f"a file /opt/x file://{data}", f"b file /opt/x file://{data}", status=1)
    assert "a" in done.output
    assert "/opt/x" in done.output


def test_a_file_with_another_checksum_is_refused(build: HookBuild) -> None:
    data = build.root / "data"
    data.write_text("x")
    good = hashlib.sha256(b"x").hexdigest()
    get_sources(build, f"a file /opt/x file://{data} sha256={good}")
    assert (build.target / "opt/x").read_text() == "x"
    get_sources(build, f"a file /opt/x file://{data} sha256={good[::-1]}", status=1)


@pytest.mark.parametrize(("ref", "where"), [("top", "opt/t/f"), (".", "opt/t/top/f"), ("", "opt/t/f")])
def test_a_tarball_brings_the_directory_that_is_asked_for(build: HookBuild, ref: str, where: str) -> None:
    if not shutil.which("rsync", path=SYSTEM):
        pytest.skip("rsync is not installed")
    (build.root / "top").mkdir()
    (build.root / "top/f").write_text("x")
    run(["tar", "-C", str(build.root), "-czf", str(build.root / "t.tgz"), "top"], env={"PATH": SYSTEM})
    get_sources(build, f"t tar /opt/t file://{build.root}/t.tgz {ref}".rstrip())
    assert (build.target / where).read_text() == "x"


@pytest.mark.parametrize("variables", [{"DIB_INSTALLTYPE_a": "package"}, {"NO_SOURCE_REPOSITORIES": "1"}])
def test_sources_are_passed_over_when_they_are_not_wanted(build: HookBuild, variables: dict[str, str]) -> None:
    get_sources(build, "a file /opt/x http://nowhere.invalid/x", env=variables)
    assert not (build.target / "opt").exists()
