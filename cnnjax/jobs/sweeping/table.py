"""A sweep under way, as a live table on a terminal or as plain lines in a log."""

from __future__ import annotations

import dataclasses
import re
import sys
import time
from collections.abc import Collection, Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cnnjax.jobs.console import duration
from cnnjax.jobs.sweeping import trial
from cnnjax.jobs.sweeping.engine import Run
from cnnjax.train.writers import METRICS

_RANK = {"running": 0, "failed": 1, "done": 2, "waiting": 3}
_STYLE = {"running": "bold", "failed": "red", "done": "green", "waiting": "dim"}


@dataclasses.dataclass
class Row:
    """What there is to say about a run.

    Attributes:
      state: waiting, running, done or failed.
      step: that was last logged.
      total: steps of the run, 0 while unknown.
      pace: seconds a step, None while unknown.
      top1: of the last evaluation.
      seconds: it has run so far.
      started: when its present attempt began, in seconds since 1970.
      message: what went wrong.
    """

    state: str = "waiting"
    step: int = 0
    total: int = 0
    pace: float | None = None
    top1: float | None = None
    seconds: float = 0.0
    started: float = 0.0
    message: str = ""

    @property
    def elapsed(self) -> float:
        """Seconds, with those of an attempt under way."""
        if self.state != "running":
            return self.seconds
        return self.seconds + max(0.0, time.time() - self.started)  # A clock may be set back.

    @property
    def eta(self) -> float | None:
        """Seconds until it is done, as far as can be told."""
        if self.state == "running" and self.pace is not None and self.total:
            return self.pace * (self.total - self.step)
        return None


class Display:
    """Shows where a sweep is.

    Args:
      plain: lines instead of a table; None: unless stdout is a terminal.
      every: seconds between two looks at files that may have changed.
    """

    def __init__(self, plain: bool | None = None, every: float = 1.0):
        self._plain = not sys.stdout.isatty() if plain is None else plain
        self._every = every
        self._rows: dict[Run, Row] = {}
        self._looked = self._said = float("-inf")
        self._console = Console(markup=False, emoji=False)
        self._live = None if self._plain else Live(
            console=self._console, auto_refresh=False, transient=False)
        if self._live:
            self._live.start()

    def update(self, runs: Sequence[Run], active: Collection[Run]) -> None:
        """Looks at the runs and shows what is new."""
        now = time.monotonic()
        if now - self._looked < self._every and active:
            return
        self._looked = now
        for run in runs:
            before = self._rows.get(run)
            if before and run not in active and before.state in ("done", "failed"):
                continue
            row = read_row(run)
            self._rows[run] = row
            if self._plain and before and row.state != before.state:
                self._say(run, row)
        if self._live:
            self._live.update(self._table(active), refresh=True)
        elif now - self._said > 60:
            self._said = now
            for run in active:
                if self._rows[run].state == "running":
                    self._say(run, self._rows[run])

    def close(self) -> None:
        """Leaves the table as it is."""
        if self._live:
            self._live.stop()

    def _say(self, run: Run, row: Row) -> None:
        print(f"{self._counts()}  {run.name}  " + "  ".join(c for c in cells(row) if c), flush=True)

    def _counts(self) -> str:
        states = [row.state for row in self._rows.values()]
        return f"{states.count('done')}/{len(states)} done" + (
            f", {states.count('failed')} failed" if "failed" in states else "")

    def _table(self, active: Collection[Run]) -> Table:
        rows = sorted(self._rows.items(), key=lambda item: (
            _RANK.get(item[1].state, 9), -item[1].started))
        most = max(5, self._console.height - 6)
        title = self._counts()
        if left := self.eta(len(active)):
            title += f", about {duration(left)} left"
        table = Table(title=title, title_justify="left", title_style="bold")
        table.add_column("trial", no_wrap=True)
        for name in ("state", "step", "top-1", "time", "ETA"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True, overflow="ellipsis")
        for run, row in rows[:most]:
            state, step, top1, spent, eta, message = cells(row)
            table.add_row(run.name, state, step, top1.removeprefix("top1 "), spent,
                          eta.removeprefix("ETA "), message, style=_STYLE.get(row.state, ""))
        if len(rows) > most:
            table.add_row(f"and {len(rows) - most:,} more", *[""] * 6, style="dim")
        return table

    def eta(self, at_a_time: int) -> float | None:
        """Seconds until all are done: what runs has left, and the others take the mean time."""
        rows = list(self._rows.values())
        done = [row.seconds for row in rows if row.state == "done"]
        left = [row.eta for row in rows if row.eta is not None]
        whole = done or [row.elapsed + row.eta for row in rows if row.eta is not None]
        if not whole or not at_a_time:
            return None
        mean = sum(whole) / len(whole)
        left += [max(0.0, mean - row.elapsed) if row.state == "running" else mean for row in rows
                 if row.eta is None and row.state not in ("done", "failed")]
        return sum(left) / at_a_time


def cells(row: Row) -> tuple[str, str, str, str, str, str]:
    """Returns state, step, top-1, time, ETA and message as texts, "" for what is unknown."""
    return (row.state,
            f"{row.step:,}/{row.total:,}" if row.total else f"{row.step:,}" if row.step else "",
            "" if row.top1 is None else f"top1 {row.top1:.4f}",
            duration(row.elapsed) if row.elapsed else "",
            "" if row.eta is None else f"ETA {duration(row.eta)}",
            row.message.splitlines()[-1] if row.message else "")


def read_row(run: Run) -> Row:
    """Returns what the files of a run say: trial.json, and the ends of its metrics and output."""
    state = trial.read(run.folder)
    row = Row(state.get("state", "waiting"), seconds=state.get("seconds", 0.0),
              started=state.get("started", 0.0), message=state.get("message", ""))
    if not state.get("attempts"):
        return row
    text = trial.tail(run.folder / METRICS, most=20_000)
    if steps := re.findall(r'^{"step": (\d+)', text, re.MULTILINE):
        row.step = int(steps[-1])
    # Between two lines, because what is before the first has compiled.
    times = [(int(step), float(seconds)) for step, seconds in re.findall(
        r'^{"step": (\d+),.*"seconds": ([\d.e-]+)', text, re.MULTILINE)]
    if times and times[-1][0] > times[0][0]:
        row.pace = (times[-1][1] - times[0][1]) / (times[-1][0] - times[0][0])
    if found := re.findall(r'"eval_top1": ([\d.e-]+)', text):
        row.top1 = float(found[-1])
    # The plain lines of a run: "step 120/3,000  loss …".
    if steps := re.findall(r"^step [\d,]+/([\d,]+) ", trial.tail(run.folder / trial.STDOUT),
                           re.MULTILINE):
        row.total = int(steps[-1].replace(",", ""))
    return row
