"""The SiLU with a backward pass of its own, against its formula and JAX's derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import ops

X = np.array([-700.0, -30.0, -1.5, -1e-9, 0.0, 1e-9, 0.7, 4.0, 30.0, 700.0])


def test_values_and_derivatives_of_two_orders():
    def orders(x):
        first = jax.grad(lambda x: jnp.sum(jnp.sin(ops.silu(x))))
        return ops.silu(x), first(x), jax.grad(lambda x: jnp.sum(jnp.sin(first(x))))(x)

    with jax.enable_x64(True):
        found = jax.jit(orders)(X)
        with ops.using("xla"):
            expected = jax.jit(orders)(X)
    np.testing.assert_allclose(found[0], X / (1 + np.exp(-X)), rtol=1e-14)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-15)


def test_only_the_input_is_kept_for_the_backward_pass():
    x = jnp.ones((4, 4))
    kept = {}
    for choice in ("auto", "xla"):
        with ops.using(choice):
            _, pullback = jax.vjp(jax.jit(lambda x: ops.silu(x)), x)
        kept[choice] = sum(a.shape == x.shape for a in jax.tree.leaves(pullback))
    assert kept["auto"] == 1 < kept["xla"]


def test_xla_does_not_keep_what_the_forward_pass_computed():
    def loss(x, w):
        for _ in range(4):
            x = ops.silu(x @ w)
        return jnp.sum(x)

    x, w = jnp.ones((4096, 64)), jnp.ones((64, 64))
    temporaries = {}
    for choice in ("auto", "xla"):
        with ops.using(choice):
            compiled = jax.jit(jax.grad(loss, 1)).lower(x, w).compile()
        temporaries[choice] = compiled.memory_analysis().temp_size_in_bytes
    assert temporaries["auto"] < 0.8 * temporaries["xla"]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_dtype_is_kept_and_short_floats_do_not_overflow(dtype):
    x = jnp.asarray([-60.0, 0.0, 20.0, 60.0], dtype)
    y, slope = jax.value_and_grad(lambda x: jnp.sum(ops.silu(x).astype(jnp.float32)))(x)
    assert ops.silu(x).dtype == slope.dtype == dtype and np.isfinite(y)
    np.testing.assert_allclose(slope.astype(np.float32), [0, 0.5, 1, 1], atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_far_out_the_slope_is_0_or_1(dtype):
    slope = jax.vmap(jax.grad(lambda x: ops.silu(x).astype(jnp.float32)))(
        jnp.asarray([-1e4, -100.0, 100.0, 1e4], dtype))
    np.testing.assert_array_equal(slope.astype(jnp.float32), [0, 0, 1, 1])
