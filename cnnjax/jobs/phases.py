"""The phases of a run: the head alone, if the config asks for that, and then the rest.

What a phase is follows from the number of the step alone, so a run resumes in the right one. The
optimiser's state of a phase starts afresh with it, and knows only the parameters that train in it.
A checkpoint belongs to the phase whose last step it was saved after.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from cnnjax import config as config_lib
from cnnjax import data, trees
from cnnjax.jobs import recipe
from cnnjax.models import depth, frozen
from cnnjax.train import schedule as schedule_lib
from cnnjax.train import step as step_lib
from cnnjax.train.distillation import Distillation
from cnnjax.train.optimizer import make_optimizer, rate_multipliers
from cnnjax.train.state import start_average
from cnnjax.types import UserError

PyTree = Any
NO_WEIGHTS = "random"


@dataclasses.dataclass(frozen=True)
class Phase:
    """Steps with one optimizer and one set of parameters that train.

    Attributes:
      start: the run's steps before it.
      stop: the run's steps after it.
      learning_rate: steps since `start` -> rate.
      task: what the training step is bound to.
      augmented: whether its images are.
      cached_trunk: the frozen part, images -> features, if the features are computed once and
        `task.module` trains on them; None if the phase trains on images.
      summary: what it does, for the table before a run.
      image_size: (H, W) that it trains on.
      continued: whether it goes on with the state of the phase before as it is: progressive
        resizing divides one phase into several, of which the images alone differ.
    """

    start: int
    stop: int
    learning_rate: optax.Schedule
    task: step_lib.Task
    augmented: bool
    cached_trunk: nn.Module | None
    summary: str
    image_size: tuple[int, int]
    continued: bool = False


@dataclasses.dataclass(frozen=True)
class Parts:
    """What phases are made of: the model and the data, opened.

    Attributes:
      module: the model.
      params: the shapes of its parameters.
      input_shape: (1, H, W, C).
      examples: to train on and to evaluate on.
      mesh: the devices.
      learning_rate: steps -> schedule of the phase after the head's.
      train_size: (H, W) of the images to train on.
      augment: size -> (key, images) -> the model's input.
      prepare: size -> images -> the model's input, without augmentation.
      gathered: where a step computes with parameters that are sharded; None if none are.
      distillation: the teacher, or None.
    """

    module: nn.Module
    params: PyTree
    input_shape: tuple[int, int, int, int]
    examples: tuple[int, int]
    mesh: Mesh
    learning_rate: Callable[[int], optax.Schedule]
    train_size: tuple[int, int]
    augment: Callable[[tuple[int, int]], step_lib.Augment]
    prepare: Callable[[tuple[int, int]], Callable[[jax.Array], jax.Array]]
    gathered: jax.sharding.Sharding | None = None
    distillation: Distillation | None = None


def make_phases(config: ConfigDict, parts: Parts) -> tuple[Phase, ...]:
    """Returns the phases of a run, in order.

    Raises:
      UserError: if nothing trains, a pattern matches nothing, or something is frozen and the config
        doesn't say from what weights the run starts.
    """
    head_steps, steps = config_lib.phase_steps(config, parts.examples[0])
    found = []
    if head_steps:
        found.append(_head_phase(config, parts, head_steps))
    if steps:
        found += _resized(config, parts, _main_phase(config, parts, head_steps, steps))
    if config.weights.path is None and any(p.task.trainable is not None for p in found):
        raise UserError(
            "This run freezes a part of the model (by head.*, train.trainable or "
            "train.from_stage), so it has to start from weights. Give "
            "--config.weights.path=FILE, a .safetensors or .pth file; the workdir of another run, "
            "such as runs/resnet_cifar; a hub id, such as timm/resnet50.a1_in1k; or "
            f"{NO_WEIGHTS}, if the frozen part is to stay as it is drawn.")
    return tuple(found)


def begin(phase: Phase, state: step_lib.TrainState) -> step_lib.TrainState:
    """Returns the state with which a phase starts: the optimiser's part and the averages new."""
    if phase.continued:
        return state
    trainable, _ = phase.task.split(state.params)
    return state.replace(
        opt_state=phase.task.optimizer.init(trainable),
        average=start_average(state.variables) if phase.task.average_decay else {})


