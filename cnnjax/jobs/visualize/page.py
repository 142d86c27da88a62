"""One page of HTML that needs nothing besides itself, and its figures as files."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnjax.analysis import fonts

_ABREAST = 7  # Tiles in a line of rows that stand beside one another.
_WIDE = 992  # Pixels that a line of tiles has at most in a file, about as on the page.


@dataclasses.dataclass(frozen=True)
class Tile:
    """A small picture, uint8 (h, w, 3), and what stands below it."""

    picture: np.ndarray
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """Tiles beside one another, below a line of text."""

    label: str
    tiles: Sequence[Tile]


@dataclasses.dataclass(frozen=True)
class Figure:
    """Rows of tiles, a file of its own called `name`.png.

    Attributes:
      name: of the file.
      rows: from top to bottom.
      note: a line below.
      beside: whether rows may stand beside one another, being short.
      side: width of a tile in pixels.
    """

    name: str
    rows: Sequence[Row]
    note: str = ""
    beside: bool = False
    side: int = 112


@dataclasses.dataclass(frozen=True)
class Chart:
    """A PNG with a line of text below, a file of its own called `name`.png."""

    name: str
    png: bytes
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """Lines of cells; the columns of numbers are set to the right. A long one is folded away."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()
    title: str = ""
    folded: bool = False


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph, or a heading in a section."""

    text: str
    heading: bool = False


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page: what it is about, and its parts in order."""

    key: str
    title: str
    parts: Sequence[Any]


def render(title: str, facts: Sequence[tuple[str, str]], remarks: Sequence[str],
           sections: Sequence[Section]) -> str:
    """Returns the page.

    Args:
      title: of the page.
      facts: name and value of what stands at the top.
      remarks: what is left out, and why.
      sections: the rest.
    """
    links = "".join(f'<a href="#{s.key}">{_text(s.title)}</a>' for s in sections)
    known = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>"
                    for name, value in facts)
    left_out = "".join(f'<p class="remark">{_text(remark)}</p>' for remark in remarks)
    body = "".join(f'<section id="{s.key}"><h2>{_text(s.title)}</h2>'
                   + "".join(map(_part, s.parts)) + "</section>" for s in sections)
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">{_META}'
            f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body><main>"
            f"<h1>{_text(title)}</h1><dl>{known}</dl>{left_out}<nav>{links}</nav>{body}"
            "</main></body></html>\n")


