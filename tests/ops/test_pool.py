"""Pooling against lax.reduce_window and its derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import ops
from cnnjax.types import UserError

SHAPES = [
    # map, window, stride, padding
    ((15, 12), 3, 2, 1),
    ((14, 15), 2, 2, 0),
    ((13, 9), 3, 2, 0),
    ((5, 6), 3, 1, 1),
    ((7, 7), (2, 3), (3, 2), ((0, 1), (1, 2))),
    ((6, 7), 3, 2, "SAME"),
    ((2, 2), 2, None, 0),
    ((1, 1), 3, 2, 1),
    ((9, 8), 2, 3, 0),
    ((8, 9), 4, None, 0),
    ((13, 12), 6, None, 0),
]


def compare(pool, *inputs):
    """Under "auto" and "xla": the values, and the derivative of a smooth function of them."""
    weight = np.cos(np.arange(np.prod(jax.eval_shape(pool, inputs[0]).shape)))

    def loss(x):
        y = pool(x)
        return jnp.sum(y * weight.reshape(y.shape)), y

    gradient = jax.jit(jax.grad(loss, has_aux=True))
    for x in inputs:
        with ops.using("xla"):
            expected = gradient(x)
        for ours, theirs in zip(gradient(x), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-14)


@pytest.mark.parametrize("size,window,stride,padding", SHAPES)
def test_max_pool_and_its_derivative_agree_with_xla_also_where_pixels_are_equal(
        size, window, stride, padding):
    rng = np.random.default_rng(0)
    distinct = rng.standard_normal((2, *size, 5))
    # Few levels, as after a ReLU: most windows have ties, which select-and-scatter resolves.
    tied = rng.integers(-1, 2, (2, *size, 5)).astype(np.float64)
    with jax.enable_x64(True):
        compare(lambda x: ops.max_pool(x, window, stride, padding), distinct, tied)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("size,window,stride,padding", SHAPES)
def test_avg_pool_agrees_with_reduce_window_and_its_derivative(size, window, stride, padding,
                                                               include):
    with jax.enable_x64(True):
        x = np.random.default_rng(0).standard_normal((2, *size, 5))
        compare(lambda x: ops.avg_pool(x, window, stride, padding, include), x)


@pytest.mark.parametrize("choice", ["auto", "xla"])
def test_avg_pool_counts_padding_only_when_told_to(choice):
    x = jnp.ones((1, 3, 3, 1))
    with ops.using(choice):
        counted = ops.avg_pool(x, 2, 2, 1)
        seen = ops.avg_pool(x, 2, 2, 1, count_include_pad=False)
    np.testing.assert_allclose(counted[0, :, :, 0], [[0.25, 0.5], [0.5, 1]])
    np.testing.assert_allclose(seen, np.ones((1, 2, 2, 1)))


@pytest.mark.parametrize("choice", ["auto", "xla"])
@pytest.mark.parametrize("pool", [ops.max_pool, ops.avg_pool])
def test_pools_keep_bfloat16(pool, choice):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 8, 8, 3)), jnp.bfloat16)
    with ops.using(choice):
        y = pool(x, 2)
        wide = pool(x.astype(jnp.float32), 2)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(np.float32), wide, rtol=2 ** -8)


@pytest.mark.parametrize("pool", [ops.max_pool, ops.avg_pool])
def test_pools_under_vmap(pool):
    x = np.random.default_rng(0).standard_normal((3, 2, 7, 7, 4)).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(pool(x, 3, 2, 1)))))
    looped = np.stack([gradient(part) for part in x])
    np.testing.assert_allclose(jax.jit(jax.vmap(gradient))(x), looped, atol=1e-6)


def test_a_window_larger_than_25_pixels_still_pools():
    x = np.random.default_rng(0).standard_normal((1, 12, 12, 2)).astype(np.float32)
    np.testing.assert_array_equal(ops.max_pool(x, 12)[:, 0, 0], x.max((1, 2)))


@pytest.mark.parametrize("arguments,message", [
    (dict(window=3), "a 3x3 window does not fit a 2x2 map"),
    (dict(window=2, padding=2), "see padding alone"),
    (dict(window=(2, 2, 2)), "window must be a positive integer or two of them"),
])
@pytest.mark.parametrize("pool", [ops.max_pool, ops.avg_pool])
def test_a_mistake_is_a_user_error_that_says_which(pool, arguments, message):
    with pytest.raises(UserError, match=message):
        pool(jnp.ones((1, 2, 2, 3)), **arguments)
