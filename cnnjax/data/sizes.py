"""The size of an image from its header, without decoding it."""

from __future__ import annotations

import contextlib
import os
import warnings
from typing import Any, BinaryIO

from cnnjax.data.decode import ORIENTATION

# Pillow warns of EXIF that is cut short, as in some photographs of ImageNet, and reads on.
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")

_WIDTH, _LENGTH = 256, 257  # Tags of TIFF.
_KINDS = {"JPEG", "PNG", "BMP", "WEBP", "TIFF"}
_XMP = ("xmp", "XML:com.adobe.xmp")


def image_size(file: str | os.PathLike[str] | BinaryIO) -> tuple[int, int] | None:
    """Returns (H, W) of an image as it is decoded, turned as EXIF says; None if it is no image."""
    try:
        with (contextlib.nullcontext(file) if hasattr(file, "read") else open(file, "rb")
              ) as stream, opened(stream) as image:
            size = image.size
            if image.format == "TIFF":  # Pillow has turned it.
                size = image.tag_v2[_WIDTH], image.tag_v2[_LENGTH]
            for key in _XMP:  # There Pillow looks for the orientation too; decoders do not.
                image.info.pop(key, None)
            turned = image.getexif().get(ORIENTATION, 1) >= 5  # By 90 degrees.
            return size if turned else size[::-1]
    except Exception:  # Whatever is wrong, decoding the image will say it better.
        return None


def opened(file: BinaryIO) -> Any:
    """Returns an image as `PIL.Image.open` does, but of any size, as OpenCV will decode it.

    Pillow warns of more than 89 megapixels, and refuses twice as many, which telephones make. (Of
    WebP, which ends at 268, it still refuses them.)
    """
    from PIL import Image

    start = file.read(16)
    file.seek(0)
    for load in (Image.preinit, Image.init):  # The second, of rarer kinds, takes longer.
        load()
        for kind in _KINDS & Image.OPEN.keys():
            open_one, accepts = Image.OPEN[kind]
            if accepts(start) is True:
                return open_one(file)
    return Image.open(file)
