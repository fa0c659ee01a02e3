"""The display on a terminal: what is done scrolls away as lines, what runs stays at the bottom and moves.

rich is imported here and nowhere else. Its thread is started at the first event that has something to show: a build
forks into its namespace, and a thread would stay behind in the process that it was started in.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from dibble.cli.display_text import SUCCESS, Summary, amount_text, lines_of
from dibble.events import (
    Activity,
    ArtifactWritten,
    BuildFinished,
    BuildStarted,
    Note,
    OutputLine,
    ShellClosed,
    ShellOpened,
    StepCached,
    StepFinished,
    StepStarted,
)
from dibble.wording import bytes_text, counted, seconds_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dibble.errors import DibbleError
    from dibble.events import Event

REFRESH_PER_SECOND = 8
FLUSH_SECONDS = 0.1
BAR_WIDTH = 24
SHOW_CURSOR = "\033[?25h"

# ECMA-48 control sequences, and C0 controls but the tab: a script's output must not move our cursor.
_CONTROLS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-Z\\-_]|[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Signs:
    """The signs before lines; plain letters where the terminal's encoding has no others."""

    done: str = "✓"
    failed: str = "✗"
    cached: str = "="
    warning: str = "!"
    spinner: str = "dots"


def signs_for(encoding: str) -> Signs:
    try:
        "✓✗⠋━".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return Signs(done="+", failed="x", spinner="line")
    return Signs()


@dataclass(slots=True)
class _Running:
    step: str
    began: float
    last_line: str = ""


