"""One HTML page of a sweep, which needs nothing but itself: data, style and script are inside."""

from __future__ import annotations

import dataclasses
import html
import json
import shlex
import string
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np

from cnnjax.analysis.trials.curves import mean_curve
from cnnjax.analysis.trials.layout import COLOURS, by_series, is_curve, lay_out, series_of
from cnnjax.analysis.trials.rows import COSTS, Group, Row, fronts, tag_names

_CURVE_POINTS = 40
_MESSAGE = 600  # Characters, from its end.


def to_html(trials: Sequence[Group], title: str, about: str) -> str:
    """Returns the page: figures that answer the pointer, and a table that sorts and filters.

    Curves are thinned to 40 points and numbers to 5 digits, so that 200 trials with three seeds
    are well below 2 MB.

    Args:
      trials: of the sweep, those that failed too.
      title: of the page.
      about: a line below it, such as the command that makes the page.
    """
    here = resources.files(__package__)

    def read(name):
        return (here / name).read_text(encoding="utf-8")

    # A "<" could end the script element in which the data stands.
    data = json.dumps(_data(trials, about), allow_nan=False, separators=(",", ":"))
    return string.Template(read("page.html")).substitute(
        title=html.escape(title), style=read("page.css"), data=data.replace("<", "\\u003c"),
        script=read("page.js") + read("page_table.js"))


def _data(trials: Sequence[Group], about: str) -> dict[str, Any]:
    layout, front = lay_out(trials), fronts(trials)
    series = by_series([t for t in trials if t.finished], layout)
    return {"about": about, "colours": COLOURS, "costs": COSTS, "series": layout.series,
            "numbers": layout.numbers, "grid": layout.grid, "tags": tag_names(trials),
            "joined": [name for name, members in series.items() if is_curve(members)],
            "trials": [_trial(trial, series_of(trial, layout), [
                field.replace("_", "-") for field in COSTS if i in front[field]])
                for i, trial in enumerate(trials)]}


def _trial(trial: Group, series: str, front: list[str]) -> dict[str, Any]:
    first = trial.rows[0]

    def known(field):
        found = [getattr(row, field) for row in trial.rows if getattr(row, field) is not None]
        return found[0] if found else None

    return {"name": trial.name, "series": series, "tags": dict(first.tags),
            "overrides": [shlex.quote(f"--config.{key}={value}")
                          for key, value in first.overrides.items()],
            "states": trial.states, "front": front,
            "params": known("params"), "multiply_adds": known("multiply_adds"),
            **{field: _short(trial.spread(field).mean)
               for field in ("seconds", "images_per_second")},
            **{field: {k: _short(v) for k, v in dataclasses.asdict(trial.spread(field)).items()}
               for field in ("top1", "top5", "train_top1", "train_loss")},
            "curve": _curve(trial), "runs": [_run(row) for row in trial.rows]}


def _run(row: Row) -> dict[str, Any]:
    numbers = {field: _short(getattr(row, field))
               for field in ("top1", "top5", "train_top1", "train_loss", "seconds",
                             "images_per_second", "steps")}
    return {"seed": row.seed, "state": row.state, "finished": row.finished, **numbers,
            "message": row.message.strip()[-_MESSAGE:]}


def _curve(trial: Group) -> dict[str, list[float | None]] | None:
    """Means over the finished seeds, or without one the longest that there is, at few epochs."""
    if not trial.finished:
        longest = max(trial.rows, key=lambda row: len(row.curve.get("epoch", ())))
        # Where a run stopped is worth seeing, though its accuracy counts nowhere.
        trial = Group((dataclasses.replace(longest, state="done", top1=longest.top1 or 0.0),))
    found = {name: dict(zip(*map(np.ndarray.tolist, mean_curve(trial, field)), strict=True))
             for name, field in (("train", "train_top1"), ("eval", "eval_top1"))}
    if not any(found.values()):
        return None
    # Tests are rarer than training records: each is thinned on its own, or few tests would be left.
    epochs = sorted({epoch for curve in found.values() for epoch in _thin(sorted(curve))})
    kept = {name: set(_thin(sorted(curve))) for name, curve in found.items()}
    return {"epoch": [_short(epoch) for epoch in epochs],
            **{name: [_short(curve[epoch]) if epoch in kept[name] else None for epoch in epochs]
               for name, curve in found.items()}}


def _thin(epochs: list[float]) -> list[float]:
    if len(epochs) <= _CURVE_POINTS:
        return epochs
    return [epochs[i] for i in np.linspace(0, len(epochs) - 1, _CURVE_POINTS).round().astype(int)]


def _short(value: float | int | None) -> float | int | None:
    return float(f"{value:.5g}") if isinstance(value, float) else value
