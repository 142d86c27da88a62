"""SiLU (swish), with the reciprocal of the sigmoid taken from two instructions.

    silu(x) = x s,        s = 1 / (1 + exp(-x)) = r^2,        r = (1 + 2^(-x log2(e)))^(-1/2)

    silu'(x) = s + x s',    s' = s (1 - s)

(Ramachandran et al., arXiv 1710.05941.) A correctly rounded division is a dozen instructions and a
branch on a GPU, where the power of two and the reciprocal square root are one each, right to two
units in the last place. With the division the passes over EfficientNet's maps wait for arithmetic,
not for memory.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.ops import switch


def silu(x: jax.Array) -> jax.Array:
    """Returns x sigmoid(x), elementwise, in x's dtype; computed in float32 at least."""
    if not switch.tuned_for("gpu"):
        return jax.nn.silu(x)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (wide * _sigmoid(wide)).astype(x.dtype)


@jax.custom_jvp
def _sigmoid(x):
    return jnp.square(lax.rsqrt(1 + lax.exp2(x * -math.log2(math.e))))


@_sigmoid.defjvp
def _slope(primals, tangents):
    s = _sigmoid(*primals)
    return s, s * (1 - s) * tangents[0]
