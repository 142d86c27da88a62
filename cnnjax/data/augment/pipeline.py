"""All of a recipe's augmentation in its order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from cnnjax.data.augment import policies
from cnnjax.data.augment.boxes import random_erasing, random_resized_crop
from cnnjax.data.augment.geometry import normalize, random_flip, random_pad_crop, resize
from cnnjax.data.augment.jitter import color_jitter
from cnnjax.data.augment.operations import Fill
from cnnjax.types import UserError, did_you_mean

Policy = Callable[[jax.Array, jax.Array], jax.Array]
POLICIES = ("rand_augment", "rand_augment_increasing", "trivial_augment_wide", "auto_augment",
            "auto_augment_cifar10", "auto_augment_svhn")


def make_policy(name: str, *, num_ops: int = 2, magnitude: int = 9, magnitude_std: float = 0.5,
                fill: Fill = 0, method: str = "nearest", mesh: Mesh | None = None) -> Policy:
    """Returns the (key, images) -> images of a policy by name; see the function so named.

    Args:
      name: one of `POLICIES`.
      num_ops: of the two RandAugments.
      magnitude: of the two RandAugments: 0 to 30, of the increasing one 0 to 10.
      magnitude_std: of the increasing one.
      fill: level of what comes from outside an image, one or one a channel.
      method: of resampling, "nearest" or "bilinear".
      mesh: the devices that share the batch.

    Raises:
      UserError: for an unknown name, or a magnitude out of range.
    """
    if name not in POLICIES:
        raise UserError(f"There is no augmentation policy {name!r}.{did_you_mean(name, POLICIES)} "
                        f"There are {', '.join(POLICIES)}.")
    most = 10 if name == "rand_augment_increasing" else 30
    if not 0 <= magnitude <= most:
        raise UserError(f"The magnitude of {name} is {magnitude}; it lies between 0 and {most}: "
                        "set --config.augment.magnitude=9.")
    arguments = {"rand_augment": dict(num_ops=num_ops, magnitude=magnitude),
                 "rand_augment_increasing": dict(num_ops=num_ops, magnitude=magnitude,
                                                 magnitude_std=magnitude_std),
                 "auto_augment": dict(policy="imagenet"),
                 "auto_augment_cifar10": dict(policy="cifar10"),
                 "auto_augment_svhn": dict(policy="svhn")}.get(name, {})
    function = getattr(policies, "auto_augment" if "policy" in arguments else name)
    return functools.partial(function, **arguments, fill=fill, method=method, mesh=mesh)


def pipeline(key: jax.Array, images: jax.Array, *, size: tuple[int, int], mean: Sequence[float],
             std: Sequence[float], dtype: jnp.dtype = jnp.float32, interpolation: str = "bilinear",
             resized_crop: tuple[float, float] | None = None, flip: bool = False,
             pad_crop: int = 0, jitter: Sequence[float] | None = None,
             policy: Policy | None = None, erase: float = 0.0, erase_noise: bool = False,
             mesh: Mesh | None = None) -> jax.Array:
    """Makes a batch of training images what the model takes.

    In torchvision's order: crop, flip, colours, policy, normalise, erase. The images are bytes
    until they are normalised: a quarter of the traffic, and what is padded is black.

    Args:
      key: of this step.
      images: uint8 [B, h, w, C].
      size: (H, W) of the result.
      mean: per channel, of images in [0, 1].
      std: likewise.
      dtype: of the result.
      interpolation: of the resizing, "bilinear" or "bicubic".
      resized_crop: smallest and largest share of the area of `random_resized_crop`; None resizes
        the whole image.
      flip: whether to mirror half of the images.
      pad_crop: pixels of `random_pad_crop`.
      jitter: the four strengths of `color_jitter`.
      policy: of `make_policy`.
      erase: probability of `random_erasing`.
      erase_noise: whether noise stands where it erased.
      mesh: the devices that share the batch.

    Returns:
      [B, H, W, C] of `dtype`.
    """
    keys = [jax.random.fold_in(key, i) for i in range(6)]
    if resized_crop:
        images = random_resized_crop(keys[2], images, size, resized_crop, method=interpolation)
    else:
        images = resize(images, size, interpolation)
    if flip:
        images = random_flip(keys[0], images)
    if pad_crop:
        images = random_pad_crop(keys[1], images, pad_crop)
    if jitter:
        images = color_jitter(keys[3], images, *jitter, mesh=mesh)
    if policy:
        images = policy(keys[4], images)
    images = normalize(images, mean, std, dtype)
    return random_erasing(keys[5], images, erase, noise=erase_noise) if erase else images
