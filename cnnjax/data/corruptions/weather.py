"""Weather, as functions of one image: (key, float [H, W, C] in [0, 1], …) -> likewise."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cnnjax.data.corruptions import linear
from cnnjax.data.corruptions.blur import along_line

_GREY = (0.299, 0.587, 0.114)


def snow(key: jax.Array, image: jax.Array, mean: float, std: float, zoom: float, threshold: float,
         radius: int, sigma: float, share: float) -> jax.Array:
    """Lightens the image and lets flakes fall: noise, enlarged, cut off and blurred downwards."""
    height, width, channels = image.shape
    flakes = mean + std * jax.random.normal(jax.random.fold_in(key, 0), (height, width, 1))
    flakes = linear.apply(*(linear.clipped_zoom(n, zoom) for n in (height, width)), flakes)
    flakes = jnp.floor(jnp.clip(jnp.where(flakes < threshold, 0, flakes), 0, 1) * 255) / 255
    angle = jax.random.uniform(jax.random.fold_in(key, 1), minval=-135, maxval=-45)
    flakes = along_line(flakes, radius, sigma, angle)
    grey = image if channels == 1 else (image @ jnp.asarray(_GREY))[..., None]
    whitened = jnp.maximum(image, grey * 1.5 + 0.5)
    return share * image + (1 - share) * whitened + flakes + flakes[::-1, ::-1]


def fog(key: jax.Array, image: jax.Array, thickness: float, roughness: float) -> jax.Array:
    """Adds a plasma fractal, and scales what comes of it to the image's range."""
    height, width = image.shape[:2]
    side = 1 << (max(height, width) - 1).bit_length()
    most = image.max()
    clouds = plasma_fractal(key, side, roughness)[:height, :width, None]
    return (image + thickness * clouds) * most / (most + thickness)


def plasma_fractal(key: jax.Array, side: int, roughness: float) -> jax.Array:
    """Returns a landscape by the diamond-square algorithm on a torus: [side, side] in [0, 1].

    Args:
      key: of the landscape.
      side: a power of two.
      roughness: by which each halving of the distance divides the size of the noise.
    """
    land, step, size = jnp.zeros((side, side)), side, 100.0
    while step >= 2:
        half = step // 2
        squares, diamonds, others = (
            size**2 * jax.random.uniform(jax.random.fold_in(key, 3 * step + i),
                                         (side // step, side // step), minval=-1, maxval=1)
            for i in range(3))
        corners = land[::step, ::step]
        pairs = corners + jnp.roll(corners, -1, 0)
        centres = (pairs + jnp.roll(pairs, -1, 1)) / 4 + squares
        land = land.at[half::step, half::step].set(centres)
        across = (centres + jnp.roll(centres, 1, 0) + corners + jnp.roll(corners, -1, 1)) / 4
        land = land.at[::step, half::step].set(across + diamonds)
        down = (centres + jnp.roll(centres, 1, 1) + corners + jnp.roll(corners, -1, 0)) / 4
        land = land.at[half::step, ::step].set(down + others)
        step, size = half, size / roughness
    land -= land.min()
    return land / land.max()


def brightness(key: jax.Array, image: jax.Array, amount: float) -> jax.Array:
    """Adds to the value of HSV, the largest channel, and keeps hue and saturation.

    Both are ratios of channels, so that all channels grow by the same factor; black becomes grey.
    """
    del key
    value = image.max(-1, keepdims=True)
    lighter = jnp.clip(value + amount, 0, 1)
    return jnp.where(value > 0, image * lighter / jnp.maximum(value, 1e-9), lighter)