class LiveReporter:
    """Shows running steps and activities in place. `show_all_output` keeps every line of output (`-x`);
    `shows_cached` counts steps that need not run."""

    def __init__(self, stream: TextIO, *, show_all_output: bool = False, shows_cached: bool = True) -> None:
        self._stream = stream
        self._signs = signs_for(stream.encoding or "ascii")
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=False)
        self._show_all_output = show_all_output
        self._shows_cached = shows_cached
        self._summary = Summary()
        self._lock = threading.Lock()  # guards the three below against the drawing thread; never held while printing
        self._running: dict[str, _Running] = {}
        self._activities: dict[str, Activity] = {}
        self._cached = 0
        self._pending: list[str] = []  # lines of output that are not printed yet
        self._printed = 0.0
        self._live: Live | None = None
        self._lent = False  # to a shell, which nothing must be drawn over
        self._owner = 0  # the process in which `_live` was started
        self._spinner = Spinner(self._signs.spinner)

    def handle(self, event: Event) -> None:
        self._summary.handle(event)
        if not isinstance(event, StepCached | OutputLine | Activity):
            self._print_pending()
            self._tell_cached()
        if self._lent and isinstance(event, OutputLine | Activity):
            return  # the shell's own commands show what they do
        match event:
            case BuildStarted():
                self._print(Text(f"dibble {event.version}: {event.name} from {' '.join(event.requested)}", "bold"))
            case StepCached():
                with self._lock:
                    self._cached += self._shows_cached
            case StepStarted():
                with self._lock:
                    self._running[event.step] = _Running(event.step, time.monotonic())
            case StepFinished():
                self._step_finished(event)
            case Activity():
                self._activity(event)
            case OutputLine():
                self._output(event)
            case Note():
                warning = event.level == "warning"
                sign = f"{self._signs.warning} " if warning else "  "
                self._print(Text(sign + event.text, "yellow" if warning else ""))
            case ArtifactWritten():
                self._print(Text(f"{self._signs.done} {lines_of(event)[0]}", "green"))
            case BuildFinished():
                self._build_finished(event)
                return
        self._lend(event)
        self._ensure_live()

    def _lend(self, event: Event) -> None:
        """Leave the terminal to a shell while it is open."""
        if isinstance(event, ShellOpened):
            self._stop()
            self._stream.flush()
        if isinstance(event, ShellOpened | ShellClosed):
            self._lent = isinstance(event, ShellOpened)

    def failed(self, error: DibbleError) -> None:
        """The command line shows the error itself."""

    def close(self) -> None:
        """Leave the terminal as it was, even when the process that drew on it was killed."""
        self._print_pending()
        if self._live is not None and self._owner == os.getpid():
            self._stop()
        else:
            self._stream.write(SHOW_CURSOR)
        self._stream.flush()

    def _tell_cached(self) -> None:
        with self._lock:
            count, self._cached = self._cached, 0
        if count:
            self._print(Text(f"{self._signs.cached} {counted(count, 'step')} cached", "dim"))

    def _step_finished(self, event: StepFinished) -> None:
        with self._lock:
            self._running.pop(event.step, None)
        good = event.status == 0
        line = Text(f"{self._signs.done if good else self._signs.failed} ", "green" if good else "red")
        line.append(event.step, "default" if good else "bold red")
        line.append(f"  {seconds_text(event.seconds)}", "dim")
        if event.bytes:
            line.append(f"  {bytes_text(event.bytes)}", "dim")
        self._print(line)

    def _activity(self, event: Activity) -> None:
        with self._lock:
            if event.finished:
                self._activities.pop(event.name, None)
            else:
                self._activities[event.name] = event
        if event.finished and event.seconds >= 0.5:
            amount = amount_text(event)
            text = "  ".join(part for part in (event.name, amount, seconds_text(event.seconds)) if part)
            self._tell_cached()
            self._print(Text(f"  {text}", "dim"))

    def _output(self, event: OutputLine) -> None:
        text = clean(event.text)
        with self._lock:
            running = self._running.get(event.step) or next(iter(self._running.values()), None)
            if running is not None and text.strip():
                running.last_line = text
        if self._show_all_output:
            self._pending.append(text)
            if time.monotonic() - self._printed > FLUSH_SECONDS:
                self._print_pending()

    def _print_pending(self) -> None:
        """Show output in one go: each print draws the moving part anew, which tracing scripts would wait for."""
        pending, self._pending = self._pending, []
        self._printed = time.monotonic()
        if pending:
            self._print(Text("\n".join(pending), "dim"))

    def _build_finished(self, event: BuildFinished) -> None:
        self._stop()
        for line in self._summary.lines(event):
            self._print(Text(line))
        if event.status == 0:
            self._print(Text(SUCCESS, "bold green"))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)

    def _ensure_live(self) -> None:
        with self._lock:
            something = bool(self._running or self._activities or self._cached)
        if not something or self._lent or (self._live is not None and self._owner == os.getpid()):
            return
        self._live = Live(
            console=self._console,
            get_renderable=self._drawing,
            refresh_per_second=REFRESH_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._owner = os.getpid()
        self._live.start()

    def _stop(self) -> None:
        live, self._live = self._live, None
        with self._lock:
            self._running.clear()
            self._activities.clear()
        if live is not None and self._owner == os.getpid():
            with contextlib.suppress(BrokenPipeError):
                live.stop()

    def _drawing(self) -> RenderableType:
        with self._lock:
            running = list(self._running.values())
            activities = list(self._activities.values())
            cached = self._cached
        now = time.monotonic()
        rows: list[RenderableType] = []
        if cached:
            rows.append(Text(f"{self._signs.cached} {counted(cached, 'step')} cached", "dim"))
        for step in running:
            head = Table.grid(padding=(0, 1))
            head.add_row(self._spinner, Text(step.step, "bold"), Text(seconds_text(now - step.began), "cyan"))
            rows.append(head)
            if step.last_line:
                rows.append(Text(f"    {step.last_line}", "dim", no_wrap=True, overflow="ellipsis"))
        if activities:
            rows.append(self._bars(activities))
        return Group(*rows)

    def _bars(self, activities: list[Activity]) -> Table:
        table = Table.grid(padding=(0, 1))
        for activity in activities:
            bar = (
                ProgressBar(total=activity.total, completed=activity.done, width=BAR_WIDTH)
                if activity.total
                else Text("")
            )
            table.add_row(Text(f"    {activity.name}"), bar, Text(amount_text(activity), "cyan"))
        return table


def clean(text: str) -> str:
    """A line of output without what would move the cursor or change colours."""
    return _CONTROLS.sub("", text).expandtabs()
