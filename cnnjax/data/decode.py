"""From the bytes of an image file to its pixels, on the host."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cnnjax.data import bad_examples
from cnnjax.data.bad_examples import BadExample
from cnnjax.types import UserError

ORIENTATION = 0x0112  # The tag, of EXIF and of TIFF.
# What is wrong with one file, unlike, say, too many that are open.
ONE_FILE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.EIO, errno.ELOOP)
# Markers of a JPEG's segments that hold its size: SOF0 to SOF15, less three that mean other things.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# What OpenCV has the decoder divide a JPEG by.
_REDUCED = {8: 64, 4: 32, 2: 16}


@functools.cache
def opencv() -> Any:
    """Returns the module cv2, with its own threads and messages off."""
    import cv2
    # One thread an image: the loader already runs one image a core.
    cv2.setNumThreads(0)
    # What is wrong with an image is said once, by who asked for it.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


class _Needed(threading.local):
    """What this thread decodes images for: (height, width) -> what the sides may be divided by."""

    divisor: Callable[[int, int], int] | None = None


_needed = _Needed()


@contextlib.contextmanager
def decoded_smaller(divisor: Callable[[int, int], int]) -> Iterator[None]:
    """Within it, `decode_image` in this thread may divide the sides of JPEGs by 2, 4 or 8.

    The decoder then makes the averages of squares of pixels from their frequencies, to within a
    level, in less than half of the time that all of the pixels take.

    Args:
      divisor: (height, width) of the image, either of which may be the other where its EXIF
        orientation turns it -> the most that its sides may be divided by.
    """
    before, _needed.divisor = _needed.divisor, divisor
    try:
        yield
    finally:
        _needed.divisor = before


def _reduction(data: bytes) -> int:
    """Returns OpenCV's flag for the division of a JPEG; 0 for none, and for what is no JPEG."""
    size = jpeg_size(data) if _needed.divisor else None
    most = _needed.divisor(*size) if size else 1
    return next((flag for divisor, flag in _REDUCED.items() if divisor <= most), 0)


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Returns (height, width) as a JPEG's header has them (ITU T.81, B.2.2), or None."""
    at = 2 if data.startswith(b"\xff\xd8") else len(data)
    while at + 9 <= len(data) and data[at] == 0xFF:
        if data[at + 1] in _FRAMES:
            return struct.unpack_from(">HH", data, at + 5)
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def decode_image(data: bytes, name: str, *, channels: int = 3, orient: bool = True) -> np.ndarray:
    """Decodes a JPEG, PNG, BMP, WebP or TIFF.

    Args:
      data: the bytes of the file.
      name: what to call it in the message.
      channels: 3 for RGB (grey images are repeated), 1 for grey. Transparency is dropped, and
        16-bit values are reduced to 8.
      orient: whether to turn the image as its EXIF orientation says.

    Returns:
      uint8 [H, W, channels].

    A JPEG has no checksum: one that was cut off is noticed, other damage is not, and shows.

    Raises:
      BadExample: if it is not an image that OpenCV can read, or not a whole one.
    """
    cv2 = opencv()
    if data.startswith((b"II*\0", b"MM\0*")):
        data = _plain_rgb(data)
    flags = (cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB) | _reduction(data)
    if not orient:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        readable = data and not bad_examples.is_gif(data)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if readable else None
    except cv2.error:
        image = None
    if image is None:
        raise BadExample(name, bad_examples.what_is_wrong(data))
    return image[..., None] if channels == 1 else image


def _plain_rgb(tiff: bytes) -> bytes:
    """Returns a TIFF of other colours in OpenCV as one of RGB; others as they are.

    Of RGBA it would multiply the colours by the transparency, and L*a*b* it takes for another.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(tiff)) as image:
            if image.mode not in ("RGBA", "LAB"):
                return tiff
            file, exif = io.BytesIO(), image.getexif()
            turn = {ORIENTATION: exif[ORIENTATION]} if ORIENTATION in exif else {}
            image.convert("RGB").save(file, "TIFF", tiffinfo=turn)
    except Exception:  # Whatever is wrong, decoding the image will say it.
        return tiff
    return file.getvalue()


def read_image(path: str | os.PathLike[str], *, channels: int = 3) -> np.ndarray:
    """Reads an image file: uint8 [H, W, channels], turned as its EXIF orientation says.

    Raises:
      BadExample: if it cannot be read or is not an image.
    """
    return decode_image(read_file(path), os.fspath(path), channels=channels)


def raise_limit(reason: str) -> str:
    """Returns what to do where too many files are open, "" for another reason."""
    return (" Raise the limit before the command: ulimit -n $(ulimit -Hn)"
            if reason == os.strerror(errno.EMFILE) else "")


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Returns the bytes of a file.

    Raises:
      BadExample: if it cannot be read.
      UserError: if the fault does not lie in the file, such as too many that are open.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        if error.errno not in ONE_FILE:
            raise UserError(f"{os.fspath(path)} cannot be read: {error.strerror}."
                            + raise_limit(error.strerror)) from None
        raise BadExample(os.fspath(path), f"cannot be read ({error.strerror})",
                         "remove it, or make it readable") from None
