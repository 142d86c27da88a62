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
from cnnjax import data, models, ops, trees
from cnnjax.data import augment
from cnnjax.train import average as average_lib
from cnnjax.train import schedule as schedule_lib
from cnnjax.train import state as state_lib
from cnnjax.train import step as step_lib
from cnnjax.train.loop import Every, Schedule
from cnnjax.train.optimizer import make_optimizer
from cnnjax.types import Preprocess, UserError


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a config describes, checked, with nothing of size allocated yet.

    Attributes:
      config: where it came from.
      dataset: opened, not read.
      module: the model, for the classes of the data set.
      dtype: of the computation; parameters are float32.
      preprocess: how an image becomes the model's input.
      mesh: the devices, along one axis "data".
      total_steps: of the whole run.
      learning_rate: step -> rate.
      optimizer: the optax chain.
      task: what the training step is bound to.
      schedule: when to log, evaluate, save and stop.
      abstract_state: shapes and dtypes of the training state.
    """

    config: ConfigDict
    dataset: data.Dataset
    module: nn.Module
    dtype: Any
    preprocess: Preprocess
    mesh: Mesh
    total_steps: int
    learning_rate: optax.Schedule
    optimizer: optax.GradientTransformation
    task: step_lib.Task
    schedule: Schedule
    abstract_state: state_lib.TrainState

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(1, H, W, C)."""
        return (1, *self.preprocess.size, self.preprocess.channels)

    @property
    def create_state(self) -> Callable[[], state_lib.TrainState]:
        """Returns a function of no arguments that initialises the state."""
        return functools.partial(state_lib.create_state, self.module, self.optimizer,
                                 self.config.seed, self.input_shape,
                                 average=self.config.train.ema_decay > 0)

    @property
    def prepare(self) -> Callable[[jax.Array], jax.Array]:
        """uint8 images as they come from the data set -> the model's input, for evaluation."""
        return functools.partial(_prepare, self.preprocess, self.dtype)


def build(config: ConfigDict) -> Experiment:
    """Returns the experiment that a validated config describes.

    Raises:
      UserError: for anything that could be known before the first step.
    """
    mesh = make_mesh(config.devices)
    ops.set_default(config.ops)
    dataset = open_dataset(config)
    examples, batch_size = len(dataset.train.source), config.train.batch_size
    data.check_batch_size(batch_size, examples, mesh)
    if config.checkpoint.metric == "top5" and dataset.num_classes < 6:
        raise UserError(f"checkpoint.metric is top5, but {dataset.name} has only "
                        f"{dataset.num_classes} classes. Set --config.checkpoint.metric=top1.")
    preprocess = make_preprocess(config, dataset)
    dtype = compute_dtype(config.precision)
    module = make_module(config, dataset.num_classes, dtype)
    params = check_input_size(config, module, preprocess)
    smaller = dataclasses.replace(preprocess, size=train_size(config, dataset))
    if trees.count(check_input_size(config, module, smaller)) != trees.count(params):
        raise UserError(f"{config.model.name} has other parameters for images of another size: set "
                        "--config.eval.image_size=0.")
    total = config_lib.total_steps(config, examples)
    learning_rate = make_learning_rate(config, examples, total)
    optimizer = make_optimizer(
        learning_rate=learning_rate, params=params,
        **{k: v for k, v in config.optimizer.items()})
    experiment = Experiment(
        config=config, dataset=dataset, module=module, dtype=dtype, preprocess=preprocess,
        mesh=mesh, total_steps=total, learning_rate=learning_rate, optimizer=optimizer,
        task=step_lib.Task(
            module=module, optimizer=optimizer, seed=config.seed,
            augment=make_augment(config, dataset, preprocess, dtype, mesh), mix=make_mix(config),
            loss=config.train.loss, target_threshold=config.train.target_threshold,
            label_smoothing=config.train.label_smoothing, aux_weight=config.train.aux_weight,
            accumulate=check_accumulate(config, mesh), average_decay=average_decay(config)),
        schedule=make_schedule(config, examples, total), abstract_state=None)
    return dataclasses.replace(experiment, abstract_state=jax.eval_shape(experiment.create_state))


def make_mesh(devices: int) -> Mesh:
    """Returns a mesh over the first `devices` devices, or over all of them for 0."""
    found = jax.devices()
    if devices > len(found):
        raise UserError(f"devices is {devices}, but JAX sees {len(found)} "
                        f"({found[0].platform}): set --config.devices=0 to use all there are.")
    return Mesh(np.asarray(found[:devices or None]), ("data",))


