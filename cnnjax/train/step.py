"""The pure training and evaluation steps, and how they are compiled over a mesh.

Randomness: step `s` draws from `fold_in(key, s)` and from nothing else, so that a run that resumes
at `s` needs only the number. The key comes as an array, so that runs with other seeds are the same
program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cnnjax import trees
from cnnjax.train.average import update_average
from cnnjax.train.losses import Targets, cross_entropy
from cnnjax.train.state import NO_STEP, TrainState
from cnnjax.train.task import Augment, Mix, Task

__all__ = ["Augment", "Batch", "Mix", "Task", "augmented", "empty_sums", "eval_step",
           "make_eval_call", "make_train_call", "replicated", "train_step"]

PyTree = Any
Batch = Mapping[str, jax.Array]


def train_step(task: Task, state: TrainState, batch: Batch) -> tuple[TrainState, jax.Array]:
    """One step of optimisation. Pure.

    Args:
      task: what the step is bound to.
      state: before the step.
      batch: "image" uint8 [B, H, W, C] and "label" int32 [B]. Batch statistics are those of the
        whole of B, however it is sharded, or of each of the parts of `task.accumulate`, or of the
        groups of `task.ghost_batch_size` in them. "key", of the run: `jax.random.key(seed)`.
        "teacher", the variables of the teacher, if there is one.

    Returns:
      The state after the step, and the mean loss, auxiliary heads included, as a float32 scalar.
      Where labels are mixed, an answer counts as right if it is the label with the larger weight.
    """
    key = jax.random.fold_in(batch["key"], state.step)
    images, targets = augmented(task, state.step, batch)
    if task.trunk is not None:
        images = task.trunk.apply(state.variables, images, train=False)
    if task.distillation is not None:
        targets = targets._replace(teacher=task.distillation.logits(batch["teacher"], images))
    trainable, fixed = task.split(state.params)
    frozen = task.frozen_modules(state.params, state.batch_stats, images.shape)

    def part(batch_stats, images, targets, key):
        def loss_fn(trainable):
            variables = {"params": task.gather(trees.merge(trainable, fixed)),
                         "batch_stats": batch_stats}
            with task.behaviour(frozen):
                output, updates = task.module.apply(variables, images, train=True,
                                                    mutable=["batch_stats"], rngs={"dropout": key})
            logits = output[0] if isinstance(output, tuple) else output
            right = _in_top(logits, targets.main, 1).sum(dtype=jnp.int32)
            return task.objective(output, targets), (right, updates.get("batch_stats", {}))

        return jax.value_and_grad(loss_fn, has_aux=True)(trainable)

    loss, right, batch_stats, grads = _over_parts(
        part, task.accumulate, state.batch_stats, images, targets, jax.random.fold_in(key, 1))
    updates, opt_state = task.optimizer.update(grads, state.opt_state, trainable)
    params = trees.merge(optax.apply_updates(trainable, updates), fixed)
    rows, step, average = batch["label"].shape[0], state.step + 1, state.average
    if task.average_decay:
        average = update_average(average, {"params": params, "batch_stats": batch_stats},
                                 task.average_decay, step - task.average_start)
    window = {
        "loss": state.window["loss"] + loss * rows,
        "top1": state.window["top1"] + right,
        "count": state.window["count"] + rows,
        "bad_step": jnp.minimum(state.window["bad_step"],
                                jnp.where(jnp.isfinite(loss), NO_STEP, step)),
    }
    return TrainState(step=step, params=params, batch_stats=batch_stats, opt_state=opt_state,
                      window=window, average=average), loss


def augmented(task: Task, step: jax.Array | int, batch: Batch) -> tuple[jax.Array, Targets]:
    """Returns the model's input and its targets in a step, augmented and mixed. Pure.

    Args:
      task: with "augment" and "mix".
      step: from 0.
      batch: "image" uint8 [B, H, W, C], "label" int32 [B] and "key", of the run.
    """
    key = jax.random.fold_in(batch["key"], step)
    images = task.augment(jax.random.fold_in(key, 0), batch["image"])
    if task.mix is None:
        return images, Targets(batch["label"])
    images, other, weight = task.mix(jax.random.fold_in(key, 2), images, batch["label"])
    return images, Targets(batch["label"], other, weight)


def _over_parts(part: Callable, parts: int, batch_stats: PyTree, images: jax.Array,
                targets: Targets, key: jax.Array) -> tuple[jax.Array, jax.Array, PyTree, PyTree]:
    """Returns loss, right answers, batch statistics and gradients of a batch taken in parts.

    Row r belongs to part r % parts, so that each device divides its own rows.
    """
    if parts == 1:
        (loss, (right, batch_stats)), grads = part(batch_stats, images, targets, key)
        return loss, right, batch_stats, grads

    def one(carry, rows):
        batch_stats, sums = carry
        number, images, targets = rows
        (loss, (right, batch_stats)), grads = part(batch_stats, images, targets,
                                                   jax.random.fold_in(key, number))
        new = (loss, right, grads)
        return (batch_stats, new if sums is None else jax.tree.map(jnp.add, sums, new)), None

    split = jax.tree.map(lambda a: a.reshape(-1, parts, *a.shape[1:]).swapaxes(0, 1),
                         (images, targets))
    rows = (jnp.arange(parts), *split)
    carry, _ = one((batch_stats, None), jax.tree.map(lambda a: a[0], rows))
    if jax.default_backend() == "cpu":  # As in `make_train_call`: no convolutions inside a loop.
        for i in range(1, parts):
            carry, _ = one(carry, jax.tree.map(lambda a, i=i: a[i], rows))
    else:
        carry, _ = jax.lax.scan(one, carry, jax.tree.map(lambda a: a[1:], rows))
    batch_stats, (loss, right, grads) = carry
    return loss / parts, right, batch_stats, jax.tree.map(lambda g: g / parts, grads)


def eval_step(module: nn.Module, variables: PyTree, batch: Batch) -> dict[str, jax.Array]:
    """Sums over the rows of a batch that count. Pure.

    Args:
      module: the model.
      variables: {"params": …, "batch_stats": …}.
      batch: "image" float [B, H, W, C], "label" int32 [B] and "mask" [B], 0 for padding.

    Returns:
      "loss" float32, "top1", "top5" and "count" int32 scalars: sums, not means.
    """
    logits = module.apply(variables, batch["image"], train=False)
    mask = batch["mask"].astype(bool)
    loss = jnp.where(mask, cross_entropy(logits, batch["label"]), 0.0)
    return {"loss": loss.sum(), "count": mask.sum(dtype=jnp.int32),
            **{f"top{k}": jnp.sum(_in_top(logits, batch["label"], k) & mask, dtype=jnp.int32)
               for k in (1, 5)}}


def _in_top(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Whether fewer than k classes score above the label's, or score the same and come before it.

    Counting needs no sort, agrees with argmax on ties, and a NaN is never right.
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    before = jnp.arange(logits.shape[-1]) < labels[:, None]
    ahead = ~(logits <= own) | ((logits == own) & before)
    return ahead.sum(axis=-1, dtype=jnp.int32) < k


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array of which every device holds the whole."""
    return NamedSharding(mesh, PartitionSpec())


