"""What is done with a random rectangle: crops that are resized, and erasing."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

TRIES = 10  # To fit a box of the drawn area and shape into the image, as in torchvision.


def random_resized_crop(key: jax.Array, images: jax.Array, size: tuple[int, int],
                        area: tuple[float, float] = (0.08, 1.0),
                        ratio: tuple[float, float] = (3 / 4, 4 / 3),
                        method: str = "bilinear") -> jax.Array:
    """Cuts a random rectangle out of each image and resizes it (arXiv 1409.4842, section 6).

    As in torchvision: a share of the area uniform in `area`, an aspect ratio log-uniform in
    `ratio`, ten tries to fit that into the image, else the largest centred crop whose ratio is
    within them; and antialiasing when it shrinks.

    Args:
      key: of this step.
      images: uint8 [B, h, w, C].
      size: (H, W) of the result.
      area: smallest and largest share of the area.
      ratio: smallest and largest width / height.
      method: "bilinear" or "bicubic".

    Returns:
      uint8 [B, H, W, C].
    """
    draws = jax.random.uniform(key, (images.shape[0], TRIES, 4))
    return resized_crop(images, crop_boxes(draws, images.shape[1:3], area, ratio), size, method)


def crop_boxes(draws: jax.Array, size: tuple[int, int], area: tuple[float, float],
               ratio: tuple[float, float]) -> jax.Array:
    """Returns the rectangles of `random_resized_crop`.

    Args:
      draws: uniform [B, TRIES, 4], for the area, the ratio, the top and the left of each try.
      size: (h, w) of the images.
      area: smallest and largest share of the area.
      ratio: smallest and largest width / height.

    Returns:
      int32 [B, 4]: top, left, height and width.
    """
    height, width = size
    h, w = _box_sides(draws, size, area, ratio)
    fits = (h > 0) & (w > 0) & (h <= height) & (w <= width)
    widest, highest = min(width, round(height * ratio[1])), min(height, round(width / ratio[0]))
    centre = jnp.array([(height - highest) // 2, (width - widest) // 2, highest, widest])
    return _first_that_fits(draws, size, h, w, fits, centre)


def resized_crop(images: jax.Array, boxes: jax.Array, size: tuple[int, int],
                 method: str = "bilinear") -> jax.Array:
    """Cuts a box out of each image and resizes it as `resize` does.

    A resize along one axis is a product with a matrix of weights, which differs from image to
    image: two batched products. On a GPU they are in float16, whose 11 bits hold the levels
    exactly and the weights to 1/4096: of photographs, some hundredths of the values then differ by
    one level.

    Args:
      images: uint8 [B, h, w, C].
      boxes: int32 [B, 4]: top, left, height and width in pixels, within the image.
      size: (H, W) of the result.
      method: "bilinear" or "bicubic".

    Returns:
      uint8 [B, H, W, C].
    """
    def weights(start, length, full, out):
        return jax.vmap(lambda s, n: _resize_weights(s, n, full, out, method))(start, length)

    dtype = jnp.float16 if jax.default_backend() == "gpu" else jnp.float32
    rows = weights(boxes[:, 0], boxes[:, 2], images.shape[1], size[0]).astype(dtype)
    columns = weights(boxes[:, 1], boxes[:, 3], images.shape[2], size[1]).astype(dtype)
    exact = jax.lax.Precision.HIGHEST
    out = jnp.einsum("byh,bhwc->bywc", rows, images.astype(dtype), precision=exact)
    out = jnp.einsum("bxw,bywc->byxc", columns, out, precision=exact,
                     preferred_element_type=jnp.float32)
    return jnp.clip(jnp.round(out), 0, 255).astype(jnp.uint8)


def _resize_weights(start: jax.Array, length: jax.Array, full: int, out: int, method: str
                    ) -> jax.Array:
    """Returns [out, full] weights that resize `length` pixels from `start` on to `out` pixels."""
    scale = length / out
    at = jnp.arange(full) - start
    centre = scale * (jnp.arange(out)[:, None] + 0.5)
    t = jnp.abs(at[None] + 0.5 - centre) / jnp.maximum(scale, 1.0)
    if method == "bilinear":
        kernel = jnp.maximum(1 - t, 0)
    else:  # Keys with a = -1/2, as Pillow and antialiased torchvision have it.
        kernel = jnp.where(t < 1, (1.5 * t - 2.5) * t * t + 1,
                           jnp.where(t < 2, ((-0.5 * t + 2.5) * t - 4) * t + 2, 0))
    kernel = jnp.where((at >= 0) & (at < length), kernel, 0)
    return kernel / kernel.sum(axis=1, keepdims=True)


def random_erasing(key: jax.Array, images: jax.Array, probability: float = 0.5,
                   area: tuple[float, float] = (0.02, 1 / 3),
                   ratio: tuple[float, float] = (0.3, 1 / 0.3), noise: bool = False) -> jax.Array:
    """Erases a rectangle of each image with some probability (arXiv 1708.04896).

    Args:
      key: of this step.
      images: float [B, H, W, C] after `normalize`, where zero is the mean colour.
      probability: of erasing, for each image.
      area: smallest and largest share of the area. timm's default; torchvision's is (0.02, 0.33).
      ratio: smallest and largest height / width. torchvision's default is (0.3, 3.3).
      noise: fills with a normal deviate for every value (timm's "pixel") instead of zeros. It
        draws for the pixels outside, too, which then takes longer than all the rest.

    Returns:
      The images, of the same shape and dtype.
    """
    erase = jax.random.bernoulli(jax.random.fold_in(key, 0), probability, images.shape[:1])
    draws = jax.random.uniform(jax.random.fold_in(key, 1), (images.shape[0], TRIES, 4))
    boxes = erase_boxes(draws, images.shape[1:3], area, ratio)
    fill = (jax.random.normal(jax.random.fold_in(key, 2), images.shape, images.dtype) if noise
            else jnp.zeros((), images.dtype))
    inside = in_boxes(boxes, images.shape[1:3]) & erase[:, None, None, None]
    return jnp.where(inside, fill, images)


def erase_boxes(draws: jax.Array, size: tuple[int, int], area: tuple[float, float],
                ratio: tuple[float, float]) -> jax.Array:
    """Returns the rectangles of `random_erasing`; where no try fits it is empty.

    Args are those of `crop_boxes`, but for the ratio, which is height / width.
    """
    height, width = size
    w, h = _box_sides(draws, size, area, ratio)
    return _first_that_fits(draws, size, h, w, (h < height) & (w < width), jnp.zeros(4, jnp.int32))


def in_boxes(boxes: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Returns which pixels lie in the box of their image: int32 [B, 4] -> bool [B, H, W, 1]."""
    top, left, h, w = (boxes[:, i, None, None, None] for i in range(4))
    y, x = jnp.arange(size[0])[None, :, None, None], jnp.arange(size[1])[None, None, :, None]
    return (y >= top) & (y < top + h) & (x >= left) & (x < left + w)


def _box_sides(draws: jax.Array, size: tuple[int, int], area: tuple[float, float],
               ratio: tuple[float, float]) -> tuple[jax.Array, jax.Array]:
    """Returns int32 [B, TRIES] of two sides, of which the second is `ratio` times the first."""
    pixels = size[0] * size[1] * (area[0] + draws[..., 0] * (area[1] - area[0]))
    low, high = math.log(ratio[0]), math.log(ratio[1])
    drawn = jnp.exp(low + draws[..., 1] * (high - low))
    first, second = jnp.sqrt(pixels / drawn), jnp.sqrt(pixels * drawn)
    return jnp.round(first).astype(jnp.int32), jnp.round(second).astype(jnp.int32)


def _first_that_fits(draws: jax.Array, size: tuple[int, int], h: jax.Array, w: jax.Array,
                     fits: jax.Array, otherwise: jax.Array) -> jax.Array:
    """Returns int32 [B, 4]: the first of the boxes [B, TRIES] that fits, at its drawn place."""
    top, left = ((draws[..., 2 + i] * (full - side + 1)).astype(jnp.int32)
                 for i, (full, side) in enumerate(zip(size, (h, w), strict=True)))
    boxes = jnp.stack([top, left, h, w], axis=-1)
    first = jnp.argmax(fits, axis=1)[:, None, None]
    return jnp.where(fits.any(axis=1)[:, None],
                     jnp.take_along_axis(boxes, first, axis=1)[:, 0], otherwise)
