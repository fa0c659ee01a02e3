"""The page of a run as text: one file, nothing loaded, nothing of a build taken for markup. A browser looks at it in
tests/contract."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from tests.unit.matrix_runs import CAUSES, large_run, result, run_of, runs

from dibble.errors import OutputError, StoreError
from dibble.fleet.history import History
from dibble.fleet.logs import log_end
from dibble.fleet.model import Outcome
from dibble.fleet.reports import page_data
from dibble.fleet.reports.headline import tiles_of, verdict_of
from dibble.fleet.reports.html import run_as_html
from dibble.fleet.reports.page_data import Past
from dibble.fleet.reports.plain import one_line, readable
from dibble.fleet.reports.write import write_reports

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.fleet.model import MatrixRun

pytestmark = pytest.mark.unit

VOID = {"meta", "link", "input", "path", "rect", "use", "img", "br"}
FAILED = result(outcome=Outcome.FAILED, failure=CAUSES[0][0], reason=CAUSES[0][1])
ALLOWED = replace(FAILED, cell=replace(FAILED.cell, allow_failure=True))


class Page(HTMLParser):
    """Tags in order with attributes, and whether each that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: dict[str, str] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            name = self.tags[-1][1].get("id") or self.open[-1]
            self.texts[name] = self.texts.get(name, "") + data

    def json(self, name: str) -> Any:  # Any: JSON
        return json.loads(self.texts[name])


@given(runs())
@settings(max_examples=12)
def test_any_run_makes_a_page_whose_tags_and_data_are_whole(
    tmp_path_factory: pytest.TempPathFactory, run: MatrixRun
) -> None:
    page = Page(run_as_html(run, tmp_path_factory.getbasetemp(), Past()))
    assert len(page.json("data")["cells"]) == len(page.json("logs")) == len(run.results)
    assert [tag for tag, _ in page.tags].count("script") == 3
    assert "img" not in {tag for tag, _ in page.tags}


def test_the_page_loads_nothing_and_runs_its_own_script_only(tmp_path: Path) -> None:
    text = run_as_html(large_run(2, directory=tmp_path), tmp_path, Past())
    page = Page(text)
    policy = next(attributes["content"] for tag, attributes in page.tags if attributes.get("http-equiv"))
    assert policy
    for name in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.texts[name].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    loaded = [attributes for _, attributes in page.tags if attributes.get("src") or "style" in attributes]
    assert loaded == []
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_the_table_reads_without_a_script(tmp_path: Path) -> None:
    skipped = result(target="tox", outcome=Outcome.SKIPPED, reason="hostgen is needed")
    text = run_as_html(run_of(FAILED, result("fedora-44"), skipped), tmp_path, Past())
    table = re.sub(
        r"<[^>]+>|\s+", " ", text[text.index("<table id=") : text.index("</table>", text.index("<table id="))]
    )
    words = " ".join(table.split())
    assert "debian-12 fedora-44 fedora-44 failed mirror mid-sync success 60.0 s" in words
    assert "tox skipped hostgen is needed not in the matrix" in words


def test_the_page_tells_what_changed_and_follows_each_cell(tmp_path: Path) -> None:
    history = History(tmp_path / "history.sqlite")
    history.record(run_of(result(), result(target="tox"), id="1", began=1))
    run = run_of(FAILED, result(target="tox", seconds=600), id="2", began=2)
    past = page_data.past_of(run, history)
    page = Page(run_as_html(run, tmp_path, past))
    failed, slow = page.json("data")["cells"]
    assert failed["changes"] == [["newly failing", "success → failed (mirror mid-sync)"]]
    assert [kind for kind, _ in slow["changes"]] == ["slower"]
    assert [point[:3] for point in slow["trend"]] == [[0, "success", 60.0], [1, "success", 600.0]]
    assert [known["id"] for known in page.json("data")["runs"]] == ["1", "2"]
    assert page_data.past_of(run_of(id="1", began=1), history).previous is None


