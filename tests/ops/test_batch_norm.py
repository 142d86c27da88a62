"""The fused batch normalisation against the definition, differentiated by JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import ops

EPSILON = 1e-5


def inputs(dtype=np.float64, offset=1.0):
    rng = np.random.default_rng(0)
    x = (2 * rng.standard_normal((4, 5, 3, 6)) + offset).astype(dtype)
    return x, *(rng.standard_normal(6).astype(dtype) for _ in range(3))


def test_output_statistics_and_every_derivative_agree_with_the_definition():
    def loss(x, scale, bias, shift):
        y, mean, var = ops.batch_norm(x, scale, bias, shift, EPSILON)
        return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.cos(mean)) + jnp.sum(mean * var), (y, mean, var)

    results = {}
    with jax.enable_x64(True):
        for choice in ("auto", "xla"):
            with ops.using(choice):
                results[choice] = jax.tree.leaves(
                    jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(*inputs()))
    for ours, theirs in zip(results["auto"], results["xla"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 30.0, 3000.0])
def test_the_variance_survives_a_large_mean_once_the_running_mean_is_near(offset):
    x, scale, bias, _ = inputs(np.float32, offset)
    shift = np.full(6, 0.99 * offset, np.float32)
    _, mean, var = ops.batch_norm(x, scale, bias, shift, EPSILON)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(var, exact.var((0, 1, 2)), rtol=1e-3)


@pytest.mark.parametrize(("offset", "tolerance"), [(0.0, 2e-6), (30.0, 1e-5), (3000.0, 1e-3)])
def test_gradients_at_a_large_mean_are_as_exact_as_the_input(offset, tolerance):
    """x is stored with a relative error of 6e-8, which is 1e-4 of its deviation at 3000."""
    x, scale, bias, _ = inputs(np.float32, offset)
    shift = np.full(6, offset, np.float32)
    dy = np.random.default_rng(1).standard_normal(x.shape)

    def loss(x, scale, bias):
        return jnp.sum(ops.batch_norm(x, scale, bias, shift.astype(x.dtype), EPSILON)[0] * dy)

    found = jax.grad(loss, (0, 1, 2))(x, scale, bias)
    with jax.enable_x64(True), ops.using("xla"):
        exact = jax.grad(loss, (0, 1, 2))(*(a.astype(np.float64) for a in (x, scale, bias)))
    for ours, theirs in zip(found, exact, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


@pytest.mark.parametrize(("offset", "tolerance"), [(1.0, 1e-5), (30.0, 1e-4)])
def test_sums_over_many_values_keep_their_digits_where_all_slopes_have_one_sign(offset, tolerance):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((64, 56, 56, 2)) + offset).astype(np.float32)
    dy = (rng.standard_normal(x.shape) + 1 + 0.1 * (x - offset)).astype(np.float32)
    ones = np.ones(2, np.float32)

    def loss(x, scale):
        return jnp.vdot(ops.batch_norm(x, scale, scale, (offset * scale), EPSILON)[0], dy)

    dx, dscale = jax.jit(jax.grad(loss, (0, 1)))(x, ones)
    wide, slope = x.astype(np.float64), dy.astype(np.float64)
    axes, deviation = (0, 1, 2), np.sqrt(wide.var((0, 1, 2)) + EPSILON)
    normal = (wide - wide.mean(axes)) / deviation
    exact = (slope * normal).sum(axes)
    # The bias is the same array, and its gradient the sum of slopes.
    np.testing.assert_allclose(dscale - slope.sum(axes), exact, rtol=0, atol=tolerance * x.size / 2)
    expected = (slope - slope.mean(axes) - normal * (slope * normal).mean(axes)) / deviation
    np.testing.assert_allclose(dx, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_a_constant_channel_gives_the_bias_never_nan():
    x = np.full((8, 3, 3, 2), 1000.1, np.float32)
    ones, zeros = np.ones(2, np.float32), np.zeros(2, np.float32)
    y, _, var = ops.batch_norm(x, ones, zeros + 7, zeros, EPSILON)
    assert (np.asarray(var) >= 0).all()
    assert np.isfinite(y).all()
    x = np.full((8, 3, 3, 2), 2.0, np.float32)
    np.testing.assert_array_equal(ops.batch_norm(x, ones, zeros + 7, zeros, EPSILON)[0], 7 + 0 * x)


@pytest.mark.parametrize("choice", ["auto", "xla"])
def test_bfloat16_is_normalised_with_float32_statistics(choice):
    x, scale, bias, shift = inputs(np.float32)
    x = jnp.asarray(x, jnp.bfloat16)
    with ops.using(choice):
        y, mean, var = jax.jit(ops.batch_norm, static_argnums=4)(x, scale, bias, shift, EPSILON)
        dx = jax.eval_shape(jax.grad(
            lambda x: ops.batch_norm(x, scale, bias, shift, EPSILON)[0].sum().astype(float)), x)
    assert (y.dtype, mean.dtype, var.dtype, dx.dtype) == (
        jnp.bfloat16, jnp.float32, jnp.float32, jnp.bfloat16)
    np.testing.assert_allclose(mean, np.asarray(x, np.float64).mean((0, 1, 2)), rtol=1e-5)
