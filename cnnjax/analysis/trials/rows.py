"""The runs of a sweep as rows, and what several seeds of one trial come to."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cnnjax import sweeps

FINISHED = ("done", "stopped")
# What can stand on the axis of costs, with the name and the unit that a figure gives it.
COSTS = {"multiply_adds": "multiply-adds of an image", "params": "parameters",
         "seconds": "seconds of a run"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One run: a trial with one seed.

    Attributes:
      name: of the trial.
      seed: of the run.
      state: "done", "stopped" (before its full length, as it was told), "failed", "non_finite",
        "running", "waiting", "unfinished", "unreadable" (its files are damaged), or "not started".
      tags: what tells the trial apart, as the sweep wrote it.
      overrides: of the config.
      model, data: their names, "" while unknown.
      params, multiply_adds: of the network, for one image; None while unknown.
      seconds: of the run: training, evaluation and compilation.
      images_per_second: in training.
      steps: done.
      top1, top5: fractions of the evaluated images; None unless the run is finished.
      train_loss, train_top1: of the last logged steps, likewise.
      examples: evaluated.
      message: why a run failed, or "".
      curve: {"epoch": …, "train_top1": …, "eval_top1": …}: a list each of one length, with None
        where something was not measured.
    """

    name: str
    seed: int
    state: str
    tags: Mapping[str, str | float] = dataclasses.field(default_factory=dict)
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    model: str = ""
    data: str = ""
    params: int | None = None
    multiply_adds: int | None = None
    seconds: float | None = None
    images_per_second: float | None = None
    steps: int | None = None
    top1: float | None = None
    top5: float | None = None
    train_loss: float | None = None
    train_top1: float | None = None
    examples: int | None = None
    message: str = ""
    curve: Mapping[str, Sequence[float | None]] = dataclasses.field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether its accuracy counts."""
        return self.state in FINISHED and self.top1 is not None


@dataclasses.dataclass(frozen=True)
class Spread:
    """What one number came to over seeds.

    Attributes:
      n: how many there are.
      mean: None without any.
      std: of a sample, with n - 1; None below two.
      half: of the 95 % interval of the mean, by Student's t with n - 1 degrees of freedom; None
        below two. It says how well the mean is known, not how far single runs lie apart.
    """

    n: int
    mean: float | None
    std: float | None
    half: float | None


def spread(values: Iterable[float | None]) -> Spread:
    """Returns mean, standard deviation and 95 % interval of the values that are not None."""
    found = sweeps.spread([value for value in values if value is not None], "value")
    return Spread(found["n"], *(found[f"value_{key}"] for key in ("mean", "std", "ci95")))


@dataclasses.dataclass(frozen=True)
class Group:
    """A trial with all its seeds.

    Attributes:
      rows: of the same trial, one a seed.
    """

    rows: tuple[Row, ...]

    @property
    def name(self) -> str:
        """Of the trial."""
        return self.rows[0].name

    @property
    def tags(self) -> Mapping[str, str | float]:
        """Of the trial."""
        return self.rows[0].tags

    @property
    def finished(self) -> tuple[Row, ...]:
        """The runs whose accuracy counts."""
        return tuple(row for row in self.rows if row.finished)

    @property
    def stopped(self) -> bool:
        """Whether a run that counts ended before its full length, as it was told."""
        return any(row.state == "stopped" for row in self.finished)

    def spread(self, field: str) -> Spread:
        """Returns what an attribute of `Row` came to over the finished runs."""
        return spread(getattr(row, field) for row in self.finished)

    def cost(self, field: str) -> float | None:
        """Returns what the trial costs, one of `COSTS`: the mean over its finished runs."""
        return self.spread(field).mean

    @property
    def states(self) -> dict[str, int]:
        """How many runs are in each state."""
        found: dict[str, int] = {}
        for row in self.rows:
            found[row.state] = found.get(row.state, 0) + 1
        return found


def groups(rows: Sequence[Row]) -> list[Group]:
    """Returns the trials in the order of their first rows."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.name, []).append(row)
    return [Group(tuple(part)) for part in found.values()]


def pareto_front(costs: Sequence[float | None], values: Sequence[float | None]) -> list[int]:
    """Returns the indices that no other beats, the cheapest first.

    One beats another if it costs no more and is worth no less, and is not equal in both. Where a
    cost or value is None there is no contest.
    """
    known = [i for i, pair in enumerate(zip(costs, values, strict=True)) if None not in pair]
    front, best = [], -math.inf
    for i in sorted(known, key=lambda i: (costs[i], -values[i])):
        equal = front and (costs[i], values[i]) == (costs[front[-1]], values[front[-1]])
        if values[i] > best or equal:
            front.append(i)
            best = values[i]
    return front


def fronts(trials: Sequence[Group]) -> dict[str, list[int]]:
    """Returns the Pareto front of mean top-1 against each of `COSTS`."""
    values = [trial.spread("top1").mean for trial in trials]
    return {field: pareto_front([trial.cost(field) for trial in trials], values)
            for field in COSTS}


def tag_names(trials: Sequence[Group]) -> list[str]:
    """Returns the tags that a table shows: all but those that say again what has its own column."""
    rows = [row for trial in trials for row in trial.rows]
    return [key for key in columns(rows, lambda row: row.tags) if key not in COSTS]


def columns(rows: Iterable[Row], of: Callable[[Row], Mapping[str, Any]]) -> list[str]:
    """Returns the keys that tags or overrides have, in the order of their first appearance."""
    return list(dict.fromkeys(key for row in rows for key in of(row)))


_FIELDS = ("state", "model", "data", "params", "multiply_adds", "seconds", "images_per_second",
           "steps", "top1", "top5", "train_loss", "train_top1", "examples", "message")


def to_csv(rows: Sequence[Row]) -> str:
    """Returns one line a run: name, seed, tags as `tag.KEY`, overrides as `override.KEY`, results.

    What was not measured is empty; tuples are JSON.
    """
    tags, overrides = columns(rows, lambda r: r.tags), columns(rows, lambda r: r.overrides)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "seed", *(f"tag.{key}" for key in tags),
                     *(f"override.{key}" for key in overrides), *_FIELDS])
    for row in rows:
        cells = [row.name, row.seed, *(row.tags.get(key) for key in tags),
                 *(row.overrides.get(key) for key in overrides),
                 *(getattr(row, field) for field in _FIELDS)]
        writer.writerow([json.dumps(cell) if isinstance(cell, (list, tuple, dict)) else cell
                         for cell in cells])
    return text.getvalue()
