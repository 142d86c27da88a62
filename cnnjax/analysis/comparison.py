"""The models of the table beside one another: size, cost, and what was published about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from cnnjax.analysis import published
from cnnjax.analysis.summary import summarize
from cnnjax.analysis.text import aligned
from cnnjax.models import create_model, lookup

_LEGEND = """\
depth: convolutions and dense layers on the longest path through the network, those of gates left
  out. Poolings have no weights and don't count (with its two, LeNet-5 is often called 7 deep).
parameters, multiply-adds: with 1000 classes, 10 for images of up to 32 px; of one image of the size
  given, convolutions and dense layers alone.
field: pixels that a position sees before the map is pooled or flattened as a whole.
top-1, top-5: accuracies in percent as published, for what is said beside them; on ImageNet's
  validation images with one crop unless that says otherwise. None was measured here."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One model among others.

    Attributes:
      name: in the table.
      year: of publication, or None.
      input_size: (height, width, channels) of the images that it is for.
      depth: convolutions and dense layers on the longest path, gates left out; None if unknown.
      params: number of trainable scalars, with the published number of classes.
      macs: multiply-adds for one image.
      field: pixels seen, the larger of height and width, before the whole map is; None if unknown.
      figures: published accuracies.
      idea: what it brought.
    """

    name: str
    year: int | None
    input_size: tuple[int, int, int]
    depth: int | None
    params: int
    macs: int
    field: int | None
    figures: tuple[published.Figure, ...]
    idea: str


def compare(names: Sequence[str]) -> list[Comparison]:
    """Returns what is known of each model, computing nothing but shapes.

        print(format_comparison(compare(cnnjax.list_models("resnet*"))))

    Args:
      names: of `list_models()`.

    Raises:
      UserError: if there is no such model.
    """
    return [_compared(name) for name in names]


def format_comparison(rows: Sequence[Comparison]) -> str:
    """Returns a table as lines of text, with a legend: a line a model, and one more for each
    further figure.
    """
    lines = [("model", "year", "depth", "parameters", "multiply-adds", "input", "field", "top-1",
              "top-5", "published of", "idea")]
    for row in rows:
        model = (row.name, str(row.year or ""), str(row.depth or ""), f"{row.params:,}",
                 f"{row.macs:,}", "x".join(map(str, row.input_size)), str(row.field or ""))
        first, *others = row.figures or (published.Figure(None, None, ""),)
        lines.append((*model, *_cells(first), row.idea))
        lines += [("",) * len(model) + (*_cells(figure), "") for figure in others]
    return f"{aligned(lines, numbers=(2, 3, 4, 6, 7, 8))}\n\n{_LEGEND}"


def _compared(name: str) -> Comparison:
    entry = lookup(name)
    height, width, _ = entry.input_size
    module = create_model(name, 1000 if max(height, width) > 32 else 10)
    summary = summarize(module, (1, *entry.input_size))
    fields = [max(row.field.size) for row in summary.rows if row.field and not row.field.sees_all]
    return Comparison(
        name=name, year=entry.year, input_size=entry.input_size, depth=summary.depth,
        params=summary.params, macs=summary.macs, field=max(fields, default=None),
        figures=published.FIGURES.get(name, ()), idea=published.idea(name))


def _cells(figure: published.Figure) -> tuple[str, str, str]:
    def percent(value):
        return "" if value is None else f"{value:g}"
    return percent(figure.top1), percent(figure.top5), figure.what
