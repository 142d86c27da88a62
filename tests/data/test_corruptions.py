"""Corruptions against the libraries that the published ones were made with, and by definition."""

import colorsys
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from cnnjax.data.corruptions import (
    COLORED,
    KINDS,
    STRENGTHS,
    blur,
    corrupt,
    digital,
    linear,
    noise,
    weather,
)
from cnnjax.types import UserError

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def image():
    """Bytes that have edges, slopes, black and white: [32, 32, 3]."""
    rng = np.random.default_rng(0)
    smooth = ndimage.zoom(rng.uniform(-60, 310, (6, 6, 3)), (32 / 6, 32 / 6, 1), order=1)
    return np.clip(smooth, 0, 255).astype(np.uint8)


def made(kind, strength, image):
    return np.asarray(corrupt(kind, strength, KEY, image[None], np.array([7])))[0]


def test_contrast_moves_to_the_mean(image):
    x = image / 255.0
    by_hand = np.clip((x - x.mean((0, 1))) * 0.15 + x.mean((0, 1)), 0, 1) * 255
    assert np.abs(made("contrast", 5, image).astype(int) - by_hand.astype(np.uint8)).max() <= 1


def test_brightness_adds_to_the_value_of_hsv(image):
    pixels = []
    for r, g, b in image.reshape(-1, 3) / 255:
        h, s, v = colorsys.rgb_to_hsv(r, g, b)
        pixels.append(colorsys.hsv_to_rgb(h, s, min(1, v + 0.3)))
    by_hand = (np.array(pixels) * 255).reshape(image.shape)
    assert np.abs(made("brightness", 5, image) - by_hand).max() <= 1


def test_pixelate_is_pillow_s_box_filter(image):
    for strength, share in zip(STRENGTHS, (.95, .9, .85, .75, .65), strict=True):
        side = int(32 * share)
        by_pillow = Image.fromarray(image).resize((side, side), Image.Resampling.BOX).resize(
            (32, 32), Image.Resampling.BOX)
        np.testing.assert_array_equal(made("pixelate", strength, image), np.asarray(by_pillow))


def test_jpeg_is_pillow_s_codec(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=40)
    np.testing.assert_array_equal(made("jpeg_compression", 5, image),
                                  np.asarray(Image.open(file)))


def test_zoom_blur_averages_scipy_s_enlargements(image):
    x, total = image / 255.0, image / 255.0
    factors = np.arange(1, 1.26, 0.01)
    for factor in factors:
        kept = int(np.ceil(32 / factor))
        top = (32 - kept) // 2
        large = ndimage.zoom(x[top:top + kept, top:top + kept], (factor, factor, 1), order=1)
        trim = (len(large) - 32) // 2
        total = total + large[trim:trim + 32, trim:trim + 32]
    by_scipy = total / (len(factors) + 1)
    np.testing.assert_allclose(blur.zoom_blur(KEY, jnp.asarray(x), 1.26, 0.01), by_scipy, atol=1e-5)


def test_defocus_blur_is_opencv_s_filter(image):
    cv2 = pytest.importorskip("cv2")
    for radius, soft in ((0.3, 0.4), (1.5, 0.1), (3, 0.1), (10, 0.5)):
        reach, size = (8, 3) if radius <= 8 else (radius, 5)
        axis = np.arange(-reach, reach + 1)
        aliased = (axis[:, None] ** 2 + axis**2 <= radius**2).astype(np.float32)
        kernel = cv2.GaussianBlur(aliased / aliased.sum(), (size, size), sigmaX=soft)
        by_opencv = cv2.filter2D(image / 255.0, -1, kernel)
        np.testing.assert_allclose(
            blur.defocus_blur(KEY, jnp.asarray(image / 255.0), radius, soft), by_opencv, atol=1e-5)


@pytest.mark.parametrize(("sigma", "mode", "truncate"), [(0.7, "nearest", 4), (20, "reflect", 3)])
def test_the_gaussian_matrix_is_scipy_s_filter(image, sigma, mode, truncate):
    x = image[..., 0] / 255.0
    matrix = linear.gaussian(32, sigma, mode, truncate)
    np.testing.assert_allclose(
        matrix @ x @ matrix.T, ndimage.gaussian_filter(x, sigma, mode=mode, truncate=truncate),
        atol=1e-12)


