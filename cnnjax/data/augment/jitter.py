"""Colour jitter."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from cnnjax.data.augment import color, packed
from cnnjax.data.augment.rows import for_all_images
from cnnjax.data.augment.together import jitter_together

_CHANGES = (color.adjust_brightness, color.adjust_contrast, color.adjust_saturation,
            color.adjust_hue)


def color_jitter(key: jax.Array, images: jax.Array, brightness: float = 0.0, contrast: float = 0.0,
                 saturation: float = 0.0, hue: float = 0.0, mesh: Mesh | None = None) -> jax.Array:
    """Changes brightness, contrast, saturation and hue of each image, in a random order.

    As in torchvision's ColorJitter (arXiv 1312.5402): factors uniform in max(0, 1 - s)..1 + s, the
    turn of the hue uniform in -s..s of the circle.

    Args:
      key: of this step.
      images: uint8 [B, H, W, C], C = 1 or 3.
      brightness: strength s; 0 is off, as for the others.
      contrast: likewise.
      saturation: likewise.
      hue: likewise, at most 0.5.
      mesh: of `for_all_images`.

    Returns:
      uint8 [B, H, W, C].
    """
    strengths = jnp.array([brightness, contrast, saturation, hue], jnp.float32)
    low = jnp.maximum(1 - strengths, 0).at[3].set(-hue)
    high = (1 + strengths).at[3].set(hue)
    shape = (images.shape[0], len(_CHANGES))
    factors = low + jax.random.uniform(jax.random.fold_in(key, 0), shape) * (high - low)
    order = jnp.argsort(jax.random.uniform(jax.random.fold_in(key, 1), shape), axis=1)
    wanted = [strength > 0 for strength in (brightness, contrast, saturation, hue)]
    return apply_jitter(images, factors, order, wanted, mesh)


def apply_jitter(images: jax.Array, factors: jax.Array, order: jax.Array,
                 wanted: list[bool], mesh: Mesh | None = None) -> jax.Array:
    """Applies drawn changes: factors and order [B, 4], each row of order a permutation of 0..3."""
    def change(which, wanted):
        return (lambda image, factors: which[1](image, factors[which[0]])) if wanted else (
            lambda image, factors: image)

    branches = [change(which, on) for which, on in zip(enumerate(_CHANGES), wanted, strict=True)]

    def jitter(image, factors, order):
        for i in range(len(branches)):
            image = jax.lax.switch(order[i], branches, image, factors)
        return image

    def together(images, factors, order):
        channels = images.shape[-1]
        pixels = jitter_together(packed.pack(images), channels, factors, order, wanted)
        return packed.unpack(pixels, channels)

    if not any(wanted):
        return images
    return for_all_images(jitter, together, images, factors, order, mesh=mesh)