def _head_phase(config: ConfigDict, parts: Parts, steps: int) -> Phase:
    head, names = config.head, frozenset(
        name for name in trees.named_leaves(parts.params) if name.startswith("head/"))
    learning_rate = schedule_lib.make_schedule(head.schedule, lr=head.lr, total_steps=steps)
    optimizer = make_optimizer(head.optimizer, learning_rate, parts.params, trainable=names,
                               weight_decay=head.weight_decay)
    module, trunk, cached_trunk, features = parts.module, None, None, "computed at every step"
    prepare = parts.prepare(parts.train_size)
    augment = (parts.augment(parts.train_size) if head.augment
               else lambda key, images: prepare(images))
    if halves := frozen.split_at_head(parts.module, parts.input_shape):
        trunk, module = halves
        width = parts.params["head"]["kernel"].shape[0]
        # As float32; those to evaluate on are kept as well.
        if not head.augment and 4 * width * sum(parts.examples) <= data.resident_limit(parts.mesh):
            trunk, cached_trunk, features = None, trunk, "computed once"
            augment = lambda key, features: features  # noqa: E731
    task = step_lib.Task(
        module=module, trunk=trunk, optimizer=optimizer, augment=augment,
        label_smoothing=config.train.label_smoothing, loss=config.train.loss,
        target_threshold=config.train.target_threshold, trainable=names, gathered=parts.gathered)
    return Phase(0, steps, learning_rate, task, head.augment, cached_trunk,
                 f"head alone, {steps:,} steps, {head.optimizer} {head.lr:.3g} ({head.schedule}), "
                 f"features {features}", parts.train_size)


def _main_phase(config: ConfigDict, parts: Parts, start: int, steps: int) -> Phase:
    options = dict(config.optimizer.items())
    patterns, decay = options.pop("lr_multipliers"), options.pop("layer_decay")
    names = _trainable(config, parts)
    params = parts.params if names is None else _only(parts.params, names)
    multipliers = None
    if patterns or decay != 1:
        multipliers = rate_multipliers(params, patterns,
                                       depth.heights(parts.module, parts.input_shape), decay)
    learning_rate = parts.learning_rate(steps)
    task = step_lib.Task(
        module=parts.module, augment=parts.augment(parts.train_size),
        optimizer=make_optimizer(learning_rate=learning_rate, params=parts.params,
                                 multipliers=multipliers, trainable=names, **options),
        label_smoothing=config.train.label_smoothing, aux_weight=config.train.aux_weight,
        trainable=names, running_statistics=config.train.norm_statistics == "running",
        mix=recipe.make_mix(config), loss=config.train.loss,
        target_threshold=config.train.target_threshold,
        accumulate=config.train.accumulate,
        average_decay=recipe.average_decay(config), average_start=start,
        remat=recipe.make_remat(config, parts.params),
        ghost_batch_size=recipe.check_ghost_batch_size(config), gathered=parts.gathered,
        distillation=parts.distillation)
    return Phase(start, start + steps, learning_rate, task, True, None,
                 f"{trees.count(params):,} of {trees.count(parts.params):,} parameters, "
                 f"{steps:,} steps, {options['name']} {config.schedule.lr:.3g} "
                 f"({config.schedule.name})" + (f", layer decay {decay:g}" if decay != 1 else ""),
                 parts.train_size)


def _resized(config: ConfigDict, parts: Parts, phase: Phase) -> list[Phase]:
    """Returns a phase as several, one for each image size of `train.progressive`."""
    if not config.train.progressive:
        return [phase]
    percents, sides = zip(*config.train.progressive, strict=True)
    length = phase.stop - phase.start
    starts = [phase.start + round(percent / 100 * length) for percent in percents]
    if len(set(starts)) < len(starts):
        raise UserError(f"train.progressive has {len(starts)} image sizes, too many for a run of "
                        f"{length} steps: give fewer, or train longer.")
    found = []
    for start, stop, side in zip(starts, [*starts[1:], phase.stop], sides, strict=True):
        found.append(dataclasses.replace(
            phase, start=start, stop=stop, image_size=(side, side), continued=bool(found),
            learning_rate=functools.partial(_later, phase.learning_rate, start - phase.start),
            task=dataclasses.replace(phase.task, augment=parts.augment((side, side))),
            summary=f"{phase.summary}, {side} px" if not found
            else f"the same, {stop - start:,} steps, {side} px"))
    return found


def _later(learning_rate: optax.Schedule, passed: int, step: jax.Array) -> jax.Array:
    return learning_rate(step + passed)


def _trainable(config: ConfigDict, parts: Parts) -> frozenset[str] | None:
    """Returns the names of the parameters that train after the head's phase; None for all."""
    mask = trees.named_leaves(trees.regex_mask(parts.params, config.train.trainable,
                                               "train.trainable"))
    names = frozenset(name for name, trains in mask.items() if trains)
    if config.train.from_stage is not None:
        try:
            names &= depth.parameters_from(parts.module, parts.input_shape, config.train.from_stage)
        except UserError as error:
            raise UserError(f"train.from_stage: {error}") from None
    if not names:
        raise UserError(f"train.trainable={tuple(config.train.trainable)} and train.from_stage="
                        f"{config.train.from_stage!r} leave no parameter to train.")
    return None if len(names) == len(mask) else names


def _only(params: PyTree, names: frozenset[str]) -> PyTree:
    return trees.partition(params, names)[0]
