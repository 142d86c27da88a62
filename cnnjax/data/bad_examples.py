"""Examples that cannot be read: what is wrong with them, and reading on without them."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence

import numpy as np

from cnnjax.data import dataset
from cnnjax.data.dataset import RandomAccess, Split
from cnnjax.types import UserError

ON_ERROR = ("raise", "skip")
# (what a file begins with, what that is). Those below are read; these only look like images.
_OTHERS = ((b"GIF8", "a GIF"), (b"%PDF", "a PDF"), (b"PK\x03\x04", "a zip archive"),
           (b"\x1f\x8b", "a gzip archive"))
_KINDS = ((b"\xff\xd8\xff", "a JPEG"), (b"\x89PNG", "a PNG"), (b"II*\0", "a TIFF"),
          (b"MM\0*", "a TIFF"), (b"RIFF", "a WebP"), (b"BM", "a BMP"))
# With what a JPEG, a PNG and a GIF end.
_ENDS = {"a JPEG": b"\xff\xd9", "a PNG": b"IEND\xaeB`\x82"}
# (index, name, reason) of an example that was left out.
Problem = tuple[int, str, str]


class BadExample(UserError):
    """One example cannot be read, and the others may be fine.

    Attributes:
      name: the file, or the data set and the number of the example.
      reason: such as "is empty".
      advice: what to do.
    """

    def __init__(self, name: str, reason: str,
                 advice: str = "remove it, or save it again as JPEG or PNG"):
        self.name, self.reason, self.advice = name, reason, advice
        super().__init__(f"{name} {reason}: {advice}.")

    def __reduce__(self):  # From a process that reads to the one that trains.
        return type(self), (self.name, self.reason, self.advice)

    def of_a_data_set(self) -> BadExample:
        """Returns the error with what there is to do about it in training."""
        return BadExample(self.name, self.reason, self.advice
                          + ". --config.data.on_error=skip goes on without such examples, and "
                          "--job=summarize --what=data names all of them")


def is_gif(data: bytes) -> bool:
    """Whether these are the bytes of a GIF, which some versions of OpenCV read and others not."""
    return data.startswith(b"GIF8")


def what_is_wrong(data: bytes) -> str:
    """Returns why the bytes, which OpenCV could not decode, are no image: "is a text file, …"."""
    size, start = f"{len(data):,} bytes", data[:512].lstrip()
    if not data:
        return "is empty (0 bytes)"
    if not data.strip(b"\0"):
        return f"holds nothing but zeros ({size})"
    for kind in (kind for begin, kind in _KINDS if data.startswith(begin)):
        end = _ENDS.get(kind)
        if end and end not in data[-1024:]:
            return f"is {kind} that was cut off: its end is missing ({size})"
        return f"is {kind} that is damaged or was cut off ({size})"
    for kind in (kind for begin, kind in _OTHERS if data.startswith(begin)):
        return f"is {kind}, not a JPEG, PNG, BMP, WebP or TIFF ({size})"
    if start[:1] == b"<" and any(tag in start.lower() for tag in (b"<html", b"<!doctype", b"<?xml",
                                                                  b"<head", b"<svg")):
        return f"is a web page, not an image ({size}), which a download may have left"
    if _is_text(data[:512]):
        return f"is a text file, not an image ({size})"
    return f"is not an image that OpenCV can read ({size}, which begin with {data[:4].hex(' ')})"


def _is_text(data: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data)  # Its end may be cut.
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter.isspace() for letter in text)


def read_each(source: RandomAccess, indices: Sequence[int]
              ) -> Iterator[tuple[np.ndarray, int] | BadExample]:
    """Yields `dataset.read_many`, with the error of a bad example in its place.

    Raises:
      Exception: whatever else is wrong.
    """
    done = 0
    while done < len(indices):
        try:
            for example in dataset.read_many(source, indices[done:]):
                yield example
                done += 1
            return
        except BadExample as error:  # Which has ended the iterator.
            yield error
            done += 1


def name_of(split: Split, index: int) -> str:
    """Returns the file of an example, or "train[7]"."""
    paths = getattr(split.source, "paths", None)
    return paths[index] if paths else f"{split.name}[{index}]"


class Reader:
    """Reads the examples of a split, all of one shape once they are transformed.

    With `skip`, a bad example is replaced by the next good one of the split, the first coming
    after the last: a function of its index alone, so that batches do not depend on threads, hosts
    or where a run was resumed.

    Args:
      split: where they come from.
      skip: whether to replace bad examples; else they are raised.
    """

    def __init__(self, split: Split, skip: bool):
        self.skip, self._split = skip, split
        # What was found before, for speed; and libpng would complain anew in each epoch.
        self._replacements: dict[int, int] = {}
        self._bad: dict[int, BadExample] = {}

    def read(self, indices: Sequence[int]
             ) -> Iterator[tuple[int, tuple[np.ndarray, int], BadExample | None]]:
        """Yields (index, example, None), or (index, another example, what is wrong with its own).

        Raises:
          BadExample: for the first one, unless they are skipped.
          UserError: if no example of the split can be read.
        """
        for index, example in zip(indices, self.each(indices), strict=True):
            if not isinstance(example, BadExample):
                yield index, example, None
            elif self.skip:
                yield index, self._replacement(index), example
            else:
                raise example.of_a_data_set() from None

    def each(self, indices: Sequence[int]) -> Iterator[tuple[np.ndarray, int] | BadExample]:
        """Yields the examples, or what is wrong with them; an image of another size than all is."""
        known = {i: self._bad[i] for i in indices if i in self._bad}
        examples = read_each(self._split.source, [i for i in indices if i not in known])
        for index in indices:
            example = known.get(index) or self._checked(index, next(examples))
            if isinstance(example, BadExample):
                # A copy, because the traceback of an error holds on to what was read.
                self._bad[index] = BadExample(example.name, example.reason, example.advice)
            yield example

    def _checked(self, index: int, example: tuple[np.ndarray, int] | BadExample
                 ) -> tuple[np.ndarray, int] | BadExample:
        shape = self._split.image_shape
        if isinstance(example, BadExample) or shape is None or example[0].shape == shape:
            return example
        height, width, _ = example[0].shape
        return BadExample(name_of(self._split, index), f"is an image of {height}x{width}, but the "
                          f"others are {shape[0]}x{shape[1]}",
                          "remove it, or make all of one size")

    def _replacement(self, bad: int) -> tuple[np.ndarray, int]:
        count, passed = len(self._split), [bad]
        index = self._replacements.get(bad, (bad + 1) % count)
        while len(passed) < count:
            example = next(self.each([index]))
            if not isinstance(example, BadExample):
                self._replacements.update(dict.fromkeys(passed, index))
                return example
            passed.append(index)
            index = self._replacements.get(index, (index + 1) % count)
        return self.check_some(count)

    def check_some(self, bad: int) -> None:
        """Raises a UserError if so many bad examples are all there are."""
        if bad == len(self._split):
            first = next(self.each([0]))
            raise UserError(f"None of the {bad:,} examples of {self._split.name} can be read. The "
                            f"first: {first}")