def test_noise_has_the_moments_of_its_distribution():
    grey = jnp.full((64, 64, 3), 0.5)
    shot = np.asarray(noise.shot_noise(KEY, grey, 60.0))
    assert shot.mean() == pytest.approx(0.5, abs=0.005)
    assert shot.var() == pytest.approx(0.5 / 60, rel=0.05)
    normal = np.asarray(noise.gaussian_noise(KEY, grey, 0.08))
    assert normal.std() == pytest.approx(0.08, rel=0.03)
    impulse = np.asarray(noise.impulse_noise(KEY, grey, 0.2))
    for value in (0, 1):
        assert (impulse == value).mean() == pytest.approx(0.1, abs=0.01)


def test_motion_blur_is_half_a_gaussian_along_the_line():
    point = np.zeros((21, 21, 1), np.float32)
    point[10, 10] = 1
    line = np.asarray(blur.along_line(jnp.asarray(point), 3, 2.0, jnp.float32(0.0)))[..., 0]
    weights = np.exp(-np.arange(7) ** 2 / 8)
    np.testing.assert_allclose(line[10, 4:11][::-1], weights / weights.sum(), atol=1e-6)
    assert line.sum() == pytest.approx(1, abs=1e-5)


def test_glass_moves_pixels_as_the_authors_loop_does_between_its_blurs(image):
    x = image[:16, :16].copy()
    moves = iter(np.asarray(jax.random.randint(KEY, (2 * 12 * 12, 2), -2, 2)))
    found = np.asarray(blur.glass_blur(KEY, jnp.asarray(x / 255.0), 0.0, 2, 2)) * 255
    for _ in range(2):
        for h in range(14, 2, -1):
            for w in range(14, 2, -1):
                dy, dx = next(moves)
                v, u = h + dy, w + dx
                x[h, w], x[v, u] = x[v, u], x[h, w]  # Theirs, and no swap: see `glass_blur`.
    np.testing.assert_allclose(found, x, atol=0.01)


def test_elastic_transform_without_strength_leaves_the_image(image):
    x = jnp.asarray(image / 255.0)
    np.testing.assert_allclose(digital.elastic_transform(KEY, x, 0.0, 0.2, 0.0), x, atol=1e-4)
    assert np.abs(digital.elastic_transform(KEY, x, 0.1, 0.03, 0.03) - x).max() > 0.1


