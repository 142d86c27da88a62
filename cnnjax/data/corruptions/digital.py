"""What cameras, files and programs do, as functions of one image; see `weather`."""

from __future__ import annotations

import io

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.data.corruptions import linear


def contrast(key: jax.Array, image: jax.Array, factor: float) -> jax.Array:
    """Moves every channel towards its mean."""
    del key
    mean = image.mean((0, 1), keepdims=True)
    return (image - mean) * factor + mean


def pixelate(key: jax.Array, image: jax.Array, share: float) -> jax.Array:
    """Shrinks to this share of the side and enlarges again, both with Pillow's box filter."""
    del key
    bytes_ = jnp.round(image * 255)
    small = [max(1, int(n * share)) for n in image.shape[:2]]
    for (height, width), (h, w) in ((image.shape[:2], small), (small, image.shape[:2])):
        # Pillow keeps bytes between its two passes, across and then down.
        bytes_ = _rounded(linear.apply(np.eye(height), linear.box(width, w), bytes_))
        bytes_ = _rounded(linear.apply(linear.box(height, h), np.eye(w), bytes_))
    return bytes_ / 255


def _rounded(image: jax.Array) -> jax.Array:
    return jnp.floor(image + 0.5)


def elastic_transform(key: jax.Array, image: jax.Array, alpha: float, sigma: float, affine: float
                      ) -> jax.Array:
    """Moves three points, and the image with them, and then every pixel by smooth noise.

    Args:
      key: of this image.
      image: float [H, W, C].
      alpha: size of the noise, as a share of the side.
      sigma: of the Gaussian that smooths it, likewise.
      affine: largest move of the three points, likewise.
    """
    height, width, channels = image.shape
    keys, side = [jax.random.fold_in(key, i) for i in range(3)], min(height, width)
    centre, square = np.array([height, width]) // 2, side // 3
    # Points are (x, y), as in OpenCV.
    points = np.array([centre + square, [centre[0] + square, centre[1] - square], centre - square],
                      np.float32)
    moved = points + affine * side * jax.random.uniform(keys[0], (3, 2), minval=-1, maxval=1)
    # The map from the result back to the image: from the moved points to the old ones.
    back = jnp.linalg.solve(jnp.concatenate([moved, jnp.ones((3, 1))], 1), points)
    y, x = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    at = jnp.stack([x, y, jnp.ones_like(x)], -1) @ back
    image = _sampled(image, at[..., 1], at[..., 0], "mirror")
    rows, columns = (linear.gaussian(n, sigma * side, "reflect", truncate=3)
                     for n in (height, width))
    dx, dy = (alpha * side * linear.apply(rows, columns, jax.random.uniform(
        k, (height, width, 1), minval=-1, maxval=1))[..., 0] for k in keys[1:])
    return _sampled(image, y + dy, x + dx, "reflect")


def _sampled(image: jax.Array, y: jax.Array, x: jax.Array, mode: str) -> jax.Array:
    """Returns the image at these places, bilinearly: [H, W, C]."""
    return jnp.stack([jax.scipy.ndimage.map_coordinates(image[..., c], [y, x], 1, mode)
                      for c in range(image.shape[-1])], -1)


def jpeg_compression(image: np.ndarray, quality: int) -> np.ndarray:
    """Returns what a JPEG file of this quality holds of an image: uint8 [H, W, C], C 1 or 3."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(
        file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).reshape(image.shape)
