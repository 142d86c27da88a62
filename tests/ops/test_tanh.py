"""The tanh of two polynomials, against numpy's in float64 and JAX's derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import ops

X = np.concatenate([np.linspace(-12, 12, 40_001), np.logspace(-37, 2, 2_000),
                    [0.0, np.inf, -np.inf]]).astype(np.float32)


@pytest.fixture
def fast():
    with ops.using("fast"):
        yield


def test_it_differs_from_the_definition_by_a_few_roundings(fast):
    y, exact = np.asarray(jax.jit(ops.tanh)(X)), np.tanh(X.astype(np.float64))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, exact, rtol=3.5e-7)
    assert np.abs(y).max() <= 1 and np.isnan(ops.tanh(jnp.float32(jnp.nan)))


def test_derivatives_of_two_orders(fast):
    def second(x):
        return jax.grad(lambda x: jnp.sum(jnp.sin(jax.grad(lambda x: jnp.sum(ops.tanh(x)))(x))))(x)

    x = X[np.abs(X) < 8]
    y = np.tanh(x.astype(np.float64))
    slope = 1 - y * y
    np.testing.assert_allclose(jax.grad(lambda x: jnp.sum(ops.tanh(x)))(x), slope, atol=8e-7)
    np.testing.assert_allclose(second(x), np.cos(slope) * -2 * y * slope, atol=3e-6)


def test_it_is_for_training_in_float32(monkeypatch):
    def name(x):
        return str(jax.make_jaxpr(ops.tanh)(x))

    x = jnp.ones(3)
    assert " tanh " in name(x)
    with ops.training():
        assert " tanh " not in name(x)
        assert " tanh " in name(x.astype(jnp.bfloat16))
        with ops.without("tanh"):
            assert " tanh " in name(x)