def test_the_fractal_is_the_diamond_square_algorithm_in_place():
    side, step, wibble = 16, 16, 100.0
    land = np.zeros((side, side))
    while step >= 2:
        half = step // 2
        noise = wibble**2 * np.asarray(weather.plasma_noise(KEY, side // step))
        for i, y in enumerate(range(0, side, step)):
            for j, x in enumerate(range(0, side, step)):
                down, right = (y + step) % side, (x + step) % side
                corners = land[y, x] + land[down, x] + land[y, right] + land[down, right]
                land[y + half, x + half] = corners / 4 + noise[0, i, j]
        for i, y in enumerate(range(0, side, step)):
            for j, x in enumerate(range(0, side, step)):
                land[y, x + half] = (land[y, x] + land[y, (x + step) % side] + land[
                    y + half, x + half] + land[y - half, x + half]) / 4 + noise[1, i, j]
                land[y + half, x] = (land[y, x] + land[(y + step) % side, x] + land[
                    y + half, x + half] + land[y + half, x - half]) / 4 + noise[2, i, j]
        step, wibble = half, wibble / 1.7
    land = (land - land.min()) / (land.max() - land.min())
    np.testing.assert_allclose(weather.plasma_fractal(KEY, side, 1.7), land, atol=1e-5)


@pytest.mark.slow
def test_fog_and_snow_are_random_and_stay_in_range(image):
    clouds = np.asarray(weather.plasma_fractal(KEY, 32, 2.0))
    assert (clouds.min(), clouds.max()) == pytest.approx((0, 1), abs=1e-6)
    assert 0.05 < clouds.std() < 0.4
    for kind in ("fog", "snow"):
        first, second = np.asarray(jax.jit(lambda i, kind=kind: corrupt(
            kind, 5, KEY, jnp.stack([image, image]), i))(jnp.array([1, 2])))
        assert (first != second).any()
        if kind == "snow":
            assert first.mean() > image.mean()
        else:  # What fog brings in is grey.
            assert first.mean(-1).std() < image.mean(-1).std()


@pytest.mark.slow
def test_an_example_is_corrupted_alike_in_any_batch_and_grey_images_too(image):
    batch = np.stack([image, image[::-1], image])[..., :1]
    for kind in ("gaussian_noise", "snow"):
        run = jax.jit(lambda images, index, kind=kind: corrupt(kind, 3, KEY, images, index))
        together = run(batch, np.array([4, 5, 6]))
        assert together.shape == batch.shape and together.dtype == np.uint8
        np.testing.assert_array_equal(together[1:2], run(batch[1:2], np.array([5])))


def test_an_unknown_kind_is_named():
    with pytest.raises(UserError, match="Did you mean 'pixelate'"):
        corrupt("pixelated", 1, KEY, np.zeros((1, 8, 8, 3), np.uint8), np.array([0]))
    assert len(KINDS) == 14


@pytest.mark.parametrize("degrees", [30.0, -45.0, -135.0])
def test_motion_blur_looks_along_the_angle_from_each_pixel(degrees):
    point, expected = np.zeros((21, 21, 1), np.float32), np.zeros((21, 21))
    point[10, 10] = 1
    weights = np.exp(-np.arange(7) ** 2 / 8)
    for i, weight in enumerate(weights / weights.sum()):
        right, down = (int(np.ceil(i * f(np.deg2rad(degrees)) - 0.5)) for f in (np.cos, np.sin))
        expected[10 - down, 10 - right] += weight
    line = blur.along_line(jnp.asarray(point), 3, 2.0, jnp.float32(degrees))
    np.testing.assert_allclose(line[..., 0], expected, atol=1e-6)


def test_snow_of_equal_flakes_is_two_layers_on_a_whitened_image(image):
    x = image / 255.0
    grey = x @ np.array([0.299, 0.587, 0.114])
    whitened = np.maximum(x, 1.5 * grey[..., None] + 0.5)
    found = weather.snow(KEY, jnp.asarray(x), 0.25, 0.0, 1, 0.1, 8, 3, 0.9)
    np.testing.assert_allclose(found, 0.9 * x + 0.1 * whitened + 2 * 63 / 255, atol=1e-5)


def test_fog_keeps_to_the_range_of_the_image(image):
    x = image / 255.0
    clouds = np.asarray(weather.plasma_fractal(KEY, 32, 2.0))[..., None]
    expected = (x + 1.5 * clouds) * x.max() / (x.max() + 1.5)
    np.testing.assert_allclose(weather.fog(KEY, jnp.asarray(x), 1.5, 2.0), expected, atol=1e-5)


@pytest.mark.parametrize(("side", "factor"), [(95, 0.75), (96, 0.4)])
def test_from_96_pixels_on_strengths_are_those_of_imagenet_c(side, factor):
    images = np.full((1, side, side, 1), 50, np.uint8)
    images[:, ::2] = 150
    x = images / 255.0
    by_hand = (x - x.mean()) * factor + x.mean()
    found = np.asarray(corrupt("contrast", 1, KEY, images, np.array([0])))
    assert np.abs(found - 255 * by_hand).max() <= 1


@pytest.mark.parametrize("axis", [0, 1])
def test_elastic_transform_moves_pixels_along_both_axes(axis):
    ramp = np.mgrid[:32, :32][axis][..., None] / 31
    moved = digital.elastic_transform(KEY, jnp.asarray(ramp), 0.1, 0.03, 0.0)
    assert np.abs(moved - ramp).max() > 0.02


@pytest.mark.parametrize("kind", COLORED)
def test_a_kind_that_knows_colours_refuses_images_without(kind):
    with pytest.raises(UserError, match=f"{kind} takes images of 1 or 3 channels, not 4"):
        made(kind, 1, np.zeros((16, 16, 4), np.uint8))


@pytest.mark.parametrize("kind", ["contrast", "pixelate", "zoom_blur", "defocus_blur"])
def test_others_do_the_same_to_each_channel(image, kind):
    four = np.concatenate([image, image[..., :1]], -1)
    np.testing.assert_array_equal(made(kind, 3, four),
                                  made(kind, 3, image)[..., [0, 1, 2, 0]])
