"""Images as a model with weights takes them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.cores import available_cores
from cnnjax.data import augment
from cnnjax.data.decode import read_image
from cnnjax.data.host import resize_center_crop, resize_whole
from cnnjax.types import Preprocess, UserError


def read_images(images: Sequence[str | os.PathLike[str] | np.ndarray], preprocess: Preprocess
                ) -> jax.Array:
    """Returns images as the input of a model: read, resized, cropped and normalised.

        module, variables, preprocess = cnnjax.load_weights("resnet50", "resnet50-0676ba61.pth")
        logits = module.apply(variables, cnnjax.read_images(["ant.jpg"], preprocess))

    The pixels are those of --job=predict, and of an evaluation of image files.

    Args:
      images: files (JPEG, PNG, BMP, WebP or TIFF), or uint8 arrays [h, w, C].
      preprocess: of the weights.

    Returns:
      float32 [N, H, W, C].

    Raises:
      UserError: if there are none, a file cannot be read, or an array is none of those.
    """
    if isinstance(images, str | os.PathLike) or len(images) == 0:
        raise UserError('read_images takes a list of image files, such as ["ant.jpg"]; got '
                        f"{images!r}.")

    def read(image):
        return fitted(_pixels(image, preprocess), preprocess)

    with ThreadPoolExecutor(available_cores()) as pool:
        return normalized(np.stack(list(pool.map(read, images))), preprocess)


def fitted(image: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Returns the image in the model's size and channels, as an evaluation has it.

    Grey ones become RGB. One that has the size already is cropped all the same, as the others are.
    """
    if image.shape[-1] != preprocess.channels:
        image = np.repeat(image, preprocess.channels, -1)
    if preprocess.whole:
        return resize_whole(image, preprocess.size, preprocess.interpolation)
    return resize_center_crop(image, preprocess.size, preprocess.crop, preprocess.interpolation)


def normalized(pixels: jax.Array | np.ndarray, preprocess: Preprocess) -> jax.Array:
    """Returns uint8 images of the model's size as its input, float32."""
    return augment.normalize(pixels, preprocess.mean, preprocess.std, jnp.float32)


def _pixels(image: str | os.PathLike[str] | np.ndarray, preprocess: Preprocess) -> np.ndarray:
    channels = preprocess.channels
    if not isinstance(image, np.ndarray):
        if channels not in (1, 3):
            raise UserError(f"Image files have 1 or 3 channels; the model takes {channels}: give "
                            f"uint8 arrays [h, w, {channels}].")
        return read_image(image, channels=channels)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, channels):
        raise UserError(f"read_images takes files, or uint8 arrays [h, w, {channels}] with values "
                        f"from 0 to 255; got {image.dtype} {list(image.shape)}.")
    return image
