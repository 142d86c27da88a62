"""Images whose pixels are one number each, for accelerators.

A uint8 image [H, W, 3] keeps a GPU busy with addresses: where to resample from, or which neighbours
to average, is worked out again for every channel of every pixel, and each load brings one byte. In
a uint32 [H, W] with a channel in each byte it is worked out once and loaded once, and the channels
are planes that exist in registers only.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def pack(images: jax.Array) -> jax.Array:
    """Returns uint32 [...] of uint8 [..., C], C up to 4: the first channel in the lowest byte."""
    return join([images[..., i] for i in range(images.shape[-1])])


def unpack(packed: jax.Array, channels: int) -> jax.Array:
    """Returns uint8 [..., C]."""
    return (packed[..., None] >> (8 * jnp.arange(channels, dtype=jnp.uint32))).astype(jnp.uint8)


def planes(packed: jax.Array, channels: int) -> list[jax.Array]:
    """Returns the channels, uint8 [...] each."""
    return [(packed >> 8 * i).astype(jnp.uint8) for i in range(channels)]


def join(channels: Sequence[jax.Array]) -> jax.Array:
    """Returns uint32 [...] of planes, uint8 [...] each."""
    return sum((plane.astype(jnp.uint32) << 8 * i for i, plane in enumerate(channels)),
               jnp.uint32(0))
