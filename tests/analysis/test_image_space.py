"""The spaces that images are optimised in against Lucent's, and the affine maps against SciPy's."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from cnnjax.analysis import image_space, objectives, wobble
from cnnjax.types import UserError

GOLDEN = np.load(pathlib.Path(__file__).parent / "image_space.npz")


@pytest.mark.parametrize(("name", "channels"), [("fourier", 3), ("pixels", 3), ("grey", 1)])
def test_images_equal_lucents(name, channels):
    given = GOLDEN[f"{name}_coordinates"]
    coordinates = given.transpose(0, 2, 3, 1) if name == "pixels" else np.moveaxis(given, -1, 0)
    basis = image_space.normalised_colors("imagenet", channels)
    found = image_space.rendered(jnp.asarray(coordinates), basis, 10, 12)
    np.testing.assert_allclose(found, GOLDEN[f"{name}_image"], atol=1e-6)


def test_the_likeness_of_textures_equals_lucents():
    maps = GOLDEN["maps"]
    alike = (1 - np.eye(4)) / 3
    # Lucent's is the sum over the others, and the mean over the images.
    assert objectives.likeness(maps, alike).mean() * 3 == pytest.approx(
        abs(GOLDEN["diversity"]), rel=1e-5)


def coordinates_of(images, basis, parameterisation):
    """The inverse of `rendered`: coordinates of images (N, H, W, C) in (0, 1)."""
    logits = np.log(images / (1 - images)) @ np.linalg.inv(np.asarray(basis, np.float64)).T
    if parameterisation == "pixels":
        return jnp.asarray(logits, jnp.float32)
    spectrum = np.fft.rfft2(logits.transpose(0, 3, 1, 2), norm="ortho")
    spectrum *= image_space.DAMPING / image_space.fourier_scale(*images.shape[1:3])
    return jnp.asarray(np.stack([spectrum.real, spectrum.imag]), jnp.float32)


@pytest.mark.parametrize("parameterisation", image_space.PARAMETERISATIONS)
@pytest.mark.parametrize("size", [(8, 9), (7, 6)])
def test_an_image_has_coordinates_and_they_have_the_image(parameterisation, size):
    images = np.random.default_rng(0).uniform(0.1, 0.9, (2, *size, 3))
    basis = image_space.normalised_colors("imagenet", 3)
    coordinates = coordinates_of(images, basis, parameterisation)
    like = image_space.start(jax.random.key(0), 2, *size, 3, parameterisation)
    assert coordinates.shape == like.shape
    np.testing.assert_allclose(image_space.rendered(coordinates, basis, *size), images, atol=1e-5)


def test_the_colours_of_a_data_set_are_a_root_of_their_covariance():
    images = np.random.default_rng(0).uniform(size=(2, 5, 6, 3)) @ np.array(
        [[1, 0.5, 0.2], [0, 1, 0.5], [0, 0, 0.3]])
    basis = image_space.color_basis(images)
    np.testing.assert_allclose(basis @ basis.T, np.cov(images.reshape(-1, 3).T))
    assert np.linalg.norm(image_space.normalised_colors(basis, 3), axis=0).max() == pytest.approx(1)
    assert image_space.color_basis(images[..., :1]).shape == (1, 1)
    with pytest.raises(UserError, match=r"\(N, H, W, C\)"):
        image_space.color_basis(images[0])


@pytest.mark.parametrize(("matrix", "offset", "pad", "atol"), [
    (np.eye(2), (2, -3), 0, 1e-5), (np.eye(2), (1.5, 0.25), 2, 1e-5),
    (np.diag([0.9, 1.1]), (0.3, 0.7), 0, 1e-5),
    # Two passes round a corner otherwise than one does: a smooth image tells no difference.
    ([[np.cos(0.17), -np.sin(0.17)], [np.sin(0.17), np.cos(0.17)]], (1.2, -0.6), 3, 0.02)])
def test_an_affine_map_is_scipys(matrix, offset, pad, atol):
    height, width = 24, 30
    y, x = np.mgrid[:height, :width]
    # Zero at the border, where SciPy's linear interpolation ends at the last pixel.
    image = np.sin(np.pi * y / (height - 1)) * np.sin(np.pi * x / (width - 1)) * np.cos(x / 4)
    image = np.where((y % (height - 1) == 0) | (x % (width - 1) == 0), 0, image)
    centre = (np.array([height, width]) - 1) / 2
    shift = centre + offset - matrix @ (centre + pad)
    expected = scipy.ndimage.affine_transform(
        image, matrix, shift, (height + 2 * pad, width + 2 * pad), order=1)
    found = wobble.moved(jnp.asarray(image[None, ..., None]), jnp.asarray(matrix),
                         jnp.asarray(offset, jnp.float32), pad)
    np.testing.assert_allclose(found[0, ..., 0], expected, atol=atol)


def test_what_is_drawn_stays_in_its_range_and_fills_it():
    draw = jax.vmap(lambda n: wobble.drawn(jax.random.fold_in(jax.random.key(0), n),
                                           wobble.Transforms(4, 0.2, 30)))
    matrices, offsets = (np.asarray(found) for found in draw(jnp.arange(500)))
    scale = 1 / np.sqrt(np.linalg.det(matrices))
    angle = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    for values, low, high in ((offsets, -4, 4), (scale, 1 / 1.2, 1.2), (angle, -30, 30)):
        assert low <= values.min() < low + 0.05 * (high - low)
        assert high >= values.max() > high - 0.05 * (high - low)
