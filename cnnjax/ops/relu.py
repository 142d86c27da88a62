"""A ReLU that remembers its output, which the next convolution keeps anyway.

    y = max(x, 0),        dx = dy where y > 0, else 0

JAX's own remembers x. At the end of a residual block x is the sum of two maps and kept by nobody:
the backward pass adds them up again, one more map to read. The barrier is there because XLA would
rather make y anew from the two as well.

XLA:CPU drops barriers before it fuses, and makes y anew for each of its readers: the next block's
sum reads the maps that y is made of, which are those of all blocks before it in the stage. It
fuses what reads one map into all readers, and what reads several into all or none. max(x, 0) is of
the former kind; "x where not x < 0" is of the latter, and y is written once.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.ops import switch


def relu(x: jax.Array) -> jax.Array:
    """Returns max(x, 0), for the sum at the end of a residual block; its derivative at 0 is 0."""
    tuned = switch.tuned_for("cpu", "gpu", name="relu", operands=[x])
    return _relu(x) if tuned else jax.nn.relu(x)


@jax.custom_vjp
def _relu(x):
    # Of NaN both are NaN.
    return jnp.where(x < 0, 0, x) if jax.default_backend() == "cpu" else jax.nn.relu(x)


def _forward(x):
    y = _relu(x)
    return y, y


def _backward(y, dy):
    return (jnp.where(lax.optimization_barrier(y) > 0, dy, 0),)


_relu.defvjp(_forward, _backward)
