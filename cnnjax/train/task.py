"""What a training step is bound to: model, optimiser and recipe, everything that is no array."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cnnjax import ops, trees
from cnnjax.models.frozen import as_in_evaluation, frozen_drops, frozen_modules
from cnnjax.models.ghost import ghost_batches
from cnnjax.models.remat import rematerialised
from cnnjax.train.distillation import Distillation, distillation_loss
from cnnjax.train.losses import Targets, loss_of

PyTree = Any
# (key, images as they come from the data set) -> float images as the model takes them.
Augment = Callable[[jax.Array, jax.Array], jax.Array]
# (key, float images, labels) -> images, the other labels [B], the weight of the first [B].
Mix = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Task:
    """What a training step is bound to: everything that is not an array.

    Attributes:
      module: the model.
      optimizer: the optax chain.
      augment: applied to the images inside the step, with a key of the step's own.
      label_smoothing: mass moved from the label to the uniform distribution (arXiv 1512.00567,
        section 7).
      aux_weight: of the loss of each auxiliary head, for models that have them (arXiv 1409.4842,
        section 5).
      trainable: names of the parameters that train; None for all. No gradient is computed for the
        others, and what is made of them alone behaves as in evaluation (`models.frozen`).
      running_statistics: whether batch norms whose parameters train, too, normalise by their
        running statistics and keep them.
      trunk: of a module that is only a head, the frozen model before it: it runs as in evaluation,
        and its features are the module's input.
      mix: mixup or CutMix, applied to the augmented images; None for neither.
      loss: "softmax" or "sigmoid" (`losses`).
      target_threshold: of the sigmoid loss.
      accumulate: parts that the batch is taken in, one after the other, before the update: memory
        for a part, and the gradient of the whole. Equal to the whole batch at once but for what
        looks at other rows or draws: batch norm normalises with each part's own statistics (and
        updates the running ones once a part), and dropout draws anew.
      average_decay: of the averages in the state, a step; 0 where it has none.
      average_start: the steps before the first that they take in.
      remat: paths of the modules that the backward pass computes again (`models.remat`).
      ghost_batch_size: consecutive rows that share batch statistics (`models.ghost`), which divide
        the rows of a part; 0 for all of them.
      gathered: where the step puts the parameters before it computes with them, if the state's
        are sharded; None leaves them where they are.
      distillation: a teacher whose variables come with the batch, as "teacher"; None for none.
    """

    module: nn.Module
    optimizer: optax.GradientTransformation
    augment: Augment
    label_smoothing: float = 0.0
    aux_weight: float = 0.3
    trainable: frozenset[str] | None = None
    running_statistics: bool = False
    trunk: nn.Module | None = None
    mix: Mix | None = None
    loss: str = "softmax"
    target_threshold: float | None = None
    accumulate: int = 1
    average_decay: float = 0.0
    average_start: int = 0
    remat: frozenset[str] = frozenset()
    ghost_batch_size: int = 0
    gathered: jax.sharding.Sharding | None = None
    distillation: Distillation | None = None

    def objective(self, output: Any, targets: Targets) -> jax.Array:
        """Returns the loss to minimise, a float32 scalar, of what the model gave in training.

        Args:
          output: logits [B, K], or (logits, {name: logits of an auxiliary head}).
          targets: with the teacher's logits if there is a teacher. Auxiliary heads learn from the
            labels alone.
        """
        logits, auxiliary = output if isinstance(output, tuple) else (output, {})
        loss = self.loss_of(logits, targets)
        if self.distillation is not None:
            weight = self.distillation.weight
            loss = (1 - weight) * loss + weight * jnp.mean(distillation_loss(
                logits, targets.teacher, self.distillation.temperature))
        return loss + self.aux_weight * sum(self.loss_of(a, targets) for a in auxiliary.values())

    @contextlib.contextmanager
    def behaviour(self, frozen: Collection[str]) -> Iterator[None]:
        """Within it, `module.apply` runs as the recipe says; `frozen` modules as in evaluation."""
        # First what lifts calls: it would take what the others pass along with them for arrays.
        with (ops.training(), rematerialised(self.remat), as_in_evaluation(frozen),
              ghost_batches(self.ghost_batch_size)):
            yield

    def frozen_modules(self, params: PyTree, batch_stats: PyTree, input_shape: Sequence[int]
                       ) -> frozenset[str]:
        """Returns the paths of the modules that behave as in evaluation.

        Args:
          params: of the whole model.
          batch_stats: the same.
          input_shape: of what `module` is given, (B, H, W, C) or (B, C).
        """
        names, trainable = (trees.named_leaves(p) for p in (params, self.split(params)[0]))
        frozen = frozen_modules(names, trainable)
        if self.trainable is not None:
            frozen |= frozen_drops(self.module, input_shape, names, trainable)
        if self.running_statistics:
            frozen |= {name.rpartition("/")[0] for name in trees.named_leaves(batch_stats)}
        return frozen

    def gather(self, params: PyTree) -> PyTree:
        """Returns the parameters where the step computes with them."""
        if self.gathered is None:
            return params
        return jax.lax.with_sharding_constraint(params, self.gathered)

    def loss_of(self, logits: jax.Array, targets: Targets) -> jax.Array:
        """Returns the mean loss of a batch, a float32 scalar."""
        return jnp.mean(loss_of(self.loss, logits, targets, self.label_smoothing,
                                self.target_threshold))

    def split(self, params: PyTree) -> tuple[PyTree, PyTree]:
        """Returns the parameters that train, and the others; `trees.merge` joins them."""
        return (params, {}) if self.trainable is None else trees.partition(params, self.trainable)