def open_dataset(config: ConfigDict) -> data.Dataset:
    """Opens the data set that the config names."""
    return data.open_dataset(
        config.data.name, data_dir=config.data.data_dir, train_split=config.data.train_split,
        eval_split=config.data.eval_split, val_fraction=config.data.val_fraction,
        split_seed=config.data.split_seed)


def make_preprocess(config: ConfigDict, dataset: data.Dataset) -> Preprocess:
    """Returns the preprocessing: the data set's statistics unless the config has its own."""
    if not config.data.image_size and dataset.train.image_shape is None:
        raise UserError(f"The images of {dataset.name} are of different sizes: set "
                        "--config.data.image_size=224 (pixels), to which they are resized.")
    mean, std = (config.data[key] or getattr(dataset, key) for key in ("mean", "std"))
    for key, value in (("mean", mean), ("std", std)):
        if len(value) != dataset.channels or not all(isinstance(v, (int, float)) for v in value):
            raise UserError(f"data.{key} is {tuple(value)}, but the images of {dataset.name} have "
                            f"{dataset.channels} channels: give one number each.")
    if min(std) <= 0:
        raise UserError(f"data.std is {tuple(std)}; a standard deviation is above 0.")
    side = config.eval.image_size
    return Preprocess(size=(side, side) if side else train_size(config, dataset),
                      mean=tuple(mean), std=tuple(std), crop=config.data.crop,
                      interpolation=config.data.interpolation)


def train_size(config: ConfigDict, dataset: data.Dataset) -> tuple[int, int]:
    """Returns (H, W) of the images that the model trains on, which `eval.image_size` leaves."""
    side = config.data.image_size
    return (side, side) if side else dataset.train.image_shape[:2]


def compute_dtype(precision: str) -> Any:
    """Returns the dtype of the computation; "auto" is bfloat16 except on CPUs."""
    if precision == "auto":
        precision = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(precision)


def make_module(config: ConfigDict, num_classes: int, dtype: Any) -> nn.Module:
    """Returns the model of `config.model`; a dtype given there wins over the precision."""
    return models.create_model(config.model.name, num_classes=num_classes,
                               **({"dtype": dtype} | config_lib.model_overrides(config)))


def check_input_size(config: ConfigDict, module: nn.Module, preprocess: Preprocess) -> Any:
    """Returns the shapes of the parameters.

    Raises:
      UserError: if the images are too small for the model; names the smallest size that is not.
    """
    def shapes(size):
        return jax.eval_shape(functools.partial(
            state_lib.init_variables, module, 0, (1, *size, preprocess.channels)))["params"]

    try:
        return shapes(preprocess.size)
    except UserError as error:
        side = min(preprocess.size)
        for larger in range(side + 1, 513):
            try:
                shapes((larger, larger))
            except UserError:
                continue
            raise UserError(
                f"Images of {preprocess.size[0]}x{preprocess.size[1]} are too small for "
                f"{config.model.name}: set --config.data.image_size={larger} or more. "
                f"({error})") from None
        raise


def make_learning_rate(config: ConfigDict, examples: int, total: int) -> optax.Schedule:
    """Returns step -> learning rate."""
    steps = functools.partial(config_lib.in_steps, config.schedule, examples=examples, total=total,
                              batch_size=config.train.batch_size, where="schedule")
    drops = steps("drop")
    return schedule_lib.make_schedule(
        config.schedule.name, total_steps=total, warmup_steps=steps("warmup") or 0.0,
        lr=peak_lr(config),
        final_lr=config.schedule.final_lr, drop_steps=drops or (),
        drop_factor=config.schedule.drop_factor)


def peak_lr(config: ConfigDict) -> float:
    """Returns the highest learning rate, scaled to the batch if the config says so."""
    return schedule_lib.scaled_lr(config.schedule.lr, config.train.batch_size,
                                  config.schedule.lr_batch_size)


def steps_per_call(config: ConfigDict) -> int:
    """Returns how many steps one call of the device makes.

    A function of the config and the backend alone, because one step and several may differ in the
    last bit: it must be the same wherever a run resumes.
    """
    if config.train.steps_per_call:
        return config.train.steps_per_call
    return 1 if jax.default_backend() == "cpu" else 16


