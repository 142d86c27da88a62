"""Examples that cannot be read, and what is wrong with them."""

from __future__ import annotations

import codecs
import io

from cnnjax.types import UserError

ON_ERROR = ("raise", "skip")
# (what a file begins with, what that is). Those below are read; these only look like images.
_OTHERS = ((b"GIF8", "a GIF"), (b"%PDF", "a PDF"), (b"PK\x03\x04", "a zip archive"),
           (b"\x1f\x8b", "a gzip archive"))
_KINDS = ((b"\xff\xd8\xff", "a JPEG"), (b"\x89PNG", "a PNG"), (b"II*\0", "a TIFF"),
          (b"MM\0*", "a TIFF"), (b"RIFF", "a WebP"), (b"BM", "a BMP"))
# Brands of ISO base media files (ISO/IEC 23008-12, 10.2, and AV1's), of which phones make some.
_BRANDS = ((b"avif", "an AVIF"), (b"heic", "a HEIC"), (b"heix", "a HEIC"), (b"mif1", "a HEIC"),
           (b"", "a video"))
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
        if kind == "a TIFF" and (mode := _mode(data)):
            return f"is a TIFF of a kind that is not read: {mode} ({size})"
        return f"is {kind} that is damaged or was cut off ({size})"
    others = [kind for begin, kind in _OTHERS if data.startswith(begin)]
    if data[4:8] == b"ftyp":
        others = [kind for brand, kind in _BRANDS if brand in data[8:64]]
    for kind in others:
        return f"is {kind}, not a JPEG, PNG, BMP, WebP or TIFF ({size})"
    if start[:1] == b"<" and any(tag in start.lower() for tag in (b"<html", b"<!doctype", b"<?xml",
                                                                  b"<head", b"<svg")):
        return f"is a web page, not an image ({size}), which a download may have left"
    if _is_text(data[:512]):
        return f"is a text file, not an image ({size})"
    return f"is not an image that OpenCV can read ({size}, which begin with {data[:4].hex(' ')})"


def _mode(tiff: bytes) -> str:
    """Returns what Pillow, which reads more of them, says of a TIFF that is whole; else ""."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(tiff)) as image:
            image.load()
            return f"Pillow's mode {image.mode}, compression {image.info.get('compression')}"
    except Exception:  # Of whatever makes it no image.
        return ""


def _is_text(data: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data)  # Its end may be cut.
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter.isspace() for letter in text)
