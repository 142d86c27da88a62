"""The kinds of corruption with their five strengths, and one function that applies any of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.data.corruptions import blur, digital, noise, weather
from cnnjax.types import UserError, did_you_mean

STRENGTHS = (1, 2, 3, 4, 5)
# From this side on an image has the strengths of ImageNet-C, below it those of CIFAR-10-C.
LARGE = 96

_FUNCTIONS: dict[str, Callable] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "fog": weather.fog,
    "brightness": weather.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}
KINDS = tuple(_FUNCTIONS)
# Those that know grey and RGB images alone.
COLORED = ("snow", "jpeg_compression")
# Arguments of the function, one row a strength; those of elastic_transform are shares of the side.
_IMAGENET: dict[str, list[tuple]] = {
    "gaussian_noise": [(.08,), (.12,), (.18,), (.26,), (.38,)],
    "shot_noise": [(60,), (25,), (12,), (5,), (3,)],
    "impulse_noise": [(.03,), (.06,), (.09,), (.17,), (.27,)],
    "defocus_blur": [(3, .1), (4, .5), (6, .5), (8, .5), (10, .5)],
    "glass_blur": [(.7, 1, 2), (.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
    "motion_blur": [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)],
    "zoom_blur": [(1.11, .01), (1.16, .01), (1.21, .02), (1.26, .02), (1.31, .03)],
    "snow": [(.1, .3, 3, .5, 10, 4, .8), (.2, .3, 2, .5, 12, 4, .7),
             (.55, .3, 4, .9, 12, 8, .7), (.55, .3, 4.5, .85, 12, 8, .65),
             (.55, .3, 2.5, .85, 12, 12, .55)],
    "fog": [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)],
    "brightness": [(.1,), (.2,), (.3,), (.4,), (.5,)],
    "contrast": [(.4,), (.3,), (.2,), (.1,), (.05,)],
    # The authors take 244 pixels for the side of 224.
    "elastic_transform": [tuple(244 / 224 * v for v in row) for row in (
        (2, .7, .1), (2, .08, .2), (.05, .01, .02), (.07, .01, .02), (.12, .01, .02))],
    "pixelate": [(.6,), (.5,), (.4,), (.3,), (.25,)],
    "jpeg_compression": [(25,), (18,), (15,), (10,), (7,)],
}
_CIFAR: dict[str, list[tuple]] = {
    "gaussian_noise": [(.04,), (.06,), (.08,), (.09,), (.10,)],
    "shot_noise": [(500,), (250,), (100,), (75,), (50,)],
    "impulse_noise": [(.01,), (.02,), (.03,), (.05,), (.07,)],
    "defocus_blur": [(.3, .4), (.4, .5), (.5, .6), (1, .2), (1.5, .1)],
    "glass_blur": [(.05, 1, 1), (.25, 1, 1), (.4, 1, 1), (.25, 1, 2), (.4, 1, 2)],
    "motion_blur": [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],
    "zoom_blur": [(1.06, .01), (1.11, .01), (1.16, .01), (1.21, .01), (1.26, .01)],
    "snow": [(.1, .2, 1, .6, 8, 3, .95), (.1, .2, 1, .5, 10, 4, .9),
             (.15, .3, 1.75, .55, 10, 4, .9), (.25, .3, 2.25, .6, 12, 6, .85),
             (.3, .3, 1.25, .65, 14, 12, .8)],
    "fog": [(.2, 3), (.5, 3), (.75, 2.5), (1, 2), (1.5, 1.75)],
    "brightness": [(.05,), (.1,), (.15,), (.2,), (.3,)],
    "contrast": [(.75,), (.5,), (.4,), (.3,), (.15,)],
    "elastic_transform": [(0, 0, .08), (.05, .2, .07), (.08, .06, .06), (.1, .04, .05),
                          (.1, .03, .03)],
    "pixelate": [(.95,), (.9,), (.85,), (.75,), (.65,)],
    "jpeg_compression": [(80,), (65,), (58,), (50,), (40,)],
}


def corrupt(kind: str, strength: int, key: jax.Array, images: Any, index: Any) -> Any:
    """Returns a batch of corrupted images. jit it, except for jpeg_compression.

    Args:
      kind: one of `KINDS`.
      strength: 1 to 5.
      key: root of the randomness; an example's own is fold_in(key, its index), so that it is
        corrupted the same way whatever batch it comes in.
      images: uint8 [B, H, W, C].
      index: int [B], the examples' numbers.

    Returns:
      uint8 [B, H, W, C]. jpeg_compression, which a codec makes on the host, takes and returns
      NumPy arrays.

    Raises:
      UserError: for another kind, or one of `COLORED` on images of other than 1 or 3 channels.
    """
    if kind not in _FUNCTIONS:
        raise UserError(f"There is no corruption {kind!r}.{did_you_mean(kind, KINDS)} There are "
                        f"{', '.join(KINDS)}.")
    if kind in COLORED and images.shape[-1] not in (1, 3):
        raise UserError(f"{kind} takes images of 1 or 3 channels, not {images.shape[-1]}.")
    table = _IMAGENET if min(images.shape[1:3]) >= LARGE else _CIFAR
    arguments, function = table[kind][strength - 1], _FUNCTIONS[kind]
    if kind == "jpeg_compression":
        return np.stack([function(image, *arguments) for image in np.asarray(images)])

    def one(index, image):
        image = function(jax.random.fold_in(key, index), image.astype(jnp.float32) / 255,
                         *arguments)
        # The authors' code cuts off what is behind the point; a hair more, because 51 / 255 * 255
        # may be 50.999996 in float32.
        return jnp.floor(jnp.clip(image, 0, 1) * 255 + 1e-3).astype(jnp.uint8)

    return jax.vmap(one)(index, images)
