"""Mixup and CutMix: batches whose images, and whose targets, are mixtures of two."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cnnjax.data.augment.boxes import in_boxes

_TRIES = 16  # Of a Gamma deviate.


class Mixing(NamedTuple):
    """How each image is mixed with its partner.

    Attributes:
      share: float32 [B], of the image itself in the pixels outside the box.
      boxes: int32 [B, 4], top, left, height, width: where the partner is pasted; empty for mixup.
      weight: float32 [B], of the image's own label; the partner's label has the rest.
    """

    share: jax.Array
    boxes: jax.Array
    weight: jax.Array


def mix(key: jax.Array, images: jax.Array, labels: jax.Array, mixup: float = 0.0,
        cutmix: float = 0.0, *, probability: float = 1.0, cutmix_probability: float = 0.5,
        per_example: bool = False) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mixes each image with another one of the batch, by mixup or CutMix.

    Mixup (arXiv 1710.09412) is w·x + (1 − w)·x', w from Beta(a, a). CutMix (arXiv 1905.04899)
    pastes a box of x' into x, of the share 1 − w of the area; where the border cuts the box, w is
    corrected to the area that is left. Where both are on, one is chosen. As timm does it, the
    partner of row i is row B − 1 − i, and one draw of w, box and kind holds for the whole batch
    unless `per_example`.

    Args:
      key: of this step.
      images: float [B, H, W, C] after `normalize`.
      labels: int [B].
      mixup: a of mixup's Beta distribution; 0 is off.
      cutmix: a of CutMix's; 0 is off.
      probability: of mixing at all.
      cutmix_probability: of choosing CutMix where both are on.
      per_example: whether each image draws for itself.

    Returns:
      The mixed images of the same dtype, the labels of the partners [B], and the weight float32 [B]
      of the labels given: the target is weight · labels + (1 − weight) · the partners' labels.
    """
    mixing = draw_mixing(key, images.shape, mixup, cutmix, probability=probability,
                         cutmix_probability=cutmix_probability, per_example=per_example)
    return apply_mixing(images, mixing), labels[::-1], mixing.weight


def draw_mixing(key: jax.Array, shape: tuple[int, ...], mixup: float, cutmix: float, *,
                probability: float = 1.0, cutmix_probability: float = 0.5,
                per_example: bool = False) -> Mixing:
    """Draws what `mix` does to images of a shape [B, H, W, C]."""
    count = shape[0] if per_example else 1
    keys = [jax.random.fold_in(key, i) for i in range(5)]
    chance = cutmix_probability if mixup and cutmix else float(cutmix > 0)
    use_cutmix = jax.random.bernoulli(keys[0], chance, (count,))
    # A Beta of the kind that is not drawn costs little and keeps both shapes out of a branch.
    weight = jnp.where(use_cutmix, _beta(keys[1], cutmix, count), _beta(keys[2], mixup, count))
    weight = jnp.where(jax.random.bernoulli(keys[3], probability, (count,)), weight, 1.0)
    boxes = cutmix_boxes(weight, jax.random.uniform(keys[4], (count, 2)), shape[1:3])
    boxes = jnp.where(use_cutmix[:, None], boxes, 0)
    left = 1 - boxes[:, 2] * boxes[:, 3] / (shape[1] * shape[2])
    mixing = Mixing(share=jnp.where(use_cutmix, 1.0, weight), boxes=boxes,
                    weight=jnp.where(use_cutmix, left, weight))
    return Mixing(*(jnp.broadcast_to(part, (shape[0], *part.shape[1:])) for part in mixing))


def cutmix_boxes(weight: jax.Array, draws: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Returns boxes int32 [n, 4] of the share 1 - weight of the area, clipped at the border.

    Args:
      weight: [n].
      draws: uniform [n, 2], for the centre: from the first to the last row and column.
      size: (H, W).
    """
    height, width = size
    ratio = jnp.sqrt(1 - weight)
    bounds = []
    for i, side in enumerate((height, width)):
        length = jnp.floor(side * ratio).astype(jnp.int32)
        centre = jnp.minimum((draws[:, i] * side).astype(jnp.int32), side - 1)
        bounds.append((jnp.clip(centre - length // 2, 0, side),
                       jnp.clip(centre + (length + 1) // 2, 0, side)))
    (top, bottom), (left, right) = bounds
    return jnp.stack([top, left, bottom - top, right - left], axis=1)


def apply_mixing(images: jax.Array, mixing: Mixing) -> jax.Array:
    """Mixes float images [B, H, W, C] with the reversed batch."""
    others = images[::-1]
    # In float32: a weight of 0.999 would be 1 in bfloat16.
    share = mixing.share[:, None, None, None]
    mixed = share * images.astype(jnp.float32) + (1 - share) * others.astype(jnp.float32)
    inside = in_boxes(mixing.boxes, images.shape[1:3])
    return jnp.where(inside, others, mixed.astype(images.dtype))


def _beta(key: jax.Array, alpha: float, count: int) -> jax.Array:
    """Draws from Beta(alpha, alpha), float32 [count]; ones where `alpha` is 0.

    A Beta deviate is x / (x + y) of two Gamma deviates. `jax.random.beta` draws those in loops that
    end when the last one is accepted; on a GPU the host waits for every turn, which takes longer
    than the mixing.
    """
    if not alpha:
        return jnp.ones(count)
    x, y = _log_gamma(key, alpha, (2, count))
    return jax.nn.sigmoid(x - y)


def _log_gamma(key: jax.Array, alpha: float, shape: tuple[int, ...]) -> jax.Array:
    """Draws logarithms of Gamma(alpha) deviates, by the method of Marsaglia and Tsang.

    "A simple method for generating gamma variables", ACM TOMS 26(3), 2000: Gamma(alpha + 1) by
    rejection, times u^(1/alpha). A try is accepted with a probability of 0.95 at least, so that
    sixteen fail once in 10^20.
    """
    keys = [jax.random.fold_in(key, i) for i in range(3)]
    tries, d = (_TRIES, *shape), alpha + 2 / 3
    x = jax.random.normal(keys[0], tries)
    u = jax.random.uniform(keys[1], tries, minval=jnp.finfo(jnp.float32).tiny)
    v = (1 + x / math.sqrt(9 * d)) ** 3
    log_v = jnp.log(jnp.maximum(v, jnp.finfo(jnp.float32).tiny))
    accepted = (v > 0) & (jnp.log(u) < x * x / 2 + d - d * v + d * log_v)
    first = jnp.argmax(accepted, axis=0)[None]
    boost = jnp.log1p(-jax.random.uniform(keys[2], shape)) / alpha
    return math.log(d) + jnp.take_along_axis(log_v, first, axis=0)[0] + boost
