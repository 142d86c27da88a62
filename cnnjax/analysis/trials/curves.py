"""Learning curves: error while training, as Figure 6 of arXiv 1512.03385 draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnjax.analysis.trials.layout import Layout, by_series
from cnnjax.analysis.trials.rows import Group

_MOST_LINES = 8  # In a panel.
_PANEL = 3.4  # Inches.


def curves_by_series(trials: Sequence[Group], layout: Layout, title: str) -> Any:
    """Returns a figure of a panel for each series: training error dashed, test error full.

    Lines are means over seeds. Where a panel has more than eight trials it shows the best eight,
    and its title says so. With a tag that is a number, colour stands for it.
    """
    from matplotlib.figure import Figure

    panels = by_series(trials, layout)
    if len(panels) > 4 or all(len(members) == 1 for members in panels.values()):
        panels = {"": list(trials)}
    figure = Figure(figsize=(max(5.2, _PANEL * len(panels) + 0.6), 3.6), layout="constrained")
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (name, members) in zip(every, panels.items(), strict=True):
        left_out = len(members) - _MOST_LINES
        if left_out > 0:
            members = sorted(members, key=lambda t: -t.spread("top1").mean)[:_MOST_LINES]
        _draw(axes, members, layout)
        words = [name, f"best {_MOST_LINES} of {left_out + _MOST_LINES}" if left_out > 0 else ""]
        axes.set_title(": ".join(filter(None, words)), loc="left")
        axes.set_xlabel("epoch")
        axes.legend(frameon=False, loc="upper right")
    every[0].set_ylabel("top-1 error (%)\ntraining dashed, test full")
    every[0].set_ylim(bottom=0)
    figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    return figure


def _draw(axes, members: Sequence[Group], layout: Layout) -> None:
    from matplotlib import colormaps

    from cnnjax.analysis.trials.figures import COLOURS

    # With two tags for one colour, names tell trials apart.
    tag = layout.numbers[0] if len(layout.numbers) == 1 else None
    if tag:
        members = sorted(members, key=lambda t: t.tags.get(tag, 0))
    for i, trial in enumerate(members):
        colour = (colormaps["cividis"](0.9 * i / max(1, len(members) - 1)) if tag
                  else COLOURS[i % len(COLOURS)])
        label = f"{tag.replace('_', ' ')} {trial.tags.get(tag)}" if tag else trial.name
        for field, line, width in (("train_top1", (0, (3, 1.5)), 0.8), ("eval_top1", "-", 1.6)):
            x, y = mean_curve(trial, field)
            if len(x):
                axes.plot(x, 100 * (1 - y), color=colour, linestyle=line, linewidth=width,
                          label=label if field == "eval_top1" else None)


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
