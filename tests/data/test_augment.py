import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.data import augment

IMAGES = np.random.default_rng(0).integers(0, 256, (64, 9, 7, 3), np.uint8)


def test_normalize():
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    out = augment.normalize(jnp.asarray(IMAGES), mean, std)
    np.testing.assert_allclose(out, (IMAGES / 255 - mean) / std, atol=1e-6)
    assert augment.normalize(jnp.asarray(IMAGES), mean, std, jnp.bfloat16).dtype == jnp.bfloat16


def test_resize_to_the_same_size_does_nothing():
    images = jnp.asarray(IMAGES)
    assert augment.resize(images, (9, 7)) is images


@pytest.mark.parametrize(("method", "code"), [("bilinear", 2), ("bicubic", 3)])
@pytest.mark.parametrize("size", [(5, 4), (20, 14), (9, 14)])
def test_resize_is_that_of_pillow(method, code, size):
    from PIL import Image
    images = IMAGES[:4] // 2 + 64  # Pillow clips to 0..255 between its two passes too.
    ours = np.asarray(augment.resize(jnp.asarray(images), size, method))
    assert ours.dtype == np.uint8
    theirs = np.stack([Image.fromarray(i).resize(size[::-1], code) for i in images])
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    floats = augment.resize(jnp.asarray(images, jnp.float32), size, method)
    assert np.abs(floats - ours).max() <= 0.501


def test_resize_keeps_to_the_range_of_integers():
    step = jnp.zeros((1, 8, 8, 1), jnp.uint8).at[:, :, 4:].set(255)
    out = np.asarray(augment.resize(step, (8, 16), "bicubic"))
    assert out[..., :7, :].max() == 0 and out[..., 9:, :].min() == 255  # Nothing wraps around.


def test_flip_mirrors_half_of_the_images():
    out = np.asarray(augment.random_flip(jax.random.key(0), jnp.asarray(IMAGES)))
    flipped = (out == IMAGES[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (flipped | (out == IMAGES).all(axis=(1, 2, 3))).all()
    assert 16 < flipped.sum() < 48


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_pad_crop_shifts_each_image_by_its_own_amount(dtype):
    p, (h, w) = 3, IMAGES.shape[1:3]
    images = IMAGES.astype(dtype)
    out = np.asarray(augment.random_pad_crop(jax.random.key(0), jnp.asarray(images), p))
    assert (out.shape, out.dtype) == (images.shape, dtype)
    padded = np.pad(images, ((0, 0), (p, p), (p, p), (0, 0)))
    found = [[(y, x) for y in range(2 * p + 1) for x in range(2 * p + 1)
              if (padded[i, y:y + h, x:x + w] == out[i]).all()] for i in range(len(out))]
    assert all(len(shifts) == 1 for shifts in found)
    shifts = np.array(found)[:, 0]
    assert shifts.min() == 0 and shifts.max() == 2 * p  # Both ends are reached.
    assert len({tuple(s) for s in shifts}) > 25
    assert augment.random_pad_crop(jax.random.key(0), out, 0) is out


def test_what_is_random_is_a_function_of_the_key():
    images = jnp.asarray(IMAGES)
    for function in (augment.random_flip, lambda k, x: augment.random_pad_crop(k, x, 2)):
        first = function(jax.random.key(0), images)
        assert (first == jax.jit(function)(jax.random.key(0), images)).all()
        assert (first != function(jax.random.key(1), images)).any()
