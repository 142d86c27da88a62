import io
import re

import numpy as np
import pytest
from PIL import Image

import cnnjax
from cnnjax.data import decode_image, resize_center_crop
from cnnjax.data.decode import jpeg_size
from cnnjax.data.host import HostTransform, _crop_box, random_resized_crop, resize_whole
from cnnjax.data.order import CROP, random_bits
from cnnjax.types import Preprocess, UserError


def smooth(height, width, channels=3, seed=0):
    import cv2
    small = np.random.default_rng(seed).integers(0, 256, (9, 9, channels), np.uint8)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return image.reshape(height, width, channels)


def torchvision_transform(image, resize, size, method):
    """Resize(resize), CenterCrop(size) of torchvision, over Pillow."""
    h, w = image.shape[:2]
    new = (resize, int(resize * h / w)) if w <= h else (int(resize * w / h), resize)
    resized = np.asarray(Image.fromarray(image).resize(new, method))
    top, left = (int(round((n - size) / 2.0)) for n in resized.shape[:2])
    return resized[top:top + size, left:left + size]


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (100, 100), (40, 97)])
@pytest.mark.parametrize(("interpolation", "method"), [("bilinear", 2), ("bicubic", 3)])
def test_centre_crop_is_that_of_torchvision(height, width, interpolation, method):
    image = smooth(height, width)
    for resize, size in ((256, 224), (232, 224), (36, 32), (64, 64)):
        ours = resize_center_crop(image, (size, size), size / resize, interpolation).astype(int)
        theirs = torchvision_transform(image, resize, size, method)
        # Pillow may do its two passes in another order, and it rounds between them.
        assert ours.shape == theirs.shape and np.abs(ours - theirs).max() <= 2
        assert np.abs(ours - theirs).mean() < 0.1


def test_image_files_become_the_input_that_torchvision_makes_of_them(tmp_path):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    preprocess = Preprocess((32, 32), mean, std, crop=32 / 36, interpolation="bicubic")
    arrays = [smooth(60, 50), smooth(40, 97, seed=1)]
    files = [tmp_path / f"{i}.png" for i in range(2)]
    for file, array in zip(files, arrays, strict=True):
        Image.fromarray(array).save(file)
    found = cnnjax.read_images(files, preprocess)
    theirs = (np.stack([torchvision_transform(a, 36, 32, 3) for a in arrays]) / 255 - mean) / std
    assert found.shape == (2, 32, 32, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found, theirs, atol=2 / 255 / 0.224)
    np.testing.assert_array_equal(cnnjax.read_images(arrays, preprocess), found)
    grey = cnnjax.read_images([smooth(40, 40, 1)], preprocess)
    np.testing.assert_allclose(grey[..., 0] * std[0] + mean[0], grey[..., 2] * std[2] + mean[2],
                               atol=1e-5)


@pytest.mark.parametrize(("images", "message"), [
    ("photo.jpg", "a list of image files"), ([], "a list of image files"),
    ([np.zeros((8, 8, 3), np.float32)], "got float32 [8, 8, 3]"),
    ([np.zeros((8, 8), np.uint8)], "got uint8 [8, 8]"), (["no.jpg"], "no.jpg cannot be read")])
def test_what_is_no_list_of_images_is_refused(images, message):
    with pytest.raises(UserError, match=re.escape(message)):
        cnnjax.read_images(images, Preprocess((8, 8), (0.5,) * 3, (0.5,) * 3))


def test_centre_crop_of_grey_and_oblong_sizes():
    grey = resize_center_crop(smooth(60, 50, 1), (32, 16), 1.0)
    assert (grey.shape, grey.dtype) == ((32, 16, 1), np.uint8)
    # The left and right quarter of an image twice as wide as it should be are cut off.
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 20:60] = 255
    out = resize_center_crop(image, (20, 20), 1.0)
    assert out[:, 1:-1].min() == 255 and (out[:, [0, -1]] > 200).all()


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_channels_that_are_no_colours_are_resized_one_by_one(channels):
    image = smooth(60, 50, 13)[..., :channels]
    image[::3, ..., -1] = 0  # To Pillow two and four channels end with a transparency.
    for resized in (resize_whole(image, (20, 30)), resize_whole(image, (60, 50))):
        alone = [np.asarray(Image.fromarray(image[..., c]).resize(resized.shape[1::-1], 2))
                 for c in range(channels)]
        np.testing.assert_array_equal(resized, np.stack(alone, -1))


