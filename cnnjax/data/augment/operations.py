"""The operations of AutoAugment and its heirs, and how a sequence of drawn ones is applied."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cnnjax.data.augment import color, packed
from cnnjax.data.augment.geometry import warp
from cnnjax.data.augment.rows import for_all_images
from cnnjax.data.augment.together import apply_together

# torchvision's names in its order, with the two of timm that it has not. The magnitude of each is:
# a slope (shears), pixels (translations), degrees counter-clockwise (rotate), the factor minus one
# (brightness, color, contrast, sharpness), bits to keep (posterize), a threshold (solarize), levels
# to add (solarize_add); the others have none.
OPERATIONS = ("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness",
              "Color", "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
              "Invert", "SolarizeAdd")
CODES = {name: code for code, name in enumerate(OPERATIONS)}
SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color",
          "Contrast", "Sharpness")
_WARPS = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
# All five warps are one kind.
_KINDS = tuple(dict.fromkeys("warp" if name in _WARPS else name for name in OPERATIONS))
_KIND = np.array([_KINDS.index("warp" if name in _WARPS else name) for name in OPERATIONS])
Fill = int | Sequence[int]


def apply_operations(images: jax.Array, operations: jax.Array, magnitudes: jax.Array, *,
                     fill: Fill = 0, method: str = "nearest", mesh: Mesh | None = None
                     ) -> jax.Array:
    """Applies to each image its own operations, one after the other.

    Args:
      images: uint8 [B, H, W, C], C = 1 or 3.
      operations: int [B, n], numbers of `OPERATIONS`.
      magnitudes: float [B, n], in the units given there.
      fill: level of what comes from outside the image, one or one a channel.
      method: of resampling, "nearest" (torchvision's default) or "bilinear".
      mesh: of `for_all_images`.

    Returns:
      uint8 [B, H, W, C].
    """
    fill = jnp.broadcast_to(jnp.asarray(fill, jnp.uint8), images.shape[-1:])

    def one(image, codes, sizes):
        for i in range(codes.shape[0]):
            image = _apply(image, codes[i], sizes[i], fill, method)
        return image

    def together(images, codes, sizes):
        matrix = jax.vmap(functools.partial(_matrix, shape=images.shape[1:3]))
        channels, pixels = images.shape[-1], packed.pack(images)
        for code, size in zip(codes.T, sizes.T, strict=True):
            pixels = apply_together(pixels, channels, _KINDS, jnp.asarray(_KIND)[code], size,
                                    matrix(code, size), fill, method)
        return packed.unpack(pixels, channels)

    return for_all_images(one, together, images, operations, magnitudes.astype(jnp.float32),
                          mesh=mesh)


def _apply(image: jax.Array, code: jax.Array, size: jax.Array, fill: jax.Array, method: str
           ) -> jax.Array:
    branches = {
        **{name: functools.partial(change, image, size)
           for name, change in color.OF_A_LEVEL.items()},
        "Identity": lambda: image,
        "warp": lambda: warp(image, _matrix(code, size, image.shape[:2]), fill, method),
        "Color": lambda: color.adjust_saturation(image, 1 + size),
        "Contrast": lambda: color.adjust_contrast(image, 1 + size),
        "Sharpness": lambda: color.adjust_sharpness(image, 1 + size),
        "AutoContrast": lambda: color.autocontrast(image),
        "Equalize": lambda: color.equalize(image),
    }
    return jax.lax.switch(jnp.asarray(_KIND)[code], [branches[kind] for kind in _KINDS])


def _matrix(code: jax.Array, size: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Returns the [2, 3] map of `warp` for an operation of `_WARPS`.

    Shears leave the upper and the left border where they are, as in AutoAugment's own code.
    """
    height, width = shape
    radians = size * (np.pi / 180)
    one, zero = jnp.ones_like(size), jnp.zeros_like(size)
    matrices = jnp.stack([jnp.stack(row) for row in (
        (one, size, size * height / 2, zero, one, zero),
        (one, zero, zero, size, one, size * width / 2),
        (one, zero, -size, zero, one, zero),
        (one, zero, zero, zero, one, -size),
        (jnp.cos(radians), -jnp.sin(radians), zero, jnp.sin(radians), jnp.cos(radians), zero))])
    first = CODES[_WARPS[0]]
    return matrices[jnp.clip(code - first, 0, len(_WARPS) - 1)].reshape(2, 3)
