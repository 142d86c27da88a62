"""The ReLU at the end of a residual block, on a CPU."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import ops


def test_it_is_the_definition_with_derivatives_to_any_order():
    def both(f, x):
        slope = jax.grad(lambda x: jnp.sum(f(x) ** 3 + f(x)))
        return f(x), slope(x), jax.grad(lambda x: jnp.sum(slope(x) ** 2))(x)

    with jax.enable_x64(True):
        x = np.array([-2.0, -0.0, 0.0, 1e-300, 3.0, -np.inf])
        for ours, theirs in zip(both(ops.relu, x), both(jax.nn.relu, x), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert np.isnan(ops.relu(np.float32("nan")))
    assert ops.relu(jnp.ones(3, jnp.bfloat16)).dtype == jnp.bfloat16


def test_a_block_does_not_compute_the_outputs_of_those_before_it():
    def loss(kernels, x):
        for kernel in kernels:
            x = ops.relu(x + (x.reshape(-1, 16) @ kernel).reshape(x.shape))
        return jnp.sum(x * x)

    def maps_read():
        """Returns the most maps that one operation of the program reads."""
        program = jax.jit(jax.grad(loss)).lower(
            [jnp.ones((16, 16))] * 6, jnp.ones((64, 8, 8, 16))).compile().as_text()
        maps = set(re.findall(r"%(\S+) = f32\[(?:4096,16|64,8,8,16)\]", program))
        reads = re.findall(r" fusion\((.*?)\), kind=", program)
        return max(sum(name.strip(" %") in maps for name in read.split(",")) for read in reads)

    assert maps_read() < 4
    with ops.without("relu"):
        assert maps_read() > 4  # All of them.
