"""A page of images with what was said about each."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np

from cnnjax.analysis import fonts
from cnnjax.analysis.rendering import as_rgb

_SIDE, _MARGIN, _LINE = 160, 8, 18


def draw(images: Sequence[tuple[np.ndarray, str, str]], columns: int = 0) -> bytes:
    """Returns a PNG of the images in rows, two lines of text below each.

    Args:
      images: (uint8 [H, W, C], shown as `as_rgb` does; first line; second line).
      columns: of the page; 0 makes it about square.
    """
    from PIL import Image, ImageDraw

    columns = columns or min(len(images), max(1, math.ceil(math.sqrt(len(images) * 1.3))))
    width, height = _SIDE + 2 * _MARGIN, _SIDE + 2 * _LINE + 2 * _MARGIN
    page = Image.new("RGB", (columns * width, -(-len(images) // columns) * height), "white")
    pen = ImageDraw.Draw(page)
    for i, (pixels, *lines) in enumerate(images):
        left, top = i % columns * width + _MARGIN, i // columns * height + _MARGIN
        picture = Image.fromarray(as_rgb(pixels))
        scale = _SIDE / max(picture.size)
        # Tiny images keep their pixels visible.
        method = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BICUBIC
        picture = picture.resize([max(1, round(scale * n)) for n in picture.size], method)
        page.paste(picture, (left + (_SIDE - picture.width) // 2, top))
        for k, line in enumerate(lines):
            font = fonts.for_pillow(line, 13)
            pen.text((left, top + _SIDE + 2 + k * _LINE), _fitting(pen, line, font), "black", font)
    file = io.BytesIO()
    page.save(file, "PNG")
    return file.getvalue()


def _fitting(pen, text: str, font) -> str:
    """Returns the text in one line, cut with an ellipsis where it is wider than an image."""
    text = " ".join(text.split())
    if pen.textlength(text, font) <= _SIDE:
        return text
    while text and pen.textlength(text + "…", font) > _SIDE:
        text = text[:-1]
    return text + "…"
