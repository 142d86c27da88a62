"""The original AlexNet against its paper."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.models import create_model
from cnnjax.models.layers import Conv

ENDPOINTS = {"conv1": (55, 96), "stage1": (27, 96), "conv2": (27, 256), "stage2": (13, 256),
             "conv3": (13, 384), "conv4": (13, 384), "conv5": (13, 256), "stage3": (6, 256)}


def test_224_pixels_give_the_papers_maps():
    """Figure 2: 55x55 maps of 48 + 48 kernels, then 27x27 and 13x13; 6x6 after the last pooling."""
    model = create_model("alexnet_original")
    x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    _, found = jax.eval_shape(functools.partial(model.apply, capture=model.endpoints), variables, x)
    assert {name: found[name].shape[2:] for name in ENDPOINTS} == ENDPOINTS


def test_the_first_convolution_sees_the_227_pixels_of_the_papers_arithmetic():
    x = np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype(np.float32)
    variables = jax.jit(Conv(4, 11, 4).init)(jax.random.key(0), x)
    of_224 = Conv(4, 11, 4, padding=2).apply(variables, x)
    of_227 = Conv(4, 11, 4, padding=0).apply(variables, np.pad(x, ((0, 0), (2, 1), (2, 1), (0, 0))))
    assert of_224.shape[1:3] == (55, 55)
    np.testing.assert_allclose(of_224, of_227, atol=1e-5)


def test_parameters_start_as_the_paper_says():
    """Section 5: N(0, 0.01); biases of 1 in layers 2, 4, 5 and the hidden dense ones, else 0."""
    model = create_model("alexnet_original", 10, widths=(8, 16, 16, 16, 16), hidden=64)
    params = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))["params"]
    biases = {name: set(np.unique(layer["bias"])) for name, layer in params.items()}
    assert biases == {name: {1.0} if name in ("conv2", "conv4", "conv5", "fc1", "fc2") else {0.0}
                      for name in params}
    for layer in params.values():
        assert layer["kernel"].mean() == pytest.approx(0, abs=1.5e-3)
        assert layer["kernel"].std() == pytest.approx(0.01, rel=0.15)
