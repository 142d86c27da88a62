"""Which figures a sweep asks for, read off the tags of its trials.

A text tag named `family`, or else the first text tag of few values, tells series apart; a number
tag is an axis; two number tags whose pairs fill a grid are a heat map. Tags that begin with
`published` are other people's results, and are shown in tables alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from numbers import Real

from cnnjax.analysis.trials.rows import COSTS, Group

# Okabe and Ito's (2008) but for the last two: their yellow is too pale for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555", "#8B6D00")
MOST_SERIES = len(COLOURS)
SAME_COST = 1.15  # Multiply-adds up to this factor apart count as equal.


@dataclasses.dataclass(frozen=True)
class Layout:
    """What there is to draw.

    Attributes:
      series: the text tag that tells trials apart by colour, or None.
      numbers: tags that are numbers and differ, in their order.
      grid: two of them, (x, y), if their pairs fill a grid, or None.
    """

    series: str | None
    numbers: tuple[str, ...]
    grid: tuple[str, str] | None


def lay_out(trials: Sequence[Group]) -> Layout:
    """Returns what the tags of the trials ask for."""
    values: dict[str, list] = {}
    for trial in trials:
        for key, value in trial.tags.items():
            if not key.startswith("published") and key not in COSTS:
                values.setdefault(key, []).append(value)
    texts = {key: set(found) for key, found in values.items()
             if not all(isinstance(value, Real) for value in found)}
    series = "family" if "family" in texts else next(
        (key for key, found in texts.items()
         if 2 <= len(found) <= MOST_SERIES and len(found) < len(trials)), None)
    if series and len(texts[series]) > MOST_SERIES:
        series = None
    numbers = tuple(key for key, found in values.items()
                    if key not in texts and len(set(found)) > 1)
    return Layout(series, numbers, _grid(trials, numbers))


def _grid(trials: Sequence[Group], numbers: Sequence[str]) -> tuple[str, str] | None:
    """Returns the first pair of tags of which most combinations are there, and none twice."""
    for i, y in enumerate(numbers):
        for x in numbers[:i]:
            pairs = [(t.tags[x], t.tags[y]) for t in trials if x in t.tags and y in t.tags]
            sizes = [len(set(column)) for column in zip(*pairs, strict=True)] or [0, 0]
            if (len(set(pairs)) == len(pairs) and min(sizes) >= 2 and max(sizes) >= 3
                    and len(pairs) >= 0.75 * sizes[0] * sizes[1]):
                return x, y
    return None


def series_of(trial: Group, layout: Layout) -> str:
    """Returns the series of a trial, "" where there is none."""
    return str(trial.tags.get(layout.series, "")) if layout.series else ""


def by_series(trials: Sequence[Group], layout: Layout) -> dict[str, list[Group]]:
    """Returns the trials of each series, in the order of their first ones."""
    found: dict[str, list[Group]] = {}
    for trial in trials:
        found.setdefault(series_of(trial, layout), []).append(trial)
    return found


def is_dimension(trials: Sequence[Group], layout: Layout, tag: str) -> bool:
    """Whether a tag is an axis along which a sweep was laid out, as a depth is.

    It has several values, names one trial each of a series, and the series have most of them in
    common; what merely comes out different for every trial is none.
    """
    series = [[t.tags[tag] for t in members if tag in t.tags]
              for members in by_series(trials, layout).values()]
    every = [value for found in series for value in found]
    if len(set(every)) < 3 or any(len(set(found)) < len(found) for found in series):
        return False
    shared = sum(every.count(value) > 1 for value in set(every))
    return len(series) == 1 or 2 * shared >= len(set(every))


def base_of(trials: Sequence[Group], layout: Layout) -> Group | None:
    """Returns the trial from which all families grow: the only one of a family named base."""
    members = by_series(trials, layout).get("base", []) if layout.series == "family" else []
    return members[0] if len(members) == 1 else None


def is_curve(members: Sequence[Group]) -> bool:
    """Whether the trials of a family are one network at several sizes.

    Several of one `cost_factor` are none, but what a search has tried.
    """
    costs = [t.tags["cost_factor"] for t in members if "cost_factor" in t.tags]
    return len(set(costs)) == len(costs)


def equal_costs(trials: Sequence[Group], layout: Layout) -> list[list[Group]]:
    """Returns sets of trials of different families that cost the same.

    A tag `cost_factor` says what is meant to; a family that is no curve is left out. Without it
    they are trials of about equal multiply-adds: the most expensive trial and what lies within
    `SAME_COST` below it are one set, and so on downwards; of a family that has several there, the
    most expensive one counts.
    """
    if layout.series != "family":
        return []
    if all("cost_factor" in t.tags for t in trials):
        meant: dict[float, dict[str, Group]] = {}
        for series, members in by_series(trials, layout).items():
            for t in members if is_curve(members) else ():
                meant.setdefault(t.tags["cost_factor"], {})[series] = t
        return [list(meant[key].values()) for key in sorted(meant) if len(meant[key]) > 1]
    known = sorted((t for t in trials if t.cost("multiply_adds")),
                   key=lambda t: -t.cost("multiply_adds"))
    sets = []
    while known:
        limit = known[0].cost("multiply_adds") / SAME_COST
        near = [t for t in known if t.cost("multiply_adds") >= limit]
        known = known[len(near):]
        first = {series_of(t, layout): t for t in reversed(near)}
        if len(first) > 1:
            sets.append([t for t in near if first[series_of(t, layout)] is t])
    return sets[::-1]
