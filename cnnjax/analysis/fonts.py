"""Pictures with names in any script: installed fonts for what Matplotlib's own lacks."""

from __future__ import annotations

import contextlib
import functools
import logging
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_told: set[str] = set()  # Characters that no font has.


def save(figure: Any, file: Any, **how: Any) -> None:
    """Does figure.savefig(file, **how), with fallback fonts for the texts that need them.

    What no installed font has is a box, as it is of Matplotlib; a line in the log says so once.
    """
    from matplotlib.text import Text

    for axes in figure.axes:  # The names at the ticks are not there before they are asked for.
        axes.get_xticklabels(), axes.get_yticklabels()
    texts = [text for text in figure.findobj(Text) if _lacking(text.get_text())]
    families = [family for family, _ in fallbacks(text.get_text() for text in texts)]
    for text in texts:
        text.set_fontfamily([*text.get_fontfamily(), *families])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(file, **how)


def for_pillow(text: str, size: int) -> Any:
    """Returns the one font, for Pillow, that has most of a text: DejaVu Sans, if that has all."""
    file = _own()  # Pillow's own knows Latin alone.
    if fallbacks([text]):
        (_, file), *_ = _installed("".join(sorted(filter(str.isprintable, set(text)))))[0]
    return _opened(file, size)


@functools.cache
def _opened(file: str, size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.truetype(file, size)


def fallbacks(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Returns family and file of fonts that have what DejaVu Sans lacks, the most useful first."""
    lacking = _lacking("".join(texts))
    found, left = _installed("".join(sorted(lacking))) if lacking else ((), "")
    if left and not _told:
        logging.getLogger("cnnjax").warning(
            "No installed font has %s: in pictures they are boxes. Install one that has, such as "
            "Noto's (apt install fonts-noto-cjk, or fonts-noto).", " ".join(left[:10]))
        _told.update(left)
    return found


def _own() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"))


def _lacking(text: str) -> set[str]:
    if text.isascii():
        return set()
    from matplotlib.font_manager import get_font

    own = get_font(_own())
    return {c for c in text if not own.get_char_index(ord(c)) and c.isprintable()}


@functools.cache
def _installed(characters: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """Returns (family, file) of fonts that have them, and the characters that none has."""
    have = {font: {c for c in characters if c in known} for font, known in _fonts().items()}
    found, left = [], set(characters)
    while left and have:
        best = max(have, key=lambda font: (len(have[font] & left), "Sans" in font[0]))
        if not have[best] & left:
            break
        found.append(best)
        left -= have[best]
    return tuple(found), "".join(sorted(left))


@functools.cache
def _fonts() -> dict[tuple[str, str], str]:
    """Returns all characters of each font by its (family, file). Of thousands it takes seconds."""
    from matplotlib import font_manager

    manager, found = font_manager.fontManager, {}
    # Matplotlib keeps its list for long.
    for file in set(font_manager.findSystemFonts()) - {font.fname for font in manager.ttflist}:
        with contextlib.suppress(Exception):  # Of formats that it cannot draw.
            manager.addfont(file)
    for font in manager.ttflist:
        with contextlib.suppress(OSError, RuntimeError):
            face = font_manager.get_font(font.fname)
            if face.scalable and not font.name.startswith("Last Resort"):  # Which has boxes.
                found[font.name, font.fname] = "".join(map(chr, face.get_charmap()))
    return found
