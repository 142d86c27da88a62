"""What is chosen on a GPU, computed here: against the plain definitions, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import ops
from cnnjax.ops import depthwise_gpu, triton

UNEVEN = ((0, 2), (1, 0))


@pytest.fixture(autouse=True)
def chosen_as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(triton, "runs_here", lambda: True)
    monkeypatch.setattr(jax, "devices", lambda: [None])
    monkeypatch.setattr(depthwise_gpu, "_compiled", lambda ours, theirs, x, kernel, g, tiles: ours(
        x, kernel, g, tiles, interpret=True))


def compare(function, *arguments, order=1):
    """Values and derivatives of a function under "auto" and "xla"."""
    def loss(*arguments):
        leaves = jax.tree.leaves(function(*arguments))
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in leaves), leaves

    def slope(*arguments):
        grads, leaves = jax.grad(loss, range(len(arguments)), has_aux=True)(*arguments)
        return sum(jnp.sum(jnp.sin(g)) for g in grads), (grads, leaves)

    found = {}
    for choice in ("auto", "xla"):
        with ops.using(choice):
            result = jax.jit(slope if order == 1 else jax.grad(
                slope, range(len(arguments)), has_aux=True))(*arguments)
            found[choice] = jax.tree.leaves(result)
    for ours, theirs in zip(found["auto"], found["xla"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * max(1, np.abs(theirs).max()))


CONVOLUTIONS = [
    # formulation, map, kernel, stride, padding, in channels, out channels, groups
    ("space_to_depth", (14, 12), (7, 7), 2, 3, 3, 5, 1),
    ("space_to_depth", (15, 13), (7, 7), 2, 3, 3, 5, 1),
    ("space_to_depth", (15, 17), (3, 3), 2, "SAME", 3, 4, 1),
    ("space_to_depth", (23, 25), (11, 11), 4, 2, 3, 4, 1),
    ("space_to_depth", (9, 8), (2, 3), 2, UNEVEN, 1, 4, 1),
    ("space_to_depth", (9, 10), (2, 2), 3, "VALID", 4, 4, 1),
    ("depthwise_gpu", (5, 4), (3, 3), 1, 1, 8, 8, 8),
    ("depthwise_gpu", (5, 6), (3, 3), 2, 1, 8, 8, 8),
    ("xla", (9, 8), (3, 3), 1, 1, 6, 6, 6),
    ("xla", (9, 8), (3, 3), 1, 1, 8, 16, 8),
    ("xla", (9, 8), (1, 1), 1, 0, 8, 8, 1),
]


@pytest.mark.parametrize("order", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name,size,window,stride,padding,channels,features,groups", CONVOLUTIONS)
def test_convolutions(name, size, window, stride, padding, channels, features, groups, order):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = rng.standard_normal((2, *size, channels))
        kernel = rng.standard_normal((*window, channels // groups, features))
        assert ops.formulation(x, kernel, stride, padding, groups) == name
        compare(lambda x, k: ops.conv2d(x, k, stride, padding, groups), x, kernel, order=order)


@pytest.mark.parametrize("size,window,stride,padding", [
    ((14, 12), 3, 2, 1), ((15, 13), 3, 2, 1), ((13, 9), 3, 2, 0), ((14, 15), 2, 2, 0),
    ((7, 7), (2, 3), (3, 2), ((0, 1), (1, 2))), ((6, 7), 3, 2, "SAME"), ((9, 8), 2, 3, 0)])
def test_max_pool_also_where_pixels_are_equal(size, window, stride, padding):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        for x in (rng.standard_normal((2, *size, 5)),
                  rng.integers(-1, 2, (2, *size, 5)).astype(np.float64)):
            compare(lambda x: ops.max_pool(x, window, stride, padding), x)


def test_relu_is_the_definition_with_derivative_0_at_0():
    with jax.enable_x64(True):
        x = np.array([-2.0, -0.0, 0.0, 1e-300, 3.0, np.inf])
        compare(lambda x: ops.relu(x[:5]), x)
        assert np.isnan(ops.relu(np.float64("nan")))
