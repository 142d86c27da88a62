"""Pictures: what is in them, and that files are written."""

import jax
import matplotlib.image
import numpy as np
import pytest

import cnnjax
from cnnjax.analysis import pictures
from cnnjax.types import UserError

MODEL = cnnjax.create_model("simple_cnn", 10, widths=(4, 6))
IMAGES = np.random.default_rng(0).normal(size=(5, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def variables():
    return jax.tree.map(np.asarray, jax.jit(MODEL.init)(jax.random.key(0), IMAGES))


def test_the_first_kernel_is_the_one_that_sees_pixels(variables):
    np.testing.assert_array_equal(pictures.first_kernel(MODEL, variables, IMAGES.shape),
                                  variables["params"]["conv1"]["kernel"])
    resnet = cnnjax.create_model("resnet18", 10)
    found = {"params": {"stem_conv": {"kernel": np.ones((7, 7, 3, 64))}}}
    assert pictures.first_kernel(resnet, found, (1, 64, 64, 3)).shape == (7, 7, 3, 64)


def test_filters_are_laid_out_row_by_row_with_grey_for_zero():
    kernel = np.zeros((2, 2, 3, 5), np.float32)
    kernel[0, 1, 2, 4] = -3
    grid = pictures.filter_grid(kernel, columns=3, gap=1)
    assert grid.shape == (7, 10, 3)
    assert (grid[0] == 1).all() and (grid[:, 3] == 1).all()
    # The fifth filter is the second of the second row; its blue weight is the most negative.
    np.testing.assert_array_equal(grid[4, 5], [0.5, 0.5, 0])
    assert (grid[1:3, 1:3] == 0.5).all()
    assert pictures.filter_grid(np.ones((3, 3, 1, 2))).shape == (5, 9, 3)
    with pytest.raises(UserError, match="these have 4"):
        pictures.filter_grid(np.ones((3, 3, 4, 2)))


def test_the_strongest_patches_are_the_fields_of_the_largest_values(variables):
    images = np.zeros((3, 16, 16, 3), np.float32)
    images[1, 7, 9] = 5
    images[2, 0, 0] = 9
    kernel = np.zeros((3, 3, 3, 4), np.float32)
    kernel[1, 1, 0, 2] = 1  # Channel 2 of the first layer is the red of its middle pixel.
    params = {**variables["params"], "conv1": {"kernel": kernel, "bias": np.zeros(4, np.float32)}}
    found = pictures.strongest_patches(MODEL, {**variables, "params": params}, images, "conv1", 2,
                                       count=2)
    assert [(p.image, p.position) for p in found] == [(2, (0, 0)), (1, (7, 9))]
    assert found[1].pixels.shape == (3, 3, 3)
    assert found[1].pixels[1, 1, 0] == 5 and np.count_nonzero(found[1].pixels) == 3
    # At the corner the field goes beyond the image.
    assert found[0].pixels[1, 1, 0] == 9 and (found[0].pixels[0] == 0).all()
    wide = pictures.strongest_patches(MODEL, variables, IMAGES, "stage1", 0)
    assert len(wide) == 5 and wide[0].pixels.shape == (4, 4, 3)
    assert [p.value for p in wide] == sorted((p.value for p in wide), reverse=True)


def test_a_missing_channel_and_what_is_no_map_are_user_errors(variables):
    with pytest.raises(UserError, match="channels 0 to 3, not 4"):
        pictures.strongest_patches(MODEL, variables, IMAGES, "stage1", 4)
    with pytest.raises(UserError, match="'features' is no map"):
        pictures.strongest_patches(MODEL, variables, IMAGES, "features", 0)
    with pytest.raises(UserError, match="Did you mean"):
        pictures.strongest_patches(MODEL, variables, IMAGES, "stag1", 0)


def test_pictures_are_written(variables, tmp_path):
    kernel = variables["params"]["conv1"]["kernel"]
    pictures.plot_filters(kernel, tmp_path / "filters.png")
    pictures.plot_feature_maps(MODEL, variables, IMAGES[0], tmp_path / "maps.png", channels=4,
                               title="simple_cnn")
    for name in ("filters", "maps"):
        assert matplotlib.image.imread(tmp_path / f"{name}.png")[..., :3].std() > 0.05


def test_feature_maps_of_an_image_of_four_channels_are_written(tmp_path):
    image = np.random.default_rng(0).random((16, 16, 4), np.float32)
    variables = jax.jit(MODEL.init)(jax.random.key(0), image[None])
    pictures.plot_feature_maps(MODEL, variables, image, tmp_path / "maps.png", channels=2)
    assert matplotlib.image.imread(tmp_path / "maps.png")[..., :3].std() > 0.05
