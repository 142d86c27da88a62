"""Random sequences of operations: RandAugment, TrivialAugment and AutoAugment.

A policy draws, for each image, operations and their magnitudes, and `apply_operations` does the
rest. Here a draw is made for the whole batch at once; row i's is a function of the key and of i.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.data.augment import subpolicies
from cnnjax.data.augment.operations import CODES, OPERATIONS, SIGNED, apply_operations

# The operations of torchvision's RandAugment and TrivialAugment: all of the paper's.
_STANDARD = OPERATIONS[:CODES["Invert"]]
# Those of timm's, which has no identity because each operation is applied half of the time.
_INCREASING = ("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize",
               "SolarizeAdd", "Color", "Contrast", "Brightness", "Sharpness", "ShearX", "ShearY",
               "TranslateX", "TranslateY")
_CODES_OF_INCREASING = np.array([CODES[name] for name in _INCREASING])
_HAS_SIGN = np.array([name in SIGNED for name in OPERATIONS])


def rand_augment(key: jax.Array, images: jax.Array, num_ops: int = 2, magnitude: int = 9,
                 bins: int = 31, **how: Any) -> jax.Array:
    """RandAugment (arXiv 1909.13719): `num_ops` of 14 operations, all of one strength.

    Ranges and bins are torchvision's.

    Args:
      key: of this step.
      images: uint8 [B, H, W, C], C = 1 or 3.
      num_ops: operations for each image, drawn with replacement.
      magnitude: 0 to bins - 1.
      bins: into which the range of every magnitude is divided.
      **how: `fill`, `method` and `mesh` of `apply_operations`.

    Returns:
      uint8 [B, H, W, C].
    """
    table = rand_augment_table(bins, images.shape[1:3])[:, magnitude]
    shape = (images.shape[0], num_ops)
    codes = jax.random.randint(jax.random.fold_in(key, 0), shape, 0, len(_STANDARD))
    sizes = jnp.asarray(table)[codes] * _signs(jax.random.fold_in(key, 1), codes)
    return apply_operations(images, codes, sizes, **how)


def trivial_augment_wide(key: jax.Array, images: jax.Array, bins: int = 31, **how: Any
                         ) -> jax.Array:
    """TrivialAugment with wide ranges (arXiv 2103.10158): one operation of a random strength.

    Args are those of `rand_augment`.
    """
    table = trivial_augment_table(bins)
    shape = (images.shape[0], 1)
    codes = jax.random.randint(jax.random.fold_in(key, 0), shape, 0, len(_STANDARD))
    levels = jax.random.randint(jax.random.fold_in(key, 2), shape, 0, bins)
    sizes = jnp.asarray(table)[codes, levels] * _signs(jax.random.fold_in(key, 1), codes)
    return apply_operations(images, codes, sizes, **how)


def auto_augment(key: jax.Array, images: jax.Array, policy: str = "imagenet", **how: Any
                 ) -> jax.Array:
    """AutoAugment (arXiv 1805.09501): one of 25 pairs of operations, each with its probability.

    Args:
      key: of this step.
      images: uint8 [B, H, W, C], C = 1 or 3.
      policy: "imagenet", "cifar10" or "svhn", the data it was learnt on (tables 7 to 9).
      **how: `fill`, `method` and `mesh` of `apply_operations`.

    Returns:
      uint8 [B, H, W, C].
    """
    codes, sizes, probabilities = auto_augment_table(policy, images.shape[1:3])
    pair = jax.random.randint(jax.random.fold_in(key, 0), images.shape[:1], 0, len(codes))
    drawn = jax.random.uniform(jax.random.fold_in(key, 2), (images.shape[0], 2))
    applied = drawn < jnp.asarray(probabilities)[pair]
    codes = jnp.where(applied, jnp.asarray(codes)[pair], CODES["Identity"])
    sizes = jnp.asarray(sizes)[pair] * _signs(jax.random.fold_in(key, 1), codes)
    return apply_operations(images, codes, sizes, **how)


def rand_augment_increasing(key: jax.Array, images: jax.Array, num_ops: int = 2,
                            magnitude: float = 9.0, magnitude_std: float = 0.5,
                            probability: float = 0.5, **how: Any) -> jax.Array:
    """timm's RandAugment, "rand-m9-mstd0.5-inc1": what ResNet strikes back trains with.

    It draws from 15 operations, applies each with a probability, and varies the magnitude.

    Args:
      key: of this step.
      images: uint8 [B, H, W, C], C = 1 or 3.
      num_ops: operations for each image, drawn with replacement.
      magnitude: 0 to 10, the mean.
      magnitude_std: standard deviation of a normal deviate that is added to it; the sum is kept
        within 0 to 10.
      probability: of applying each operation.
      **how: `fill`, `method` and `mesh` of `apply_operations`. timm fills with the mean colour and
        resamples bicubically.

    Returns:
      uint8 [B, H, W, C].
    """
    shape = (images.shape[0], num_ops)
    codes = jnp.asarray(_CODES_OF_INCREASING)[
        jax.random.randint(jax.random.fold_in(key, 0), shape, 0, len(_INCREASING))]
    levels = magnitude + magnitude_std * jax.random.normal(jax.random.fold_in(key, 2), shape)
    sizes = increasing_magnitudes(codes, jnp.clip(levels, 0, 10),
                                  _signs(jax.random.fold_in(key, 1), codes), images.shape[1:3])
    applied = jax.random.bernoulli(jax.random.fold_in(key, 3), probability, shape)
    codes = jnp.where(applied, codes, CODES["Identity"])
    return apply_operations(images, codes, sizes, **how)


def rand_augment_table(bins: int, size: tuple[int, int]) -> np.ndarray:
    """Returns torchvision's magnitudes, float32 [16, bins], a row for each of `OPERATIONS`."""
    return _table(bins, shear=0.3, shift=(150 / 331 * size[1], 150 / 331 * size[0]), degrees=30.0,
                  blend=0.9, bits=4)


