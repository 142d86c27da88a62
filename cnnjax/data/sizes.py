"""The size of an image from its header, without decoding it."""

from __future__ import annotations

import os
from typing import BinaryIO

from cnnjax.data.host import ORIENTATION


def image_size(file: str | os.PathLike[str] | BinaryIO) -> tuple[int, int] | None:
    """Returns (H, W) of an image as it is decoded, turned as EXIF says; None if it is no image."""
    from PIL import Image
    try:
        with Image.open(file) as image:
            turned = image.getexif().get(ORIENTATION, 1) >= 5  # By 90 degrees.
            return image.size if turned else image.size[::-1]
    except Exception:  # Whatever is wrong, decoding the image will say it better.
        return None