def png_of(figure: Figure) -> bytes:
    """Returns a figure as one PNG, with its labels and captions."""
    from PIL import Image, ImageDraw

    side, gap, line = figure.side, 6, 15
    texts = [text for row in figure.rows for text in (row.label, *(t.caption for t in row.tiles))]
    font = fonts.for_pillow(" ".join(texts), 10)
    if figure.beside:
        figure = dataclasses.replace(figure, rows=_in_lines(figure.rows))
    cell = side + gap
    figure = dataclasses.replace(figure, rows=_broken(figure.rows, _WIDE // cell))
    columns = max(len(row.tiles) for row in figure.rows)
    captions = [[_wrapped(tile.caption, font, side) for tile in row.tiles] for row in figure.rows]
    lines = [max(map(len, row), default=0) for row in captions]
    wide = max([columns * cell, *(int(font.getlength(row.label)) + gap for row in figure.rows)])
    tall = sum((line if row.label else 0) + side + gap + n * line
               for row, n in zip(figure.rows, lines, strict=True))
    sheet = Image.new("RGB", (wide + gap, tall + gap), "white")
    pen, y = ImageDraw.Draw(sheet), gap
    for row, below, n in zip(figure.rows, captions, lines, strict=True):
        if row.label:
            pen.text((gap, y - 2), row.label, "black", font)
            y += line
        for k, tile in enumerate(row.tiles):
            picture = Image.fromarray(tile.picture)
            scale = side / max(picture.size)
            picture = picture.resize([max(1, round(v * scale)) for v in picture.size],
                                     Image.Resampling.NEAREST if scale >= 1
                                     else Image.Resampling.BOX)
            sheet.paste(picture, (gap + k * cell, y))
            for i, words in enumerate(below[k]):
                pen.text((gap + k * cell, y + side + i * line), words, "#333333", font)
        y += side + gap + n * line
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=True)
    return file.getvalue()


def _wrapped(caption: str, font: Any, side: int) -> list[str]:
    """Returns a caption's lines, broken at spaces; a word wider than a tile is cut."""
    lines: list[str] = []
    for line in caption.split("\n") if caption else ():
        words = line.split(" ")
        while words:
            fits = next((n for n in range(len(words), 0, -1)
                         if font.getlength(" ".join(words[:n])) <= side), 0)
            first = " ".join(words[:fits]) if fits else words[0]
            while first and font.getlength(first) > side:
                first = first.rstrip("…")[:-1] + "…" if len(first) > 1 else ""
            lines.append(first)
            del words[:max(fits, 1)]
    return lines


def _in_lines(rows: Sequence[Row]) -> list[Row]:
    """Rows that may stand beside one another, as full ones with their labels in the captions."""
    lines: list[list[Tile]] = [[]]
    for row in rows:
        if lines[-1] and len(lines[-1]) + len(row.tiles) > _ABREAST:
            lines.append([])
        lines[-1] += [Tile(tile.picture, f"{row.label}\n{tile.caption}") for tile in row.tiles]
    return [Row("", tiles) for tiles in lines]


def _broken(rows: Sequence[Row], most: int) -> list[Row]:
    """Rows of at most so many tiles: a long one goes on in the next line, as on the page."""
    return [Row("" if start else row.label, row.tiles[start:start + most])
            for row in rows for start in range(0, max(len(row.tiles), 1), most)]


def _part(part: Any) -> str:
    if isinstance(part, Text):
        tag = "h3" if part.heading else "p"
        return f"<{tag}>{_text(part.text)}</{tag}>"
    if isinstance(part, Table):
        return _table(part)
    if isinstance(part, Chart):
        return (f'<figure class="chart"><img alt="{_text(part.note or part.name)}" '
                f'src="{_uri(part.png, "png")}"><figcaption>{_text(part.note)}</figcaption>'
                "</figure>")
    rows = "".join(
        "<div>" + (f'<p class="label">{_text(row.label)}</p>' if row.label else "")
        + f'<div class="tiles">{"".join(map(_tile, row.tiles))}</div></div>'
        for row in part.rows)
    return (f'<div class="{"beside" if part.beside else "figure"}" style="--side:{part.side}px">'
            f"{rows}</div>") + (
        f'<p class="note">{_text(part.note)}</p>' if part.note else "")


def _tile(tile: Tile) -> str:
    height, width = tile.picture.shape[:2]
    caption = _text(tile.caption).replace("\n", "<br>")
    return (f'<figure><img width="{width}" height="{height}" alt="{_text(tile.caption)}" '
            f'src="{_encoded(tile.picture)}"><figcaption>{caption}</figcaption></figure>')


def _encoded(picture: np.ndarray) -> str:
    """A picture as a data URI: a PNG if that is small, as drawings and pixels are, else a JPEG."""
    from PIL import Image

    image = Image.fromarray(picture)
    png, jpeg = io.BytesIO(), io.BytesIO()
    image.save(png, "PNG", optimize=True)
    if png.tell() <= 5000:
        return _uri(png.getvalue(), "png")
    image.save(jpeg, "JPEG", quality=88, subsampling=0)
    return _uri(jpeg.getvalue(), "jpeg")


def _table(table: Table) -> str:
    def line(cells, tag):
        return "<tr>" + "".join(
            f'<{tag}{" class=n" if i in table.numbers else ""}>{_text(cell)}</{tag}>'
            for i, cell in enumerate(cells)) + "</tr>"

    body = "".join(line(row, "td") for row in table.rows)
    found = (f'<div class="wide"><table><thead>{line(table.header, "th")}</thead>'
             f"<tbody>{body}</tbody></table></div>")
    if table.folded:
        return f"<details><summary>{_text(table.title)}</summary>{found}</details>"
    return (f'<p class="label">{_text(table.title)}</p>' if table.title else "") + found


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _text(text: str) -> str:
    return html.escape(text, quote=True)


# The policy makes it sure that nothing is asked of any server.
_META = ('<meta name="viewport" content="width=device-width, initial-scale=1">'
         '<meta http-equiv="Content-Security-Policy" '
         "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
         '<link rel="icon" href="data:,">')
_STYLE = """
:root { color-scheme: light; --ink: #1c1e21; --soft: #5c636b; --line: #dfe3e8; --accent: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: #fff; }
main { max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; margin: 2.5rem 0 .5rem; padding-top: .6rem;
  border-top: 2px solid var(--ink); }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .3rem; }
p { max-width: 46rem; margin: .5rem 0; }
.label { font-weight: 600; font-size: .875rem; margin: 1rem 0 .3rem; }
.note, figcaption { color: var(--soft); font-size: .8125rem; line-height: 1.35; }
.remark { border-left: 4px solid #e69f00; background: #fdf6e6; padding: .4rem .8rem; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .6rem 1rem;
  margin: 1rem 0; }
dt { color: var(--soft); font-size: .8125rem; }
dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: .4rem; margin: 1rem 0; }
nav a { border: 1px solid var(--line); border-radius: 1rem; padding: .25rem .8rem;
  color: var(--accent); text-decoration: none; font-size: .875rem; }
.beside { display: flex; flex-wrap: wrap; gap: 0 1.5rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .5rem; }
figure { margin: 0; }
.tiles figure { width: var(--side); }
.tiles img { display: block; width: var(--side); height: auto; image-rendering: pixelated;
  border-radius: 2px; }
.tiles figcaption { overflow-wrap: anywhere; margin-top: .15rem; font-size: .75rem; }
.chart { margin: .8rem 0; max-width: 30rem; }
.chart img { display: block; width: 100%; height: auto; }
.wide { overflow-x: auto; margin: .4rem 0 1rem; }
table { border-collapse: collapse; font-size: .8125rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; text-align: left; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
.n { text-align: right; }
summary { cursor: pointer; color: var(--accent); margin: .5rem 0; }
"""
