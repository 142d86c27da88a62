"""A config taken apart: the one place where its keys become plain typed arguments."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from cnnjax import config as config_lib
from cnnjax import data, models, ops
from cnnjax.analysis import summarize
from cnnjax.data import augment
from cnnjax.jobs import backend, course, initial_weights, memory, recipe
from cnnjax.jobs.bad_files import BadFiles
from cnnjax.jobs.model_input import (
    at_eval_size,
    check_input_size,
    check_train_size,
    make_preprocess,
)
from cnnjax.jobs.named_data import open_dataset
from cnnjax.jobs.phases import Parts, Phase, begin, make_phases
from cnnjax.jobs.teacher import Teacher, load_teacher
from cnnjax.train import state as state_lib
from cnnjax.train import step as step_lib
from cnnjax.train.loop import Schedule
from cnnjax.train.sharding import shard_state
from cnnjax.types import Preprocess, UserError


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a config describes, checked, with nothing of size allocated yet.

    Attributes:
      config: where it came from.
      dataset: opened, not read.
      module: the model, for the classes of the data set.
      dtype: of activations; parameters are float32.
      preprocess: how an image becomes the model's input.
      own_size: (H, W) of that input where `eval.image_size` says nothing.
      mesh: the devices, along one axis "data".
      phases: of the run, one or two (`jobs.phases`).
      schedule: when to log, evaluate, save and stop.
      abstract_state: shapes and dtypes of the training state at step 0.
      weights: the weights to start from, if there are any and the run has not started.
      parts: what the phases are made of.
      teacher: of whom the model learns, if there is one.
      bad_files: what its feeds could not read.
    """

    config: ConfigDict
    dataset: data.Dataset
    module: nn.Module
    dtype: Any
    preprocess: Preprocess
    own_size: tuple[int, int]
    mesh: Mesh
    phases: tuple[Phase, ...]
    schedule: Schedule
    abstract_state: state_lib.TrainState
    weights: initial_weights.InitialWeights | None = None
    parts: Parts | None = None
    teacher: Teacher | None = None
    bad_files: BadFiles = dataclasses.field(default_factory=BadFiles)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(1, H, W, C)."""
        return (1, *self.preprocess.size, self.preprocess.channels)

    @property
    def total_steps(self) -> int:
        """Of all phases."""
        return self.phases[-1].stop

    @functools.cached_property
    def multiply_adds(self) -> int:
        """Of an image at the input size; a trace of the model the first time."""
        return summarize(self.module, self.input_shape, fields=False).macs

    @property
    def seed(self) -> np.ndarray:
        """The root of all randomness, uint32.

        An argument of what is compiled, and not a constant in it: seeds share their programs.
        """
        return np.asarray(self.config.seed, np.uint32)

    @property
    def create_state(self) -> Callable[[jax.Array], state_lib.TrainState]:
        """Returns a function of `seed` that initialises the state, without weights."""
        module, task, shape = self.module, self.phases[0].task, self.input_shape

        def create(seed):  # Bound to no more than it needs (`jobs.made_of`).
            return state_lib.create_state(
                module, task.optimizer, jax.random.key(seed), shape,
                lambda params: task.split(params)[0], average=task.average_decay > 0)

        return create

    @property
    def precision(self) -> str:
        """The dtype of activations, and that of the factors of products where it is another."""
        rounded = backend.product_type(self.config.precision) == "bfloat16"
        return self.dtype.name + (", products of bfloat16" if rounded else "")

    def phase_of(self, steps: int) -> Phase:
        """Returns the phase in which the run has done this number of steps."""
        return next((phase for phase in self.phases if steps <= phase.stop), self.phases[-1])

    def abstract_state_at(self, steps: int) -> state_lib.TrainState:
        """Returns shapes and dtypes of the state in a checkpoint after this number of steps."""
        at = self.phases.index(self.phase_of(steps))
        # A phase that continues another has the state with which that one began.
        began = next(p for p in reversed(self.phases[:at + 1]) if not p.continued)
        return jax.eval_shape(functools.partial(begin, began), self.abstract_state)

    def state_sharding(self, state: state_lib.TrainState) -> Any:
        """Returns where a state, or one of these shapes, lies: a sharding, or one for each array.
        """
        section = self.config.sharding
        return shard_state(state, self.abstract_state.params, self.mesh, rules=section.rules,
                           min_size=section.fsdp_min_size) or step_lib.replicated(self.mesh)

    def placed_state_at(self, steps: int) -> state_lib.TrainState:
        """Returns `abstract_state_at` with the sharding of every array."""
        state = self.abstract_state_at(steps)
        sharding = self.state_sharding(state)
        if isinstance(sharding, jax.sharding.Sharding):
            sharding = jax.tree.map(lambda _: sharding, state)
        return jax.tree.map(lambda a, where: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where),
                            state, sharding)

    def gather(self, tree: Any) -> Any:
        """Returns the arrays of a state whole on every device."""
        if not (self.config.sharding.fsdp_min_size or self.config.sharding.rules):
            return tree
        return jax.jit(_as_it_is, out_shardings=step_lib.replicated(self.mesh))(tree)

    def learning_rate(self, step: int) -> float:
        """Returns the rate with which a step, counted from 0, is made."""
        phase = self.phase_of(step + 1)
        part, position = divmod(step - phase.start, _RATES)
        return float(_rates(phase.learning_rate, part)[position])

    @property
    def prepare(self) -> Callable[[jax.Array], jax.Array]:
        """uint8 images as they come from the data set -> the model's input, for evaluation."""
        return functools.partial(_prepare, self.preprocess, self.dtype)

    def at_size(self, size: tuple[int, int]) -> Experiment:
        """Returns the experiment with images of another size (H, W) in evaluation."""
        return dataclasses.replace(self, preprocess=dataclasses.replace(self.preprocess, size=size))


