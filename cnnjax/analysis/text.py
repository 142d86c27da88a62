"""Tables as lines of text."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def aligned(cells: Sequence[Sequence[str]], numbers: Collection[int] = ()) -> str:
    """Returns lines of columns two spaces apart.

    Args:
      cells: the lines, of the same number of cells each.
      numbers: the columns that are set to the right.
    """
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(
        cell.rjust(width) if i in numbers else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in cells)
