"""What a person sees: tables, progress as a bar or as plain lines, and the learning-rate curve."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

_WIDTH = 56  # Blocks of the learning-rate curve: as many as a table on 80 columns has room for.


def print_table(title: str, rows: Mapping[str, Any]) -> None:
    """Prints two columns, name and value."""
    table = Table(title=title, show_header=False, title_justify="left", title_style="bold")
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, str(value))
    stdout().print(table)


def stdout() -> Console:
    """Returns what prints tables: names of files and classes as they are, in brackets or not."""
    # A batch job's log has no width of its own; 80 columns would fold paths in the middle.
    return Console(width=None if sys.stdout.isatty() else 100, soft_wrap=False, markup=False,
                   emoji=False)


def duration(seconds: float) -> str:
    """Returns "4.2 s", "3:07" or "2:03:07"."""
    if seconds < 59.95:  # What rounds to 60.0 is a minute.
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def other_files(counts: Mapping[str, int]) -> str:
    """Returns how many files are no images by their extension, the most frequent twenty."""
    found = sorted(counts.items(), key=lambda item: -item[1])[:20]
    return "files with other extensions: " + ", ".join(f"{k}: {n:,}" for k, n in found)


def sparkline(schedule: Callable[[int], float], total: int) -> str:
    """Returns the learning rate over the run as a line of blocks, and below its ends and peak."""
    steps = [round(i * (total - 1) / (_WIDTH - 1)) for i in range(_WIDTH)]
    values = [float(schedule(s)) for s in steps]
    top = max(values) or 1.0
    blocks = "▁▂▃▄▅▆▇█"
    line = "".join(blocks[min(7, int(v / top * 7.999))] for v in values)
    return f"{line}\nfrom {values[0]:.3g} over {top:.3g} to {values[-1]:.3g}"


class Display:
    """Progress of a run: a bar on a terminal, plain lines in a batch job's log.

    Args:
      style: "bar", "plain", "none", or "auto": the bar if stdout is a terminal.
      total: steps of the run.
      start: steps already done.
      batch_size: for the throughput.
    """

    def __init__(self, style: str, total: int, start: int, batch_size: int):
        if style == "auto":
            style = "bar" if sys.stdout.isatty() else "plain"
        self._style, self._total, self._batch_size = style, total, batch_size
        self._start, self._since, self._progress = start, None, None
        if style == "bar":
            self._progress = Progress(expand=True)
            self._progress.columns = _columns(self._progress.console.width)
            self._task = self._progress.add_task("", total=total, completed=start, text="")
            self._progress.start()

    def step(self, step: int) -> None:
        """Moves the bar."""
        if self._since is None:  # The first call has compiled, which says nothing of the others.
            self._start, self._since = step, time.perf_counter()
        if self._progress:
            self._progress.update(self._task, completed=step)

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Shows what was measured at a step."""
        parts = [f"{name} {values[key]:{form}}" for key, name, form in _SHOWN if key in values]
        if self._progress:
            self._progress.update(self._task, text="  ".join(p for p in parts
                                                             if not p.startswith("eval")))
            if any(key.startswith("eval") for key in values):
                self._progress.console.print(_wrapped([f"step {step:,}", *parts],
                                                      self._progress.console.width))
        elif self._style == "plain":
            if self._since is not None and step > self._start:
                pace = (time.perf_counter() - self._since) / (step - self._start)
                parts.append(f"ETA {duration(pace * (self._total - step))}")
            print(f"step {step:,}/{self._total:,}  " + "  ".join(parts), flush=True)

    def close(self) -> None:
        """Leaves the bar where it is."""
        if self._progress:
            self._progress.stop()


def _wrapped(parts: Sequence[str], width: int) -> str:
    """Returns the parts in lines of at most that width, none of which ends within a part."""
    text = "  ".join(part.replace(" ", "\xa0") for part in parts)  # Where no line is broken.
    return "\n".join(textwrap.wrap(text, width, subsequent_indent="  ")).replace("\xa0", " ")


def _columns(width: int) -> tuple[ProgressColumn, ...]:
    """Returns the columns of the bar on a terminal of that width."""
    wide = width >= 100
    # 80 have room for loss, accuracy and images/s; what there is none for is missing at the end.
    text = TextColumn("{task.fields[text]}", table_column=Column(
        ratio=1, no_wrap=True, overflow="ellipsis"))
    return (TextColumn("step"), MofNCompleteColumn(), BarColumn(16 if wide else 6),
            *[TimeElapsedColumn()] * wide, TextColumn("ETA"), TimeRemainingColumn(), text)


_SHOWN = (("train_loss", "loss", ".4f"), ("train_top1", "top1", ".4f"),
          ("images_per_second", "images/s", ",.0f"), ("eval_loss", "eval loss", ".4f"),
          ("eval_top1", "eval top1", ".4f"), ("epoch", "epoch", ".1f"), ("lr", "lr", ".3g"))