def build(config: ConfigDict, saved_preprocess: Preprocess | None = None, trains: bool = True
          ) -> Experiment:
    """Returns the experiment that a validated config describes.

    Args:
      config: validated.
      saved_preprocess: that of a run which has started. What its parameters were trained with
        counts, whatever weights it started from and the data's statistics are today.
      trains: False for what only looks at the model or the data: there need be no teacher, and no
        room for a training step, whose batch the devices need not divide.

    Raises:
      UserError: for anything that could be known before the first step.
    """
    mesh = make_mesh(config.devices)
    ops.set_default(config.ops)
    ops.set_products(backend.product_type(config.precision))
    dataset = open_dataset(config)
    _check_data(config, dataset, mesh, trains)
    weights = None if saved_preprocess else initial_weights.load(config, dataset, trains)
    if weights and not trains:  # Files and runs of cnnjax bring the arguments of their model.
        config = config.copy_and_resolve_references()
        config.model.update(weights.arguments)
    preprocess = saved_preprocess or make_preprocess(
        config, dataset, weights and weights.preprocess)
    train_size, own_size = recipe.train_size(config, preprocess), preprocess.size
    preprocess = at_eval_size(config, preprocess)
    dtype = compute_dtype(config.precision)
    module = make_module(config, dataset.num_classes, dtype)
    params = check_input_size(config, module, preprocess)
    if config.eval.image_size or config.train.progressive:
        check_train_size(config, module, preprocess, params, train_size)
    experiment = Experiment(
        config=config, dataset=dataset, module=module, dtype=dtype, preprocess=preprocess,
        own_size=own_size, mesh=mesh, phases=(), schedule=None, abstract_state=None,
        weights=weights)
    teacher = load_teacher(config, dataset, preprocess, dtype) if trains else None
    parts = _make_parts(experiment, params, train_size, teacher)
    phases = make_phases(config, parts)
    if trains:
        _check_last_phase(config, dataset, phases[-1], mesh)
    schedule = dataclasses.replace(
        course.make_schedule(config, len(dataset.train.source), phases[-1].stop),
        stop=course.last_step(config, phases))
    experiment = dataclasses.replace(experiment, phases=phases, parts=parts, teacher=teacher,
                                     schedule=schedule)
    experiment = dataclasses.replace(experiment, abstract_state=jax.eval_shape(
        experiment.create_state, experiment.seed))
    if weights:
        initial_weights.check_fit(weights, experiment.abstract_state)
    memory.check(experiment, trains)
    return experiment


def _make_parts(experiment: Experiment, params: Any, train_size: tuple[int, int],
                teacher: Teacher | None) -> Parts:
    """Returns what the phases of an experiment that has none yet are made of."""
    config, dataset, mesh = experiment.config, experiment.dataset, experiment.mesh
    examples = len(dataset.train.source)
    sharded = config.sharding.fsdp_min_size or config.sharding.rules
    return Parts(
        module=experiment.module, params=params, input_shape=experiment.input_shape, mesh=mesh,
        examples=(examples, len(dataset.eval.source)),
        prepare=lambda size: experiment.at_size(size).prepare,
        learning_rate=functools.partial(course.make_learning_rate, config, examples),
        train_size=train_size,
        augment=functools.partial(recipe.make_augment, config, dataset, experiment.preprocess,
                                  experiment.dtype, mesh),
        gathered=step_lib.replicated(mesh) if sharded else None,
        distillation=teacher and teacher.distillation)


def _check_data(config: ConfigDict, dataset: data.Dataset, mesh: Mesh, trains: bool) -> None:
    """Raises a UserError for what does not go with the data."""
    if trains:
        data.check_batch_size(config.train.batch_size, len(dataset.train.source), mesh)
        recipe.check_target_threshold(config, dataset.num_classes)
    if config.checkpoint.metric == "top5" and dataset.num_classes < 6:
        raise UserError(f"checkpoint.metric is top5, but {dataset.name} has only "
                        f"{dataset.num_classes} classes. Set --config.checkpoint.metric=top1.")


