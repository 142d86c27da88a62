"""A SiLU that remembers its input alone.

    y = x s,    dx = dy s (1 + x (1 - s)),    s = 1 / (1 + exp(-x))

(Elfwing et al., arXiv 1702.03118, eq. 5). JAX's own remembers s beside x: of EfficientNet-B0's
training step a sixth of the memory. Here the backward pass computes s again, as e / (1 + e) with
e = exp(x). In the form of the forward pass XLA would find it equal to that one's, and keep it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cnnjax.ops import switch
from cnnjax.ops.precision import widened


def silu(x: jax.Array) -> jax.Array:
    """Returns x times its logistic function, in x's dtype."""
    tuned = switch.tuned_for("cpu", name="silu", operands=[x])
    return _shared(x) if tuned else jax.nn.silu(x)


@jax.custom_vjp
def _silu(x):
    return jax.nn.silu(x)


def _forward(x):
    return jax.nn.silu(x), x


def _backward(x, dy):
    dtype = x.dtype
    # Beyond 40 s is 1, and the slope with it; exp would overflow.
    x = jnp.minimum(widened(x), 40)
    e = jnp.exp(x)
    rest = 1 / (1 + e)  # 1 - s
    return ((dy * (e * rest) * (1 + x * rest)).astype(dtype),)


_silu.defvjp(_forward, _backward)
_shared = jax.jit(_silu)  # Layers of one shape share a trace.
