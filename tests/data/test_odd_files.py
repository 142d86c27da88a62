"""Unusual image files, against Pillow; and what is said of files that are no images."""

import io

import cv2
import numpy as np
import pytest
from odd_files import bad_files, encode, exif, photo, ycck
from PIL import Image, ImageCms, ImageOps

from cnnjax.data import decode_image
from cnnjax.data.bad_examples import BadExample, what_is_wrong
from cnnjax.data.sizes import image_size

IMAGE = photo()
PICTURE = Image.fromarray(IMAGE)
GREY = PICTURE.convert("L")
TO_LAB = ImageCms.buildTransform(*map(ImageCms.createProfile, ("sRGB", "LAB")), "RGB", "LAB")


def with_alpha(image):
    image = image.copy()
    image.putalpha(Image.fromarray(np.tile(np.arange(123, dtype=np.uint8) * 2, (90, 1))))
    return image


def differences(data, expected):
    image = decode_image(data, "it").astype(int)
    assert image.shape == expected.shape
    return np.abs(image - expected).max()


# JPEG and the colours of CMYK are rounded differently by decoders: 2 levels; the rest is exact.
@pytest.mark.parametrize(("name", "data", "tolerance"), [
    ("JPEG", encode(IMAGE), 2),
    ("JPEG without subsampling", encode(IMAGE, subsampling=0), 2),
    ("progressive JPEG", encode(IMAGE, progressive=True), 2),
    ("grey JPEG", encode(GREY), 2),
    ("CMYK JPEG, inverted as Adobe does", encode(PICTURE.convert("CMYK")), 2),
    ("YCCK JPEG", ycck(IMAGE), 2),
    ("JPEG with bytes behind its end", encode(IMAGE) + b"\0" * 3000, 2),
    ("PNG", encode(IMAGE, "PNG"), 0),
    ("grey PNG", encode(GREY, "PNG"), 0),
    ("PNG with alpha", encode(with_alpha(PICTURE), "PNG"), 0),
    ("grey PNG with alpha", encode(with_alpha(GREY), "PNG"), 0),
    ("palette PNG", encode(PICTURE.quantize(64), "PNG"), 0),
    ("palette PNG with a transparent colour", encode(PICTURE.quantize(64), "PNG", transparency=3),
     0),
    ("PNG of 1 bit", encode(PICTURE.convert("1"), "PNG"), 0),
    ("PNG of 2 bits", encode(PICTURE.quantize(4), "PNG", bits=2), 0),
    ("BMP", encode(IMAGE, "BMP"), 0),
    ("palette BMP", encode(PICTURE.quantize(16), "BMP"), 0),
    ("WebP", encode(IMAGE, "WEBP", lossless=True), 0),
    ("WebP with alpha", encode(with_alpha(PICTURE), "WEBP", lossless=True, exact=True), 0),
    ("TIFF", encode(IMAGE, "TIFF"), 0),
    ("TIFF by LZW", encode(IMAGE, "TIFF", compression="tiff_lzw"), 0),
    ("grey TIFF", encode(GREY, "TIFF"), 0),
    ("TIFF with alpha", encode(with_alpha(PICTURE), "TIFF"), 0),
    ("CMYK TIFF", encode(PICTURE.convert("CMYK"), "TIFF"), 2),
    ("L*a*b* TIFF", encode(ImageCms.applyTransform(PICTURE, TO_LAB), "TIFF"), 0),
])
def test_odd_files_are_read_as_pillow_reads_them(name, data, tolerance):
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    assert differences(data, np.asarray(expected, int)) <= tolerance
    grey = decode_image(data, "it", channels=1)
    assert grey.shape == (90, 123, 1)
    # Pillow rounds the weights of the three colours to other fractions; and a JPEG has the
    # brightness itself, from which colours that RGB cannot show are cut off.
    assert np.abs(grey[..., 0] - np.asarray(expected.convert("L"), int)).mean() <= 1


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_exif_says_unless_asked_not_to(form, orientation):
    options = {"lossless": True} if form == "WEBP" else {}
    data = encode(IMAGE, form, exif=exif(orientation), **options)
    opened = Image.open(io.BytesIO(data))
    assert differences(data, np.asarray(ImageOps.exif_transpose(opened).convert("RGB"), int)) <= 2
    raw = decode_image(data, "it", orient=False).astype(int)
    assert np.abs(raw - np.asarray(opened.convert("RGB"), int)).max() <= 2
    assert image_size(io.BytesIO(data)) == decode_image(data, "it").shape[:2]


def test_an_orientation_in_xmp_alone_turns_nothing():
    xmp = (b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="6"/>'
           b"</rdf:RDF></x:xmpmeta>")
    data = encode(IMAGE, "JPEG", xmp=xmp)
    assert image_size(io.BytesIO(data)) == decode_image(data, "it").shape[:2] == (90, 123)


# OpenCV rounds 16 bits of a TIFF to 8 where it could have cut them off.
@pytest.mark.parametrize(("extension", "tolerance"), [(".png", 0), (".tiff", 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_of_sixteen_bits_the_upper_eight_are_kept(extension, tolerance, channels):
    deep = np.random.default_rng(0).integers(0, 65536, (90, 123, channels), np.uint16)
    _, data = cv2.imencode(extension, deep[..., ::-1])
    expected = np.broadcast_to(deep >> 8, (90, 123, 3)).astype(int)
    assert differences(data.tobytes(), expected) <= tolerance


@pytest.mark.parametrize("kind", sorted(bad_files(0)))
def test_what_is_no_image_is_named_with_what_is_wrong_and_what_to_do(kind):
    _, data, message = bad_files(0)[kind]
    with pytest.raises(BadExample, match=f"^some/file.jpg .*{message}.*remove it") as caught:
        decode_image(data, "some/file.jpg")
    assert caught.value.name == "some/file.jpg" and "\n" not in str(caught.value)


def test_a_jpeg_that_lost_bytes_anywhere_is_noticed():
    whole = encode(IMAGE, quality=95)
    for count in (*range(3, 60, 7), *range(60, len(whole), len(whole) // 40), len(whole) - 1):
        with pytest.raises(BadExample, match="cut off"):
            decode_image(whole[:count], "it")


def test_other_files_that_are_no_images_are_told_apart():
    for data, message in ((b"%PDF-1.7\n\0", "a PDF"), (b"PK\x03\x04\0\0", "a zip archive"),
                          (b"\x1f\x8b\x08\0", "a gzip archive"),
                          (b"<?xml version='1.0'?><Error/>", "a web page"),
                          (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is a HEIC, not a JPEG"),
                          (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "is an AVIF, not a JPEG"),
                          (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "is a video, not a JPEG"),
                          ("Größe: 3".encode(), "a text file"), (b"\x01\x02\x03", "01 02 03")):
        assert message in what_is_wrong(data)


def test_a_whole_tiff_of_a_kind_that_is_not_read_is_not_called_damaged():
    heights = encode(np.ones((20, 30), np.float32), "TIFF")
    with pytest.raises(BadExample, match="is a TIFF of a kind that is not read: Pillow's mode F"):
        decode_image(heights, "it")


def test_the_error_reaches_another_process_whole():
    import pickle
    error = BadExample("a.jpg", "is empty").of_a_data_set()
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.name, again.reason) == (str(error), "a.jpg", "is empty")
