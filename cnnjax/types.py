"""Small records and errors that several parts of cnnjax share. Imports nothing of cnnjax."""

from __future__ import annotations

import dataclasses
import difflib
import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any

# Per channel (red, green, blue), of ImageNet's images scaled to [0, 1]: what nearly all published
# weights want their images normalised with.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class UserError(ValueError):
    """A mistake in what the user gave: the message says what, where and what to type instead.

    `launch.py` prints the message alone and exits with code 2. In a notebook it is an ordinary
    `ValueError`.
    """


class Failure(RuntimeError):
    """Something outside the program failed: the message says what, and what may help.

    `launch.py` prints the message alone and exits with code 1: the same command may succeed.
    """


def did_you_mean(word: str, known: Iterable[str], key: Callable[[str], str] = str) -> str:
    """Returns " Did you mean 'a' or 'b'?" for the known names nearest to `word`, or "".

    Near are those of which `key` gives much the same as of the word, in letters of any case.
    """
    known, composed = list(known), unicodedata.normalize("NFC", word)
    for name in known:  # File systems and archives of macOS spell é as e and an accent.
        if name != word and unicodedata.normalize("NFC", name) == composed:
            return (f" Did you mean {name!r}? It looks the same, but its letters are written as "
                    f"{ascii(name)}, and those of the other as {ascii(word)}.")
    names = {key(name).casefold(): name for name in known}
    near = [names[k] for k in difflib.get_close_matches(key(word).casefold(), names, cutoff=0.6)]
    return f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """How an image becomes a model's input. Stored beside the parameters, in every checkpoint.

    Attributes:
      size: (height, width) of the model's input, in pixels.
      mean: per channel, subtracted after scaling uint8 to [0, 1].
      std: per channel, divided by after that.
      crop: the fraction of the short side that the centre crop keeps (0.875 is the usual 224 of
        256).
      interpolation: "bilinear" or "bicubic", both with antialiasing when shrinking.
      whole: whether an image is resized whole instead, out of proportion if need be: as the images
        of a data set are that all have one size.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float = 0.875
    interpolation: str = "bilinear"
    whole: bool = False

    @property
    def channels(self) -> int:
        return len(self.mean)

    def to_dict(self) -> dict[str, Any]:
        """Returns a dictionary of plain lists and numbers, for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v
                for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """Inverse of `to_dict`.

        Raises:
          TypeError: for a field that is missing or unknown.
          ValueError: for a value that is none of its field's.
        """
        read = cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
        fits = {
            "size": _numbers(read.size, int) and len(read.size) == 2 and min(read.size) > 0,
            "mean": _numbers(read.mean) and len(read.mean) > 0,
            "std": _numbers(read.std) and len(read.std) == len(read.mean) and min(read.std) > 0,
            "crop": _numbers((read.crop,)) and read.crop > 0,
            "interpolation": read.interpolation in ("bilinear", "bicubic"),
            "whole": isinstance(read.whole, bool)}
        for name in (name for name, right in fits.items() if not right):
            raise ValueError(f"preprocess.{name} is {getattr(read, name)!r}")
        return read


def _numbers(value: Any, kind: type | tuple[type, ...] = (int, float)) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(item, kind) and not isinstance(item, bool) and math.isfinite(item)
        for item in value)