def _check_last_phase(config: ConfigDict, dataset: data.Dataset, phase: Phase, mesh: Mesh) -> None:
    """Raises a UserError for what would fail when it begins, perhaps hours after the first."""
    data.check_crops(dataset.train, config.data.placement,
                     config.augment.random_resized_crop if phase.augmented else None)
    recipe.check_accumulate(phase.task.accumulate, config.train.batch_size, mesh)


def at_rate(experiment: Experiment, factor: float) -> Experiment:
    """Returns the experiment with all its learning rates multiplied, and else as it is."""
    if factor == 1:
        return experiment
    config = experiment.config.copy_and_resolve_references()
    config.schedule.lr, config.head.lr = config.schedule.lr * factor, config.head.lr * factor
    return dataclasses.replace(experiment, phases=make_phases(config, dataclasses.replace(
        experiment.parts, learning_rate=functools.partial(course.make_learning_rate, config,
                                                          experiment.parts.examples[0]))))


def make_mesh(devices: int) -> Mesh:
    """Returns a mesh over the first `devices` devices, or over all of them for 0.

    Raises:
      UserError: if there are not as many, or several processes share the run and it is not all.
    """
    found = jax.devices()
    if devices > len(found):
        raise UserError(f"devices is {devices}, but JAX sees {len(found)} "
                        f"({found[0].platform}): set --config.devices=0 to use all there are.")
    if jax.process_count() > 1 and devices not in (0, len(found)):
        raise UserError(f"devices is {devices}, but {jax.process_count()} processes share the run, "
                        f"each with its own: set --config.devices=0, or start fewer processes.")
    return Mesh(np.asarray(found[:devices or None]), ("data",))


def compute_dtype(precision: str) -> Any:
    """Returns the dtype of activations; "auto" is bfloat16 except on CPUs."""
    if precision == "auto":
        precision = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype("float32" if precision == backend.PRODUCTS else precision)


def make_module(config: ConfigDict, num_classes: int, dtype: Any) -> nn.Module:
    """Returns the model of `config.model`; a dtype given there wins over the precision."""
    return models.create_model(config.model.name, num_classes=num_classes,
                               **({"dtype": dtype} | config_lib.model_overrides(config)))


def make_train_feed(experiment: Experiment, phase: Phase) -> data.Feed:
    """Returns the training batches of a phase of the experiment."""
    config, augmented = experiment.config, phase.augmented
    return data.make_train_feed(
        experiment.dataset.train, batch_size=config.train.batch_size, seed=config.seed,
        mesh=experiment.mesh, image_size=phase.image_size,
        crop=experiment.preprocess.crop, interpolation=experiment.preprocess.interpolation,
        random_resized_crop=config.augment.random_resized_crop if augmented else None,
        placement=config.data.placement, threads=config.data.threads,
        workers=config.data.workers,
        repeats=config.augment.repeats if augmented else 1, on_error=config.data.on_error,
        report=experiment.bad_files.report_of(experiment.dataset.train))


def make_eval_feed(experiment: Experiment, split: data.Split | None = None) -> data.EvalFeed:
    """Returns each example of a split once, by default of the one to evaluate on."""
    config, split = experiment.config, split or experiment.dataset.eval
    return data.make_eval_feed(
        split, mesh=experiment.mesh,
        batch_size=config.eval.batch_size or config.train.batch_size,
        image_size=experiment.preprocess.size, crop=experiment.preprocess.crop,
        interpolation=experiment.preprocess.interpolation, placement=config.data.placement,
        threads=config.data.threads, workers=config.data.workers,
        on_error=config.data.on_error,
        report=experiment.bad_files.report_of(split))


def _as_it_is(tree: Any) -> Any:  # By its name JAX finds what it has compiled of it before.
    return tree


_RATES = 1024
# Jitted, because outside a trace each operation of the schedule would be compiled by itself.
_rates_of = jax.jit(lambda learning_rate, steps: jax.vmap(learning_rate)(steps), static_argnums=0)


@functools.lru_cache(64)
def _rates(learning_rate: optax.Schedule, part: int) -> np.ndarray:
    """The rates of many steps, because to compute them waits for all steps that have been begun."""
    return np.asarray(_rates_of(learning_rate, part * _RATES + np.arange(_RATES)))


def _prepare(preprocess: Preprocess, dtype: Any, images: jax.Array) -> jax.Array:
    images = augment.resize(images, preprocess.size, preprocess.interpolation)
    return augment.normalize(images, preprocess.mean, preprocess.std, dtype)
