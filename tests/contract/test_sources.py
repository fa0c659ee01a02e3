"""What source-repositories fetched is fetched again when it has changed where it comes from, and only then."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.contract.probes.builds import Built, Dibble
from tests.serving import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.contract

STEP = "extra-data.d/98-source-repositories"
ASK = {"DIBBLE_MAX_AGE": "0"}


class Sources:
    """A repository, a file of the host and a file on a web server, and an element that wants them."""

    def __init__(self, place: Path, builder: Dibble, url: str) -> None:
        self.place, self.builder = place, builder
        self.web = place / "web"
        # Not the one that a variable names: files in a directory that a DIB_ variable names belong to the key.
        self.repository = place / "upstream"
        shutil.copytree(place / "sources" / "repository", self.repository, symlinks=True)
        element = place / "elements" / "app"
        element.mkdir(parents=True)
        (element / "element-deps").write_text("source-repositories\n")
        (element / "source-repository-app").write_text(
            f"app git /opt/app file://{self.repository} master\n"
            f"page file /opt/page {url}/page\n"
            f"note file /opt/note file://{place}/sources/a-file\n"
        )

    def build(self, *more: str, **variables: str) -> Built:
        built = self.builder.build("probe-os", "app", *more, **variables)
        assert built.status == 0, built.output[-3000:]
        return built

    def commit(self, text: str) -> None:
        (self.repository / "f").write_text(text)
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "safe.directory=*"]
        subprocess.run(["git", *who, "-C", self.repository, "commit", "-q", "-a", "-m", text], check=True)


def fetched(built: Built) -> tuple[str | None, ...]:
    return tuple(built.text(f"opt/{name}") for name in ("app/f", "page", "note"))


def was_cached(built: Built) -> bool:
    return f"Cached {STEP}" in built.output or "nothing has changed: all" in built.output


both = pytest.mark.parametrize("sources", ["ourselves", "ordinary_user"], indirect=True)
ours = pytest.mark.parametrize("sources", ["ourselves"], indirect=True)


@pytest.fixture
def sources(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sources]:
    person: Person = request.getfixturevalue(request.param)
    place = person.directory("sources")
    builder = Dibble(person, place)
    web = tmp_path / "web"
    web.mkdir()
    (web / "page").write_text("page\n")
    with served(web) as address:
        found = Sources(place, builder, address)
        found.web = web
        yield found
    shutil.rmtree(place, ignore_errors=True)


@both
def test_a_step_follows_what_it_fetched(sources: Sources) -> None:
    assert fetched(sources.build()) == ("master", "page", "a file")
    assert was_cached(sources.build(**ASK))

    sources.commit("moved")
    built = sources.build()
    assert was_cached(built), "what is known of the branch is not an hour old"
    assert fetched(built) == ("master", "page", "a file")
    assert fetched(sources.build(**ASK)) == ("moved", "page", "a file")
    assert was_cached(sources.build(**ASK))

    (sources.web / "page").write_text("another page\n")
    assert fetched(sources.build(**ASK)) == ("moved", "another page", "a file")

    (sources.place / "sources" / "a-file").write_text("another file\n")
    assert fetched(sources.build()) == ("moved", "another page", "another file"), (
        "a file of the host is always looked at"
    )


@ours
def test_offline_what_was_fetched_serves(sources: Sources) -> None:
    sources.build()
    sources.commit("moved")
    (sources.web / "page").unlink()
    built = sources.build("--offline", **ASK)
    assert was_cached(built)
    again = sources.build("--offline", DIBBLE_REFRESH=STEP)
    assert not was_cached(again), "it runs, from the copies in the cache"
    assert fetched(again) == fetched(built) == ("master", "page", "a file")
    assert fetched(sources.build(**ASK, NO_SOURCE_REPOSITORIES="1")) == (None, None, None)


@ours
def test_a_source_that_has_vanished_leaves_what_was_made_of_it(sources: Sources) -> None:
    sources.build()
    (sources.web / "page").unlink()
    sources.repository.rename(sources.place / "gone")
    assert was_cached(sources.build(**ASK))