def trivial_augment_table(bins: int) -> np.ndarray:
    """Likewise, in the wide ranges of TrivialAugment."""
    return _table(bins, shear=0.99, shift=(32.0, 32.0), degrees=135.0, blend=0.99, bits=6)


def auto_augment_table(policy: str, size: tuple[int, int]
                       ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns codes, magnitudes and probabilities, each [25, 2], of the pairs of a policy."""
    table = rand_augment_table(10, size)
    pairs = subpolicies.POLICIES[policy]
    codes = np.array([[CODES[name] for name, _, _ in pair] for pair in pairs])
    levels = np.array([[level or 0 for _, _, level in pair] for pair in pairs])
    probabilities = np.array([[p for _, p, _ in pair] for pair in pairs], np.float32)
    return codes, table[codes, levels], probabilities


def increasing_magnitudes(codes: jax.Array, levels: jax.Array, signs: jax.Array,
                          size: tuple[int, int]) -> jax.Array:
    """Returns timm's magnitudes: codes [B, n], levels [B, n] from 0 to 10, signs of 1 or -1."""
    share = levels / 10
    by_name = {"Rotate": signs * 30 * share, "ShearX": signs * 0.3 * share,
               "ShearY": signs * 0.3 * share, "TranslateX": signs * 0.45 * share * size[1],
               "TranslateY": signs * 0.45 * share * size[0],
               "Posterize": 4 - jnp.floor(4 * share), "Solarize": 256 - jnp.floor(256 * share),
               "SolarizeAdd": jnp.floor(110 * share),
               **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"),
                               signs * 0.9 * share)}
    zero = jnp.zeros_like(share)
    return jnp.select([codes == CODES[name] for name in by_name], list(by_name.values()), zero)


def _table(bins: int, *, shear: float, shift: Sequence[float], degrees: float, blend: float,
           bits: int) -> np.ndarray:
    share = np.linspace(0, 1, bins)
    rows = {"ShearX": shear * share, "ShearY": shear * share,
            # Whole pixels, cut and not rounded.
            "TranslateX": np.floor(shift[0] * share), "TranslateY": np.floor(shift[1] * share),
            "Rotate": degrees * share,
            **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), blend * share),
            "Posterize": 8 - np.round(bits * share), "Solarize": 255 * (1 - share)}
    return np.stack([rows.get(name, np.zeros(bins)) for name in OPERATIONS]).astype(np.float32)


def _signs(key: jax.Array, codes: jax.Array) -> jax.Array:
    """Draws 1 or -1 for each operation, 1 for those that have no sign."""
    sign = jnp.where(jax.random.bernoulli(key, shape=codes.shape), 1.0, -1.0)
    return jnp.where(jnp.asarray(_HAS_SIGN)[codes], sign, 1.0)
