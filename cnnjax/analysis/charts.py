"""Charts as PNGs, small enough to be read on a phone."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnnjax.analysis import fonts
from cnnjax.analysis.rendering import PALETTE
from cnnjax.analysis.text import label

# Inches at 100 dots on the page: letters of 8 points are then about 11 pixels tall.
WIDTH, DPI = 3.6, 180
_LETTERS = 18  # Of the name of a class.


def line_chart(lines: Mapping[str, tuple[Any, Any]], x: str, y: str,
               ticks: Sequence[str] = ()) -> bytes:
    """Returns a PNG of lines.

    Args:
      lines: {name: (x values, y values)}.
      x, y: what the axes are.
      ticks: names of x = 0, 1, …, if they have any.
    """
    figure, axes = _axes((2.9 if ticks else 2.6) + 0.12 * -(-len(lines) // 3))
    for i, ((name, (across, up)), color) in enumerate(zip(lines.items(), _cycle(len(lines)),
                                                          strict=True)):
        # Every other line is dashed: one on top of another leaves it to be seen.
        axes.plot(across, up, label=label(name), color=color, linewidth=1.3,
                  linestyle="--" if i % 2 else "-",
                  marker="o" if len(across) < 12 else None, markersize=2.5)
    axes.set(xlabel=x, ylabel=y)
    if ticks:
        axes.set_xticks(range(len(ticks)), list(map(label, ticks)), rotation=40, ha="right",
                        fontsize=6)
    axes.grid(alpha=0.25)
    # Below the axes, so that no line runs through the names.
    figure.legend(frameon=False, fontsize=6.5, ncols=3, loc="outside lower center")
    return _png(figure)


def matrix_chart(matrix: Any, rows: Sequence[str], columns: Sequence[str], x: str = "",
                 y: str = "", decimals: int = 0, hide_zero: bool = False,
                 power: float = 1.0) -> bytes:
    """Returns a PNG of a matrix with its numbers, as far as they fit.

    Args:
      matrix: (rows, columns).
      rows, columns: their names, which are cut to 18 letters.
      x, y: what columns and rows are.
      decimals: of the numbers.
      hide_zero: whether zeros are left blank.
      power: of its number, by which a cell has its colour; below 1 the small ones show.
    """
    from matplotlib.colors import PowerNorm

    matrix = np.asarray(matrix)
    figure, axes = _axes(WIDTH * min(1.2, max(0.4, len(matrix) / matrix.shape[1])) * 0.9 + 0.3)
    norm = PowerNorm(power, 0, matrix.max() or 1)
    axes.imshow(matrix, cmap="Blues", norm=norm)
    small = 6.5 if max(matrix.shape) <= 12 else 5
    if max(matrix.shape) <= 20:
        for (i, j), value in np.ndenumerate(matrix):
            if value or not hide_zero:
                axes.text(j, i, f"{value:.{decimals}f}", ha="center", va="center",
                          fontsize=small - 0.5, color="white" if norm(value) > 0.6 else "black")
    columns, rows = ([label(name, _LETTERS) for name in names] for names in (columns, rows))
    axes.set_xticks(range(matrix.shape[1]), columns, rotation=90, fontsize=small)
    axes.set_yticks(range(matrix.shape[0]), rows, fontsize=small)
    axes.set(xlabel=x, ylabel=y)
    return _png(figure)


def scatter_chart(points: Any, groups: Any, names: Sequence[str], x: str = "", y: str = ""
                  ) -> bytes:
    """Returns a PNG of points (N, 2), coloured by groups (N,) that `names` has the names of.

    Beyond ten groups those of the most points have colours, and the others are light grey.
    """
    points, groups = np.asarray(points), np.asarray(groups)
    counts = np.bincount(groups, minlength=len(names))
    shown = np.argsort(-counts, kind="stable")[:len(PALETTE)]
    shown = np.sort(shown[counts[shown] > 0])
    figure, axes = _axes(3.3)
    others = ~np.isin(groups, shown)
    axes.scatter(*points[others].T, s=6, color="#cccccc", linewidths=0)
    for group, color in zip(shown, _cycle(len(shown)), strict=True):
        axes.scatter(*points[groups == group].T, s=7, color=color, linewidths=0,
                     label=label(names[group], _LETTERS))
    axes.set(xlabel=x, ylabel=y, xticks=[], yticks=[])
    axes.legend(frameon=False, fontsize=6, ncols=3, loc="upper center", markerscale=1.6,
                bbox_to_anchor=(0.5, -0.08), handletextpad=0.1, columnspacing=0.8)
    return _png(figure)


def _cycle(count: int) -> list[tuple[float, ...]]:
    return [tuple(v / 255 for v in PALETTE[i % len(PALETTE)]) for i in range(count)]


def _axes(height: float):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.tick_params(labelsize=7)
    axes.xaxis.label.set_fontsize(7.5)
    axes.yaxis.label.set_fontsize(7.5)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure) -> bytes:
    file = io.BytesIO()
    # Without the version of Matplotlib: the same numbers are the same bytes.
    fonts.save(figure, file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()
