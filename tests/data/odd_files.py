"""Image files that are unusual and right, files that are none, and a stream that fails."""

import io

import cv2
import numpy as np
from PIL import Image


def photo(seed=0, height=90, width=123):
    """Returns a smooth RGB image, as JPEG likes them."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def encode(image, form="JPEG", **options):
    """Returns the bytes of a file of an array or a Pillow image."""
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, form, **options)
    return file.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def ycck(image):
    """Returns a JPEG of YCCK as Adobe writes it: the same but for what its marker says."""
    data = bytearray(encode(Image.fromarray(image).convert("CMYK")))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def broken_png(image):
    """Returns a PNG whose last checksum of pixels is wrong."""
    data = bytearray(encode(image, "PNG"))
    start = data.index(b"IDAT")
    data[start + 4 + int.from_bytes(data[start - 4:start], "big")] ^= 0xFF
    return bytes(data)


def bad_files(seed):
    """Returns {kind: (name's extension, bytes, what the message says)} of a photo of its own."""
    image = photo(seed)
    jpeg, progressive = encode(image), encode(image, progressive=True)
    png = encode(image, "PNG")
    return {
        "empty": (".jpg", b"", "is empty"),
        "text": (".jpg", b"These are the notes of run %d.\n" % seed, "is a text file"),
        "web page": (".jpg", b"<!DOCTYPE html>\n<html><body>404</body></html>", "is a web page"),
        "gif": (".jpg", encode(image, "GIF"), "is a GIF"),
        "zeros": (".jpg", bytes(5000), "nothing but zeros"),
        "cut jpeg": (".jpg", jpeg[:len(jpeg) * 2 // 3], "is a JPEG that was cut off"),
        "cut at its end": (".jpeg", jpeg[:-2], "is a JPEG that was cut off"),
        "cut progressive": (".jpg", progressive[:len(progressive) // 2], "JPEG that was cut off"),
        "cut png": (".png", png[:len(png) // 2], "is a PNG that was cut off"),
        "wrong checksum": (".png", broken_png(image), "is a PNG that is damaged"),
        "noise": (".jpg", np.random.default_rng(seed).bytes(3000), "is not an image"),
        "cut tiff": (".tif", encode(image, "TIFF")[:9000], "is a TIFF that is damaged"),
        "cut webp": (".webp", encode(image, "WEBP")[:300], "is a WebP that is damaged"),
        "cut bmp": (".bmp", encode(image, "BMP")[:9000], "is a BMP that is damaged"),
    }


class Unsendable(Exception):
    """An error that does not survive pickling, which makes it anew of one argument."""

    def __init__(self, text, place):
        super().__init__(f"{text} of {place}")


class Unfit:
    """A stream that fails by an error of its own. It is here because workers must import it."""

    def __init__(self, error):
        self.error = error

    def read_into(self, indices, epochs, rows):
        raise self.error("what a source may raise", len(indices))