def test_random_crop_is_a_pure_function_of_seed_epoch_and_index():
    image = smooth(60, 80)
    transform = HostTransform((16, 16), random_area=(0.08, 1.0), seed=1)
    assert (transform(image, 2, 3) == transform(image, 2, 3)).all()
    others = [transform(image, 2, 4), transform(image, 3, 3),
              HostTransform((16, 16), random_area=(0.08, 1.0), seed=2)(image, 2, 3)]
    assert all((transform(image, 2, 3) != other).any() for other in others)


def uniform(index):
    return (random_bits(0, index, CROP, 22) >> np.uint64(11)) * 2.0**-53


def test_random_crops_are_distributed_as_torchvision_says():
    boxes = np.array([_crop_box((4000, 4000), (0.08, 1.0), uniform(i)) for i in range(2000)])
    top, left, h, w = boxes.T
    assert boxes.min() >= 0 and (top + h).max() <= 4000 and (left + w).max() <= 4000
    ratio, area = np.log(w / h), h * w / 4000**2
    assert np.abs(ratio).max() <= np.log(4 / 3) + 1e-3
    assert area.min() >= 0.0799 and area.max() <= 1.0001
    # A square takes every ratio at areas below 3/4: there both are uniform.
    small = area < 0.75
    np.testing.assert_allclose(np.quantile(area[small], [0.25, 0.5, 0.75]),
                               0.08 + 0.67 * np.array([0.25, 0.5, 0.75]), atol=0.03)
    np.testing.assert_allclose(np.quantile(ratio[small], [0.25, 0.5, 0.75]),
                               np.log(4 / 3) * np.array([-0.5, 0, 0.5]), atol=0.03)
    assert abs(np.mean(top / np.maximum(1, 4000 - h)) - 0.5) < 0.03


@pytest.mark.parametrize(("shape", "box"), [
    ((10, 1000), (0, 493, 10, 13)), ((1000, 10), (493, 0, 13, 10)), ((1, 1), (0, 0, 1, 1))])
def test_an_image_too_narrow_for_any_try_is_cut_at_the_centre(shape, box):
    assert _crop_box(shape, (0.9, 1.0), uniform(0)) == box


def test_the_whole_area_of_a_square_shrinks_by_averaging():
    image = smooth(32, 32)
    draws = np.full(22, 0.5)  # Ratio 1.
    out = random_resized_crop(image, (16, 16), (1.0, 1.0), draws)
    mean = image.reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    assert np.abs(out - mean).max() <= 1
    # A row and a column are left over.
    odd = random_resized_crop(np.pad(image, ((0, 1), (0, 1), (0, 0))), (16, 16), (1.0, 1.0), draws)
    assert np.abs(odd - mean).max() <= 1
    grey = random_resized_crop(image[..., :1], (40, 48), (0.5, 1.0), draws, "bicubic")
    assert grey.shape == (40, 48, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(20, 24), (90, 70), (8, 8)])
