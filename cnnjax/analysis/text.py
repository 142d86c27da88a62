"""Text: tables as lines, numbers with a prefix, and names as Matplotlib is to draw them."""

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


def size(count: float, unit: str = "B") -> str:
    """Returns "12.3 MB": powers of 1,000, three digits."""
    for prefix in ("", "k", "M", "G", "T"):
        if abs(count) < 999.5 or prefix == "T":  # What rounds to 1,000 is 1 of the next.
            break
        count /= 1000
    return f"{count:.3g} {prefix}{unit}".strip()


def label(name: str, most: int | None = None) -> str:
    """Returns a name for Matplotlib to draw as it stands, cut to `most` letters.

    Matplotlib takes what is between two dollars for mathematics, leaves a name that begins with an
    underscore out of a legend, and draws no name of a file that is not UTF-8: of that each byte
    stands as it is printed, such as \\udce9.
    """
    name = name.encode(errors="backslashreplace").decode()
    if most is not None and len(name) > most:
        name = name[:most - 1] + "…"
    name = name.replace("$", r"\$")
    return "\u200b" + name if name.startswith("_") else name  # A space of no width.
