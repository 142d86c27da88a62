"""Learning curves: error while training, as Figure 6 of arXiv 1512.03385 draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnjax.analysis import text
from cnnjax.analysis.trials.layout import COLOURS, Layout, base_of, by_series, is_dimension
from cnnjax.analysis.trials.rows import Group

_MOST_LINES = 8  # In a panel.
_PANEL = 3.4  # Inches.


def curves_by_series(trials: Sequence[Group], layout: Layout, title: str) -> Any:
    """Returns a figure of a panel for each family, or of one: training error dashed, test full.

    The base from which families grow is in the panel of each.

    Lines are means over seeds. A panel of more than eight trials shows eight of them, and its
    title says which. Where trials differ in one number, colour stands for it.
    """
    from matplotlib.figure import Figure

    panels, base = {"": list(trials)}, base_of(trials, layout)
    if layout.series == "family":
        found = {name: ([base] if base else []) + members
                 for name, members in by_series(trials, layout).items() if base not in members}
        panels = found if len(found) <= 4 else panels
    dimensions = [tag for tag in layout.numbers if is_dimension(trials, layout, tag)]
    tag = dimensions[0] if len(dimensions) == 1 else None
    if any(len({t.tags.get(tag) for t in members}) < len(members) for members in panels.values()):
        tag = None  # It tells the trials of a panel not apart.
    figure = Figure(figsize=(max(5.2, _PANEL * len(panels) + 0.6), 3.6), layout="constrained")
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (name, members) in zip(every, panels.items(), strict=True):
        shown = _few(members, tag)
        _draw(axes, shown, tag)
        words = [name, "" if len(shown) == len(members) else
                 f"{'best ' if tag is None else ''}{len(shown)} of {len(members)}"]
        axes.set_title(text.label(": ".join(filter(None, words))), loc="left")
        axes.set_xlabel("epoch")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
        else:  # As of seeds between which the number of images changed.
            axes.text(0.5, 0.5, "no epoch at which all seeds\nof a trial were evaluated",
                      transform=axes.transAxes, ha="center", va="center")
    every[0].set_ylabel("top-1 error (%)\ntraining dashed, test full")
    every[0].set_ylim(bottom=0)
    figure.suptitle(text.label(title), x=0.01, ha="left", fontsize=9)
    return figure


def _few(members: Sequence[Group], tag: str | None) -> list[Group]:
    """Returns at most eight trials: spread over the tag, in its order, or the best."""
    members = list(members)
    if tag:
        members.sort(key=lambda t: t.tags.get(tag, 0))
    if len(members) <= _MOST_LINES:
        return members
    if tag:
        return [members[i] for i in
                np.linspace(0, len(members) - 1, _MOST_LINES).round().astype(int)]
    return sorted(members, key=lambda t: -t.spread("top1").mean)[:_MOST_LINES]


def _draw(axes, members: Sequence[Group], tag: str | None) -> None:
    from matplotlib import colormaps

    for i, trial in enumerate(members):
        colour = (colormaps["cividis"](0.9 * i / max(1, len(members) - 1)) if tag
                  else COLOURS[i % len(COLOURS)])
        name = f"{tag.replace('_', ' ')} {trial.tags.get(tag)}" if tag else trial.name
        for field, line, width in (("train_top1", (0, (3, 1.5)), 0.8), ("eval_top1", "-", 1.6)):
            x, y = mean_curve(trial, field)
            if len(x):
                # A line of one point would not be seen.
                axes.plot(x, 100 * (1 - y), color=colour, linestyle=line, linewidth=width,
                          marker="o" if len(x) == 1 else None,
                          markerfacecolor=colour if field == "eval_top1" else "white",
                          label=text.label(name) if field == "eval_top1" else None)


def mean_curve(trial: Group, field: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns (epochs, means over the finished seeds) of one of a curve's lists.

    Seeds are logged at the same epochs; an epoch that not all of them have is left out.
    """
    values: dict[float, list[float]] = {}
    for row in trial.finished:
        for epoch, value in zip(row.curve.get("epoch", ()), row.curve.get(field, ()), strict=False):
            if value is not None:
                values.setdefault(round(epoch, 6), []).append(value)
    known = sorted(epoch for epoch, found in values.items() if len(found) == len(trial.finished))
    return np.array(known), np.array([np.mean(values[epoch]) for epoch in known])