def test_random_crops_are_written_where_they_belong_and_close_to_pillows(channels, size):
    image, rows = smooth(100, 130)[..., :channels], np.zeros((3, *size, channels), np.uint8)
    made = random_resized_crop(image, size, (0.3, 0.9), uniform(7), out=rows[1])
    assert np.shares_memory(made, rows[1]) and not rows[0].any() and not rows[2].any()
    np.testing.assert_array_equal(
        rows[1], random_resized_crop(image, size, (0.3, 0.9), uniform(7)))
    top, left, h, w = _crop_box(image.shape[:2], (0.3, 0.9), uniform(7))
    divisor = max(1, min(h // size[0], w // size[1]))
    h, w = h - h % divisor, w - w % divisor
    pixels = image[..., 0] if channels == 1 else image
    theirs = np.asarray(Image.fromarray(pixels).resize(
        size[::-1], Image.Resampling.BILINEAR, box=(left, top, left + w, top + h)), np.float32)
    # Of patterns as fine as the pixels of the smallest result.
    assert np.abs(rows[1] - theirs.reshape(*size, channels)).mean() < 5


@pytest.mark.parametrize(("arguments", "message"), [
    ({"crop": 0.0}, "crop is 0.0"), ({"crop": 1.1}, "crop is 1.1"),
    ({"interpolation": "bilinaer"}, "Did you mean 'bilinear'"),
    ({"random_area": (0.5,)}, "random_resized_crop"),
    ({"random_area": (0.0, 1.0)}, "random_resized_crop"),
    ({"random_area": (0.8, 0.2)}, "random_resized_crop"),
    ({"size": (0, 5)}, "at least one pixel"),
])
def test_values_out_of_range_are_explained(arguments, message):
    with pytest.raises(UserError, match=message):
        HostTransform(**({"size": (8, 8)} | arguments))


def jpeg(pixels, **save):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **save)
    return file.getvalue()


@pytest.mark.parametrize("save", [{}, {"progressive": True}, {"comment": b"\xff\xc0" * 9}])
@pytest.mark.parametrize("shape", [(7, 300), (300, 7), (1, 1)])
def test_the_size_in_a_jpegs_header(shape, save):
    data = jpeg(smooth(*shape), **save)
    assert jpeg_size(data) == shape
    assert jpeg_size(data[:20]) is None and jpeg_size(b"\xff\xd8" + b"\xff" * 20) is None
    assert jpeg_size(b"") is None


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_decoded_no_larger_than_its_crop_needs(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(smooth(640, 900), quality=95, exif=exif)
    whole = decode_image(data, "photo")
    transform, seen = HostTransform((60, 50), random_area=(0.1, 1.0), seed=3), set()
    for index in range(40):
        with transform.reading(2, index):
            image = decode_image(data, "photo")
        divisor = round(whole.shape[0] / image.shape[0])
        seen.add(divisor)
        assert image.shape == tuple(-(-side // divisor) for side in whole.shape[:2]) + (3,)
        # The same box of the whole image, which is the one drawn there to within a pixel of the
        # small one's.
        top, left, h, w = _crop_box(image.shape[:2], (0.1, 1.0), transform._uniform(2, index))
        box = tuple(divisor * side for side in (left, top, left + w, top + h))
        theirs = Image.fromarray(whole).crop(box).resize((50, 60), Image.Resampling.BOX)
        made = transform(image, 2, index)
        # A shift by one pixel of the result is some 11 levels.
        assert np.abs(made - np.asarray(theirs, np.float32)).mean() < 5
        drawn = _crop_box(whole.shape[:2], (0.1, 1.0), transform._uniform(2, index))
        assert np.abs(np.array([top, left, h, w]) * divisor - drawn).max() <= 1.5 * divisor
        assert drawn[2] // divisor >= 60 and drawn[3] // divisor >= 50
    assert seen == {2, 4, 8} and decode_image(data, "photo").shape == whole.shape


def test_evaluation_and_lossless_images_are_decoded_whole():
    data = jpeg(smooth(640, 900))
    with HostTransform((8, 8)).reading(0, 0):
        assert decode_image(data, "photo").shape == (640, 900, 3)
    file = io.BytesIO()
    Image.fromarray(smooth(640, 900)).save(file, "PNG")
    with HostTransform((8, 8), random_area=(0.5, 1.0)).reading(0, 0):
        assert decode_image(file.getvalue(), "png").shape == (640, 900, 3)
        assert decode_image(data, "grey", channels=1).shape == (80, 113, 1)


@pytest.mark.parametrize("area", [None, (0.08, 1.0)])
def test_a_transform_interpolates_as_it_is_told(area):
    bilinear, bicubic = (HostTransform((90, 90), interpolation=way, random_area=area)(
        smooth(60, 80), 0, 0) for way in ("bilinear", "bicubic"))
    assert (bilinear != bicubic).any()
