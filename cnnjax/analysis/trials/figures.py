"""The figures of a sweep, for a paper: what tags there are decides which (see `layout`).

Colours are Okabe and Ito's, which colour-blind readers tell apart, each with a marker of its own;
where colour stands for a number it is cividis. Bars are the 95 % interval of the mean over seeds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.analysis import fonts, text
from cnnjax.analysis.trials.curves import curves_by_series
from cnnjax.analysis.trials.layout import (
    COLOURS,
    Layout,
    base_of,
    by_series,
    equal_costs,
    is_curve,
    is_dimension,
    lay_out,
    series_of,
)
from cnnjax.analysis.trials.rows import COSTS, Group, pareto_front

_MARKERS = "os^Dvp*X"
_STYLE = {"font.size": 9, "axes.titlesize": 9, "legend.fontsize": 8, "axes.spines.top": False,
          "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "grid.linewidth": 0.6,
          "pdf.fonttype": 42, "lines.markersize": 4.5, "lines.linewidth": 1.3,
          "errorbar.capsize": 2.5}
_MOST_NAMES = 12  # Of points in a figure, beyond which they would cover one another.
_MOST_SETS = 5  # Of bars.
_NAME = re.compile(rf"accuracy_({'|'.join(COSTS)})|error_by_\w+|grid|equal_cost|learning_curves")
_MOST_LETTERS, _LINE = 24, 60  # Of a name, and of a line, in a legend that stands in columns.


def save_figures(trials: Sequence[Group], folder: Path, title: str) -> list[str]:
    """Writes each figure as PNG and as PDF, and returns their names.

    Those of an earlier call that these trials do not ask for are removed: they show others.

    Args:
      trials: of the sweep; those without a finished run are left out.
      folder: exists.
      title: above each figure.
    """
    import matplotlib

    names = []
    with matplotlib.rc_context(_STYLE):
        for name, figure in _figures([t for t in trials if t.finished], title):
            fonts.save(figure, folder / f"{name}.png", dpi=200)
            # Without a date, so that the same results give the same file.
            fonts.save(figure, folder / f"{name}.pdf", metadata={"CreationDate": None})
            names.append(name)
    for path in folder.iterdir():
        if path.suffix in (".png", ".pdf") and _NAME.fullmatch(path.stem) and (
                path.stem not in names):
            path.unlink()
    return names


def _figures(trials: Sequence[Group], title: str) -> Iterator[tuple[str, Any]]:
    if not trials:
        return
    layout = lay_out(trials)
    if stopped := sum(t.stopped for t in trials):
        title += f" ({stopped} of {len(trials)} trials stopped early)"
    for field, label in COSTS.items():
        if len({t.cost(field) for t in trials} - {None}) > 1:
            yield f"accuracy_{field}", _drawn(title, trials, _scatter, layout, field, label)
    for tag in layout.numbers:
        if not layout.grid and is_dimension(trials, layout, tag):
            yield f"error_by_{_file_name(tag)}", _drawn(title, trials, _by_number, layout, tag)
    if layout.grid:
        yield "grid", _drawn(title, trials, _heat_map, layout)
    if sets := equal_costs(trials, layout):
        yield "equal_cost", _drawn(title, trials, _equal_cost_bars, layout, sets)
    if any(row.curve.get("epoch") for t in trials for row in t.rows):
        yield "learning_curves", curves_by_series(trials, layout, title)


def _drawn(title: str, trials: Sequence[Group], draw: Callable[..., None], *arguments: Any) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.subplots()
    draw(axes, trials, *arguments)
    axes.set_title(text.label(title), loc="left")
    return figure


def _scatter(axes, trials: Sequence[Group], layout: Layout, field: str, label: str) -> None:
    """Top-1 against a cost, with the Pareto front."""
    series, base = by_series(trials, layout), base_of(trials, layout)
    for i, (name, members) in enumerate(series.items()):
        members = sorted((t for t in members if t.cost(field)), key=lambda t: t.cost(field))
        if not members:
            continue
        curve = layout.series == "family" and is_curve(members)
        if curve and base and base.cost(field) and members[0] is not base:
            axes.plot([t.cost(field) for t in (base, members[0])],
                      [100 * t.spread("top1").mean for t in (base, members[0])],
                      color=COLOURS[i % len(COLOURS)])
        _points(axes, [t.cost(field) for t in members], members, "top1", 100, i, name,
                line="-" if curve and len(members) > 1 else "none")
    known = [t for t in trials if t.cost(field)]
    x, y = [t.cost(field) for t in known], [100 * t.spread("top1").mean for t in known]
    front = pareto_front(x, y)
    axes.step([x[i] for i in front], [y[i] for i in front], where="post", color="0.55",
              linewidth=0.9, linestyle=":", zorder=1, label="Pareto front")
    if len(known) <= _MOST_NAMES:
        names = [axes.annotate(text.label(_point_name(trial, layout)), (across, up), xytext=(4, 4),
                               fontsize=7, textcoords="offset points", color="0.25")
                 for trial, across, up in zip(known, x, y, strict=True)]
        axes.margins(x=0.14, y=0.08)
    axes.set(xlabel=label, ylabel=_with_seeds("top-1 accuracy (%)", trials))
    _log_if_wide(axes, x)
    axes.legend(frameon=False)
    if len(known) <= _MOST_NAMES:
        _keep_apart(names)


def _keep_apart(names: Sequence[Any]) -> None:
    """Puts each name at a side of its point where it covers no other.

    The highest point is first, so that of names that make way the lower one is of the lower point.
    """
    if names:
        names[0].figure.draw_without_rendering()  # Where the axes are is known then.
    placed = []
    for name in sorted(names, key=lambda name: -name.xy[1]):
        for place, side in (((4, 4), "left"), ((4, -9), "left"), ((-4, -9), "right"),
                            ((4, -18), "left"), ((-4, -18), "right"), ((-4, 4), "right")):
            name.set(position=place, horizontalalignment=side)
            box = name.get_window_extent()
            if not any(box.overlaps(other) for other in placed):
                break
        placed.append(box)


def _point_name(trial: Group, layout: Layout) -> str:
    """What stands beside a point: where a legend names the family, the number within it, if any."""
    if layout.series != "family":
        return trial.name
    numbers = layout.numbers if len(layout.numbers) == 1 else ()
    return " ".join(f"{trial.tags[key]:g}" for key in numbers if key in trial.tags)


def _by_number(axes, trials: Sequence[Group], layout: Layout, tag: str) -> None:
    """Test error and, dashed, training error against a tag that is a number."""
    for i, (name, members) in enumerate(by_series(trials, layout).items()):
        members = sorted((t for t in members if tag in t.tags), key=lambda t: t.tags[tag])
        for field, line, part in (("top1", "-", "test"), ("train_top1", "--", "training")):
            shown = [t for t in members if t.spread(field).n]
            if shown:
                _points(axes, [t.tags[tag] for t in shown], shown, field, -100, i,
                        f"{name} {part}".strip(), line=line, hollow=field != "top1")
    values = sorted({t.tags[tag] for t in trials if tag in t.tags})
    _log_if_wide(axes, values)
    if axes.get_xscale() == "linear" and len(values) <= 10:
        axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.set(xlabel=text.label(_words(tag)), ylabel=_with_seeds("top-1 error (%)", trials))
    axes.legend(frameon=False)


def _points(axes, x: Sequence[float], trials: Sequence[Group], field: str, scale: float, i: int,
            label: str, line: str, hollow: bool = False) -> None:
    """Means with their intervals; a negative scale draws the error, 100 less the accuracy."""
    found = [t.spread(field) for t in trials]
    means = np.array([s.mean for s in found]) * scale + (100 if scale < 0 else 0)
    bars = np.array([s.half or 0.0 for s in found]) * abs(scale)
    colour = COLOURS[i % len(COLOURS)]
    # Of two seeds an interval may be wider than all accuracies that there are.
    bars = np.stack([np.minimum(bars, means), np.minimum(bars, 100 - means)])
    axes.errorbar(x, means, bars if bars.any() else None, marker=_MARKERS[i % len(_MARKERS)],
                  linestyle=line, color=colour, label=text.label(label) or None, zorder=3,
                  elinewidth=0.9, markerfacecolor="white" if hollow else colour)


def _heat_map(axes, trials: Sequence[Group], layout: Layout) -> None:
    """Mean top-1 over two tags, in brackets if a trial stopped early."""
    across, up = layout.grid
    known = {(t.tags[across], t.tags[up]): 100 * t.spread("top1").mean for t in trials
             if across in t.tags and up in t.tags}
    stopped = {(t.tags.get(across), t.tags.get(up)) for t in trials if t.stopped}
    columns, lines = (sorted({pair[k] for pair in known}) for k in (0, 1))
    values = np.array([[known.get((c, r), np.nan) for c in columns] for r in lines])
    # A cell is at least as wide and as high as its number, and as a label of its line.
    size = axes.figure.get_size_inches()
    width, height = np.maximum(size, (1.7 + 0.36 * len(columns), 1.0 + 0.18 * len(lines)))
    axes.figure.set_size_inches(width, height)
    picture = axes.imshow(values, origin="lower", aspect="auto", cmap="cividis")
    low, high = np.nanmin(values), np.nanmax(values)
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = value < (low + high) / 2
            best = value == high
            form = "({:.1f})" if (columns[j], lines[i]) in stopped else "{:.1f}"
            axes.text(j, i, form.format(value), ha="center", va="center", fontsize=7,
                      color="white" if dark else "black", weight="bold" if best else "normal")
    labels = [f"{c:g}" for c in columns]
    narrow = (width - 1.7) / len(columns) < 0.1 * max(map(len, labels))  # A letter is 0.08" wide.
    axes.set_xticks(range(len(columns)), labels, rotation=90 if narrow else 0)
    axes.set_yticks(range(len(lines)), [f"{r:g}" for r in lines])
    axes.set(xlabel=text.label(_words(across)), ylabel=text.label(_words(up)))
    axes.grid(False)
    axes.figure.colorbar(picture, label=f"top-1 accuracy (%), mean of {_seeds(trials)}")


def _equal_cost_bars(axes, trials: Sequence[Group], layout: Layout,
                     sets: Sequence[Sequence[Group]]) -> None:
    """Top-1 of the series at equal multiply-adds, as Table 7 of arXiv 1905.11946 compares them."""
    names = list(by_series(trials, layout))
    if len(sets) > _MOST_SETS:
        sets = [sets[i] for i in np.linspace(0, len(sets) - 1, _MOST_SETS).round().astype(int)]
    here = {series_of(trial, layout) for members in sets for trial in members}
    places = [name for name in names if name in here]  # A base or a search has no bar.
    width = 0.8 / len(places)
    lows, highs, shown = [], [], {}
    for place, members in enumerate(sets):
        for trial in members:
            i, found = names.index(series_of(trial, layout)), trial.spread("top1")
            x = place + (places.index(names[i]) - (len(places) - 1) / 2) * width
            mean, half = 100 * found.mean, 100 * (found.half or 0)
            low, high = max(0, mean - half), min(100, mean + half)
            shown[names[i]] = axes.bar(x, mean, width * 0.92, color=COLOURS[i % len(COLOURS)],
                                       yerr=[[mean - low], [high - mean]] if half else None,
                                       error_kw={"elinewidth": 0.9})
            lows.append(low)
            highs.append(high)
    axes.set_xticks(range(len(sets)), [_cost(members) for members in sets])
    axes.set(xlabel="multiply-adds of an image",
             ylabel=_with_seeds("top-1 accuracy (%)", trials))
    # What is compared are differences, which an axis from 0 would hide.
    bottom = max(0, np.floor(min(lows) / 5) * 5 - 5) if min(lows) > 50 else 0
    labels = [text.label(name, _MOST_LETTERS) for name in shown]
    # A handle and the space about it are as wide as six letters.
    columns = min(len(labels), _LINE // (max(map(len, labels)) + 6))
    # The legend stands above the bars, each of its lines as high as 6 % of the axes.
    part = 0.89 - 0.06 * -(-len(labels) // columns)
    top = bottom + (max(highs) - bottom) / part
    axes.set_ylim(bottom, top)
    axes.set_yticks([tick for tick in axes.get_yticks() if bottom <= tick <= min(100, top)])
    axes.legend(shown.values(), labels, frameon=False, ncols=columns, loc="upper left",
                columnspacing=1.2, handlelength=1.0)
    axes.grid(axis="x", visible=False)


def _cost(members: Sequence[Group]) -> str:
    costs = sorted({t.cost("multiply_adds") for t in members})
    low, high = text.size(costs[0], ""), text.size(costs[-1], "")
    return low if low == high else f"{low} to {high}"


def _log_if_wide(axes, values: Sequence[float]) -> None:
    """Makes the horizontal axis logarithmic where the values differ by more than ten times."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if len(values) > 1 and min(values) > 0 and max(values) > 10 * min(values):
        axes.set_xscale("log")
        narrow = max(values) < 1000 * min(values)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.size(value, "")))


def _seeds(trials: Sequence[Group]) -> str:
    counts = sorted({len(t.finished) for t in trials})
    few = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{few} seed{'s' if counts[-1] > 1 else ''}"


def _with_seeds(label: str, trials: Sequence[Group]) -> str:
    interval = any(len(t.finished) > 1 for t in trials)
    return f"{label}\nmean{' and 95 % interval' if interval else ''} of {_seeds(trials)}"


def _words(tag: str) -> str:
    return {"lr": "learning rate", "batch": "batch size"}.get(tag, tag.replace("_", " "))


def _file_name(tag: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in tag)
