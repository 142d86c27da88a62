"""Attributions of a published net on real images against Captum's."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published_case import CLASSES, IMAGES, MEAN, STD, STEPS

import cnnjax
from cnnjax.analysis import attribution

GOLDEN = np.load(pathlib.Path(__file__).parent / "published_attribution.npz")
TARGET = np.array(CLASSES)


def opened(shared_data, dtype):
    """(module, variables, normalised images)."""
    folder = shared_data / "cifar10_resnet20"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    module, variables, preprocess = cnnjax.load_weights(
        "resnet20_cifar", folder / "resnet20-12fca82f.th", dtype=dtype)
    if dtype == "float64":
        variables = jax.tree.map(lambda a: a.astype(dtype), variables)
    assert np.allclose(preprocess.mean, MEAN) and np.allclose(preprocess.std, STD)
    images = np.load(folder / "test_1017.npz")["images"][list(IMAGES)]
    return module, variables, jnp.asarray((images / 255 - MEAN) / STD, dtype)


@pytest.fixture(scope="module")
def resnet20(shared_data):
    return opened(shared_data, "float32")


def check(found, name):
    expected = GOLDEN[name]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_the_published_net_gives_the_logits_of_its_torch_twin(resnet20):
    module, variables, images = resnet20
    check(module.apply(variables, images), "logits")


def test_saliency_of_the_published_net_equals_captums(resnet20):
    check(attribution.saliency(*resnet20, TARGET), "saliency")


@pytest.mark.parametrize("stage", ["stage2", "stage3"])
def test_grad_cam_of_the_published_net_equals_captums(resnet20, stage):
    check(attribution.grad_cam(*resnet20, stage, TARGET)[..., None], f"grad_cam_{stage}")


@pytest.mark.slow
def test_integrated_gradients_of_the_published_net_equal_captums(shared_data):
    # In float64, as Captum's: on the line from the baseline many ReLUs are near their corners.
    with jax.enable_x64(True):
        found = attribution.integrated_gradients(*opened(shared_data, "float64"), TARGET,
                                                 steps=STEPS)
    check(found.values, "integrated")


@pytest.mark.slow
def test_integrated_gradients_of_the_published_net_are_complete_within_a_percent(resnet20):
    found = attribution.integrated_gradients(*resnet20, TARGET, steps=512)
    assert found.completeness_error.max() < 0.01