def make_train_call(task: Task, fetch: Callable[[PyTree, Batch], Batch], mesh: Mesh,
                    state_sharding: PyTree | None = None):
    """Returns the jitted (state, constants, batches) -> (state, losses [k]); `state` is donated.

    `batches` has leading axes [k, B]: one call makes k steps. On GPU and TPU they are a `scan`, so
    that the host is out of the way; on CPU they are unrolled, because a convolution inside an
    XLA:CPU loop runs about twenty times slower than outside one.

    `state_sharding` is the state's, before and after (`sharding`); None has all of it on every
    device.
    """

    def one(constants, state, batch):
        return train_step(task, state, fetch(constants, batch))

    def call(state, constants, batches):
        steps = jax.tree.leaves(batches)[0].shape[0]
        if jax.default_backend() != "cpu" and steps > 1:
            return jax.lax.scan(lambda s, b: one(constants, s, b), state, batches)
        losses = []
        for i in range(steps):
            state, loss = one(constants, state, {k: v[i] for k, v in batches.items()})
            losses.append(loss)
        return state, jnp.stack(losses)

    whole = replicated(mesh)
    return jax.jit(call, donate_argnums=0, out_shardings=(state_sharding or whole, whole))


def make_eval_call(module: nn.Module, fetch: Callable[[PyTree, Batch], Batch],
                   prepare: Callable[[jax.Array], jax.Array], mesh: Mesh):
    """Returns the jitted (variables, constants, batch, sums) -> sums, for `evaluate`.

    `prepare` turns images as they come from the data set into float images, without augmentation.
    """

    def call(variables, constants, batch, sums):
        batch = dict(fetch(constants, batch))
        batch["image"] = prepare(batch["image"])
        return jax.tree.map(jnp.add, sums, eval_step(module, variables, batch))

    # The sums are not donated: that those of a batch are there tells that the device has done it.
    return jax.jit(call, out_shardings=replicated(mesh))


def empty_sums(mesh: Mesh) -> dict[str, jax.Array]:
    """Returns the sums of `eval_step` before the first batch, placed as those after it are."""
    return jax.jit(_no_sums, out_shardings=replicated(mesh))()


def _no_sums() -> dict[str, jax.Array]:
    return {"loss": jnp.zeros((), jnp.float32), "count": jnp.zeros((), jnp.int32),
            "top1": jnp.zeros((), jnp.int32), "top5": jnp.zeros((), jnp.int32)}