def make_schedule(config: ConfigDict, examples: int, total: int) -> Schedule:
    """Returns when the loop logs, evaluates, saves and stops."""
    def every(section):
        interval = config_lib.in_steps(config[section], "every", examples=examples, total=total,
                                       batch_size=config.train.batch_size, where=section)
        if interval is not None and interval <= 0:
            raise UserError(f"{section}.every_* is 0; give it a length, or None for never.")
        return () if interval is None else (max(1.0, interval),)

    evaluate = every("eval")
    k, stop = steps_per_call(config), config.train.stop_after_steps
    return Schedule(
        log=Every(every("log"), total), evaluate=Every(evaluate, total),
        # At every evaluation too, or the best one might not be among those that were saved.
        save=Every(every("checkpoint") + evaluate, total),
        stop=total if stop is None else min(total, -(-stop // k) * k))


def make_augment(config: ConfigDict, dataset: data.Dataset, preprocess: Preprocess, dtype: Any,
                 mesh: Mesh) -> step_lib.Augment:
    """Returns the (key, uint8 images) -> the model's input of a training step."""
    section, policy = config.augment, None
    _check_augment(section, dataset.channels)
    if section.policy != "none":
        mean = tuple(round(255 * value) for value in preprocess.mean)
        policy = augment.make_policy(
            section.policy, num_ops=section.num_ops, magnitude=section.magnitude,
            magnitude_std=section.magnitude_std, method=section.resample, mesh=mesh,
            fill=mean if section.fill == "mean" else 0)
    # Images of different sizes come from the host, which has cut them.
    cut_here = dataset.train.image_shape is not None
    return functools.partial(
        augment.pipeline, size=train_size(config, dataset), mean=preprocess.mean,
        std=preprocess.std, dtype=dtype, interpolation=preprocess.interpolation, flip=section.flip,
        resized_crop=section.random_resized_crop if cut_here else None, pad_crop=section.pad_crop,
        jitter=section.jitter, policy=policy, erase=section.erase,
        erase_noise=section.erase_noise, mesh=mesh)


def _check_augment(section: ConfigDict, channels: int) -> None:
    if (section.policy != "none" or section.jitter) and channels not in (1, 3):
        raise UserError(f"augment.policy and augment.jitter change colours, but the images have "
                        f"{channels} channels, not 1 or 3: set --config.augment.policy=none and "
                        "--config.augment.jitter=None.")
    jitter = section.jitter
    if jitter is not None and (len(jitter) != 4 or min(jitter) < 0 or jitter[3] > 0.5):
        raise UserError(f"augment.jitter is {tuple(jitter)}; it is four strengths of brightness, "
                        "contrast, saturation and hue, 0 or more, the last at most 0.5, such as "
                        "(0.4, 0.4, 0.4, 0.1).")


def make_mix(config: ConfigDict) -> step_lib.Mix | None:
    """Returns the mixup or CutMix of a training step, or None."""
    section = config.augment
    if not section.mixup and not section.cutmix:
        return None
    return functools.partial(augment.mix, mixup=section.mixup, cutmix=section.cutmix,
                             probability=section.mix_probability,
                             cutmix_probability=section.cutmix_probability,
                             per_example=section.mix_per_example)


def average_decay(config: ConfigDict) -> float:
    """Returns the decay a step of the averages, scaled to the batch if the config says so."""
    return average_lib.scaled_decay(config.train.ema_decay, config.train.batch_size,
                                    config.train.ema_batch_size)


def check_accumulate(config: ConfigDict, mesh: Mesh) -> int:
    """Returns `train.accumulate`, which divides the rows of each device."""
    parts, rows = config.train.accumulate, config.train.batch_size // mesh.size
    if rows % parts:
        raise UserError(f"train.accumulate is {parts}, but it must divide the {rows} examples of a "
                        f"batch on each device: set --config.train.accumulate to a divisor of "
                        f"{rows}.")
    return parts


def make_train_feed(experiment: Experiment) -> data.Feed:
    """Returns the training batches of the experiment."""
    config = experiment.config
    return data.make_train_feed(
        experiment.dataset.train, batch_size=config.train.batch_size, seed=config.seed,
        mesh=experiment.mesh, image_size=train_size(config, experiment.dataset),
        crop=config.data.crop, random_resized_crop=config.augment.random_resized_crop,
        placement=config.data.placement, threads=config.data.threads,
        interpolation=config.data.interpolation, repeats=config.augment.repeats)


def make_eval_feed(experiment: Experiment):
    """Returns the evaluation batches of the experiment."""
    config = experiment.config
    return data.make_eval_feed(
        experiment.dataset.eval, batch_size=config.eval.batch_size or config.train.batch_size,
        mesh=experiment.mesh, image_size=experiment.preprocess.size, crop=config.data.crop,
        placement=config.data.placement, threads=config.data.threads,
        interpolation=config.data.interpolation)


def _prepare(preprocess: Preprocess, dtype: Any, images: jax.Array) -> jax.Array:
    images = augment.resize(images, preprocess.size, preprocess.interpolation)
    return augment.normalize(images, preprocess.mean, preprocess.std, dtype)
