"""Sums over all but the channels, against float64."""

import jax
import numpy as np
import pytest

from cnnjax.ops.sums import channel_sums


@pytest.mark.parametrize("height", [1, 2, 7, 9, 17, 56, 149])
@pytest.mark.parametrize("rows", [8, 16])
def test_sums_are_those_of_float64(height, rows):
    x = np.random.default_rng(height).standard_normal((3, height, 5, 4)).astype(np.float32)
    first, second = jax.jit(lambda x: channel_sums((x, x * x), rows))(x)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(first, wide.sum((0, 1, 2)), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(second, (wide * wide).sum((0, 1, 2)), rtol=1e-5)


def test_gradient_of_a_sum_is_one_everywhere():
    x = np.random.default_rng(0).standard_normal((2, 19, 3, 4)).astype(np.float32)
    weights = np.arange(4, dtype=np.float32)
    gradient = jax.jit(jax.grad(lambda x: (weights * channel_sums((x, 2 * x), 8)[1]).sum()))(x)
    np.testing.assert_array_equal(gradient, np.broadcast_to(2 * weights, x.shape))
