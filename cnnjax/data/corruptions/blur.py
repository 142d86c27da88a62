"""Blur, as functions of one image: (key, float [H, W, C] in [0, 1], …) -> likewise."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.data.corruptions import linear


def defocus_blur(key: jax.Array, image: jax.Array, radius: float, alias_blur: float) -> jax.Array:
    """Averages over a disk of this radius, whose edge a Gaussian of `alias_blur` pixels softens."""
    del key
    kernel = disk(radius, alias_blur)
    pad = kernel.shape[0] // 2
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    out = jax.lax.conv_general_dilated(
        padded.transpose(2, 0, 1)[:, None], jnp.asarray(kernel, jnp.float32)[None, None], (1, 1),
        "VALID", precision="highest")
    return out[:, 0].transpose(1, 2, 0)


def disk(radius: float, alias_blur: float) -> np.ndarray:
    """Returns the point spread of a lens out of focus, [n, n] with a sum of 1."""
    reach, smoothing = (8, 1) if radius <= 8 else (radius, 2)
    axis = np.arange(-reach, reach + 1)
    kernel = (axis[:, None] ** 2 + axis**2 <= radius**2).astype(np.float64)
    kernel /= kernel.sum()
    offsets = np.arange(-smoothing, smoothing + 1)
    weights = np.exp(-offsets**2 / (2 * alias_blur**2))
    weights /= weights.sum()
    padded = np.pad(kernel, smoothing, mode="reflect")
    for _ in range(2):
        padded = np.apply_along_axis(np.convolve, 0, padded, weights, "valid").T
    return padded


def glass_blur(key: jax.Array, image: jax.Array, sigma: float, reach: int, passes: int
               ) -> jax.Array:
    """Puts a near pixel in the place of each, in turn, between two Gaussian blurs.

    The authors' statement x[h, w], x[v, u] = x[v, u], x[h, w] is meant to swap. Of NumPy arrays of
    three axes both sides are views, so that it copies x[v, u], and so do the published images.
    """
    height, width = image.shape[:2]
    rows, columns = (linear.gaussian(n, sigma, "nearest") for n in (height, width))
    image = jnp.floor(linear.apply(rows, columns, image) * 255 + 1e-3)
    # As the authors' loop, from the bottom right, which leaves a margin of `reach` pixels. What
    # they take beyond the last row and column, where reach is 1, does not exist here.
    ys = np.arange(min(height - reach, height - 1), reach, -1)
    xs = np.arange(min(width - reach, width - 1), reach, -1)
    if not len(ys) or not len(xs):
        return image / 255
    moves = jax.random.randint(key, (passes * len(ys) * len(xs), 2), -reach, reach)
    where = jnp.asarray(np.tile(np.stack(np.meshgrid(ys, xs, indexing="ij"), -1).reshape(-1, 2),
                                (passes, 1)))

    def copy(i, image):
        (y, x), (v, u) = where[i], where[i] + moves[i]
        return image.at[y, x].set(image[v, u])

    image = jax.lax.fori_loop(0, len(where), copy, image)
    return linear.apply(rows, columns, image / 255)


def motion_blur(key: jax.Array, image: jax.Array, radius: int, sigma: float) -> jax.Array:
    """Blurs along a line, at an angle from -45 to 45 degrees that is drawn."""
    return along_line(image, radius, sigma, jax.random.uniform(key, minval=-45, maxval=45))


def along_line(image: jax.Array, radius: int, sigma: float, degrees: jax.Array) -> jax.Array:
    """Returns ImageMagick's motion blur: half a Gaussian of 2 radius + 1 pixels on one side.

    Pixel i of the line lies at ceil(i (cos, sin) - 1/2); beyond the edge is the outermost pixel.
    """
    width = 2 * math.ceil(radius) + 1
    steps = np.arange(width)
    weights = np.exp(-steps**2 / (2 * sigma**2))
    weights /= weights.sum()
    angle = jnp.deg2rad(degrees)
    right = jnp.ceil(steps * jnp.cos(angle) - 0.5).astype(int)
    down = jnp.ceil(steps * jnp.sin(angle) - 0.5).astype(int)
    height, length = image.shape[:2]
    out = jnp.zeros_like(image)
    for i, weight in enumerate(weights):
        ys = jnp.clip(jnp.arange(height) + down[i], 0, height - 1)
        xs = jnp.clip(jnp.arange(length) + right[i], 0, length - 1)
        out += weight * image[ys][:, xs]
    return out


def zoom_blur(key: jax.Array, image: jax.Array, stop: float, step: float) -> jax.Array:
    """Averages the image and its enlargements by 1, 1 + step, … below `stop`."""
    del key
    factors = np.arange(1, stop, step)
    total = image
    for factor in factors:
        total += linear.apply(*(linear.clipped_zoom(n, factor) for n in image.shape[:2]), image)
    return total / (len(factors) + 1)