def test_logs_share_what_space_there_is_and_failures_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log").write_text("a line of a log\n" * 10_000)
    results = [replace(FAILED, log="log"), *(replace(result(target=str(one)), log="log") for one in range(9))]
    monkeypatch.setattr(page_data, "LOGS", 110_000)
    logs = page_data.logs_of(run_of(*results), tmp_path)
    sizes = [len(log["text"]) if log else 0 for log in logs]
    assert 99_000 < sizes[0] <= 100_000
    assert all(1_000 < size < 1_200 for size in sizes[1:])
    assert logs[0]
    assert logs[0]["left_out"] + sizes[0] == 160_000


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "link", "nothing", "", "a\0b", "."])
def test_a_log_outside_of_the_directory_is_not_shown(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    (tmp_path / "secret").write_text("secret")
    (directory / "link").symlink_to(tmp_path / "secret")
    assert log_end(directory, replace(FAILED, log=name), 100) is None


def test_the_end_of_a_log_begins_with_a_whole_line(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"first\nsecond\nthird\xff\n")
    end = log_end(tmp_path, replace(FAILED, log="log"), 10)
    assert end
    assert (end.text, end.left_out) == ("third\\xff\n", 13)
    (tmp_path / "log").write_bytes(b"one line alone")
    end = log_end(tmp_path, replace(FAILED, log="log"), 5)
    assert end
    assert (end.text, end.left_out) == ("alone", 9)


@pytest.mark.parametrize(
    ("given_text", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m \x1b]0;title\x07x\x1b(B", "red x"),
        ("10 %\r20 %\r\nend\r\r\n", "10 %\n20 %\nend\n"),
        (b"\xe4 \xc3\xa4", "\\xe4 ä"),
        ("bell\x07 zero\x00 del\x7f", "bell␇ zero␀ del␡"),
        ("\u202eevil\ud800\ufffe", "\ufffdevil\ufffd\ufffd"),
    ],
)
def test_what_steers_a_terminal_is_taken_out_of_text(given_text: str | bytes, shown: str) -> None:
    assert readable(given_text) == shown


def test_one_line_is_one_line() -> None:
    assert one_line(" a\n\tb\r\nc ") == "a b c"


@pytest.mark.parametrize(
    ("run", "sentence", "mark"),
    [
        (run_of(result()), "The one cell succeeded", "success"),
        (run_of(result(), result(target="tox")), "All 2 cells succeeded", "success"),
        (run_of(result(), FAILED), "1 of 2 cells failed", "failed"),
        (run_of(result(), ALLOWED), "1 of 2 cells succeeded", "success"),
        (run_of(result(), result(outcome=Outcome.WAITING)), "Not finished: 1 of 2 cells succeeded so far", "running"),
        (run_of(), "The matrix has no cells", "unsupported"),
    ],
)  # fmt: skip
def test_the_verdict_is_one_sentence(run: MatrixRun, sentence: str, mark: str) -> None:
    told, told_mark = verdict_of(run, [])
    assert told.startswith(sentence)
    assert told_mark == mark


def test_a_success_rate_that_is_not_whole_is_never_called_so() -> None:
    many = [result(target=str(one)) for one in range(4000)]
    assert tiles_of(run_of(*many, FAILED), None)[0].value == "99.9 %"
    assert tiles_of(run_of(*many), None)[0].value == "100 %"


def test_all_reports_are_written_and_none_is_left_half(tmp_path: Path) -> None:
    written = write_reports(large_run(1), tmp_path / "run", None)
    assert [path.name for path in written] == ["results.json", "junit.xml", "report.html"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == sorted(path.name for path in written)


def test_a_history_that_cannot_be_read_costs_no_report(tmp_path: Path) -> None:
    (tmp_path / "history").write_text("no database " * 200)
    with pytest.raises(StoreError, match="is damaged"):
        write_reports(run_of(result()), tmp_path, History(tmp_path / "history"))
    assert (tmp_path / "report.html").exists()


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write_reports(run_of(result()), tmp_path / "file", None)
