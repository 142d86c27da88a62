"""The size of an image from its header, without decoding it."""

from __future__ import annotations

import os
import warnings
from typing import BinaryIO

from cnnjax.data.decode import ORIENTATION

# Pillow warns of EXIF that is cut short, as in some photographs of ImageNet, and reads on.
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")

_WIDTH, _LENGTH = 256, 257  # Tags of TIFF.
_XMP = ("xmp", "XML:com.adobe.xmp")


def image_size(file: str | os.PathLike[str] | BinaryIO) -> tuple[int, int] | None:
    """Returns (H, W) of an image as it is decoded, turned as EXIF says; None if it is no image."""
    from PIL import Image
    try:
        with Image.open(file) as image:
            size = image.size
            if image.format == "TIFF":  # Pillow has turned it.
                size = image.tag_v2[_WIDTH], image.tag_v2[_LENGTH]
            for key in _XMP:  # There Pillow looks for the orientation too; decoders do not.
                image.info.pop(key, None)
            turned = image.getexif().get(ORIENTATION, 1) >= 5  # By 90 degrees.
            return size if turned else size[::-1]
    except Exception:  # Whatever is wrong, decoding the image will say it better.
        return None
