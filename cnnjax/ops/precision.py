"""The type of sums: float32 at least, whatever the type of what is added."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def sum_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """Returns the type that values of this type are added in: float32, or a wider one itself."""
    return jnp.promote_types(dtype, jnp.float32)


def widened(x: jax.Array) -> jax.Array:
    """Returns an array in the type that its values are added in."""
    return x.astype(sum_dtype(x.dtype))
