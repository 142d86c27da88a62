"""Losses of a batch, one number a row."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from cnnjax.types import UserError


class Targets(NamedTuple):
    """What the images of a batch show.

    Attributes:
      label: int [B].
      other: int [B], of the image that mixup or CutMix mixed in; None without them.
      weight: float32 [B], of `label`; `other` has the rest.
      teacher: float32 [B, K], a teacher's logits; None without one.
    """

    label: jax.Array
    other: jax.Array | None = None
    weight: jax.Array | None = None
    teacher: jax.Array | None = None

    @property
    def main(self) -> jax.Array:
        """The label with the larger weight, int [B]."""
        if self.other is None:
            return self.label
        return jnp.where(self.weight >= 0.5, self.label, self.other)


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Returns the cross entropy in nats of each row: logits [B, K], labels int [B] -> [B]."""
    logits = logits.astype(jnp.float32)
    right = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if not smoothing:
        return right
    uniform = -jnp.mean(jax.nn.log_softmax(logits), axis=-1)
    return (1 - smoothing) * right + smoothing * uniform


def softmax_loss(logits: jax.Array, targets: Targets, smoothing: float = 0.0) -> jax.Array:
    """Returns the cross entropy with targets that may be mixed: [B, K] -> [B].

    It is linear in the target, so that of the mixture is the mixture of two (arXiv 1710.09412).
    """
    own = cross_entropy(logits, targets.label, smoothing)
    if targets.other is None:
        return own
    others = cross_entropy(logits, targets.other, smoothing)
    return targets.weight * own + (1 - targets.weight) * others


def sigmoid_loss(logits: jax.Array, targets: Targets, smoothing: float = 0.0,
                 threshold: float | None = None) -> jax.Array:
    """Returns the binary cross entropy of each row, the mean over the classes: [B, K] -> [B].

    The loss of ResNet strikes back (arXiv 2110.00476, section 2.3), as in timm: each class is a
    question of its own, and with a threshold both of the mixed labels are wholly there.

    Args:
      logits: [B, K].
      targets: of the batch.
      smoothing: moves this mass to the uniform distribution before the threshold.
      threshold: targets above it become 1 and the others 0; None leaves them as they are.
    """
    logits = logits.astype(jnp.float32)
    target = soft_targets(targets, logits.shape[-1], smoothing)
    if threshold is not None:
        target = (target > threshold).astype(jnp.float32)
    return optax.sigmoid_binary_cross_entropy(logits, target).mean(axis=-1)


def soft_targets(targets: Targets, num_classes: int, smoothing: float = 0.0) -> jax.Array:
    """Returns the targets as distributions, float32 [B, K]."""
    target = jax.nn.one_hot(targets.label, num_classes)
    if targets.other is not None:
        weight = targets.weight[:, None]
        target = weight * target + (1 - weight) * jax.nn.one_hot(targets.other, num_classes)
    return (1 - smoothing) * target + smoothing / num_classes


def loss_of(name: str, logits: jax.Array, targets: Targets, smoothing: float,
            threshold: float | None) -> jax.Array:
    """Returns the loss of each row by name, "softmax" or "sigmoid".

    Raises:
      UserError: for another name.
    """
    if name == "softmax":
        return softmax_loss(logits, targets, smoothing)
    if name == "sigmoid":
        return sigmoid_loss(logits, targets, smoothing, threshold)
    raise UserError(f"There is no loss {name!r}; there are softmax and sigmoid.")
