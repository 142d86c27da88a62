"""The learning curves of a run, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnjax.analysis import fonts
from cnnjax.analysis.text import label


def plot_learning_curves(records: Sequence[Mapping[str, Any]], path: str | Path,
                         title: str) -> None:
    """Writes a PNG of loss, accuracy and learning rate over epochs.

    Args:
      records: lines of metrics.jsonl, with "step", "epoch" and whatever was measured there.
      path: of the PNG.
      title: above the picture.
    """
    # The object interface: pyplot would need a display backend and keeps global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    for axes, name in ((loss, "loss"), (accuracy, "top1")):
        for part, style in (("train", "-"), ("eval", "o-")):
            points = [(r["epoch"], r[f"{part}_{name}"]) for r in records if f"{part}_{name}" in r]
            if points:
                axes.plot(*zip(*points, strict=True), style, label=part, markersize=3, linewidth=1)
        if axes.lines:
            axes.legend(frameon=False)
    points = [(r["epoch"], r["lr"]) for r in records if "lr" in r]
    if points:
        rate.plot(*zip(*points, strict=True), linewidth=1)
    if all(value > 0 for line in loss.lines for value in line.get_ydata()):
        loss.set_yscale("log")
    for axes, name in ((loss, "loss (nats)"), (accuracy, "top-1 accuracy"),
                       (rate, "learning rate")):
        axes.set(xlabel="epoch", title=name)
        axes.grid(alpha=0.3)
    figure.suptitle(label(title))
    fonts.save(figure, path, dpi=120)
