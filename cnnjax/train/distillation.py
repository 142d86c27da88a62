"""Knowledge distillation: a student learns what a teacher makes of the same images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Distillation:
    """A teacher, and how much it counts.

    The teacher sees what the student sees, crop, colours, mixing and all: a teacher that is
    consistent with the view is worth more than one of the clean image (arXiv 2106.05237).

    Attributes:
      module: the teacher; it runs as in evaluation.
      prepare: images as the student takes them -> as the teacher does.
      weight: of the teacher in the loss; the labels have the rest.
      temperature: T, by which both logits are divided.
    """

    module: nn.Module
    prepare: Callable[[jax.Array], jax.Array]
    weight: float = 0.5
    temperature: float = 1.0

    def logits(self, variables: PyTree, images: jax.Array) -> jax.Array:
        """Returns the teacher's logits, float32 [B, K], through which no gradient flows.

        Args:
          variables: of the teacher, {"params": …, "batch_stats": …}.
          images: [B, H, W, C] as the student takes them.
        """
        logits = self.module.apply(variables, self.prepare(images), train=False)
        return jax.lax.stop_gradient(logits)


def distillation_loss(student: jax.Array, teacher: jax.Array, temperature: float) -> jax.Array:
    """Returns T^2 KL(softmax(teacher / T) || softmax(student / T)) of each row, in nats.

    Hinton, Vinyals & Dean, arXiv 1503.02531, section 2: T^2 keeps the gradient's size when T
    changes. The divergence is their cross entropy less the teacher's entropy, which has no
    gradient, so that a student that agrees has a loss of 0.

    Args:
      student: logits [B, K].
      teacher: logits [B, K].
      temperature: T, above 0.
    """
    ours = jax.nn.log_softmax(student.astype(jnp.float32) / temperature)
    theirs = jax.nn.log_softmax(teacher.astype(jnp.float32) / temperature)
    return temperature**2 * jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=-1)
