"""The training recipe of a config: augmentation, mixing, averages and accumulation."""

from __future__ import annotations

import functools
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from cnnjax import data, trees
from cnnjax.data import augment
from cnnjax.models.remat import modules_to_rematerialise
from cnnjax.train import average as average_lib
from cnnjax.train import step as step_lib
from cnnjax.types import Preprocess, UserError


def train_size(config: ConfigDict, preprocess: Preprocess) -> tuple[int, int]:
    """Returns (H, W) of the images that the model trains on: `eval.image_size` leaves them.

    Args:
      config: of the run.
      preprocess: before `at_eval_size`; its size counts where the config says none.
    """
    if config.train.progressive:
        return (config.train.progressive[-1][1],) * 2
    side = config.data.image_size
    return (side, side) if side else preprocess.size


def make_augment(config: ConfigDict, dataset: data.Dataset, preprocess: Preprocess, dtype: Any,
                 mesh: Mesh, size: tuple[int, int]) -> step_lib.Augment:
    """Returns the (key, uint8 images) -> the model's input, of `size`, of a training step."""
    section, policy = config.augment, None
    _check_augment(section, dataset.channels)
    if section.policy != "none":
        mean = [round(255 * value) for value in preprocess.mean]
        if len(mean) != dataset.channels:  # Grey images, which become RGB with `normalize`.
            mean = round(sum(mean) / len(mean))
        policy = augment.make_policy(
            section.policy, num_ops=section.num_ops, magnitude=section.magnitude,
            magnitude_std=section.magnitude_std, method=section.resample, mesh=mesh,
            fill=mean if section.fill == "mean" else 0)
    # Images of different sizes come from the host, which has cut them.
    cut_here = dataset.train.image_shape is not None
    return functools.partial(
        augment.pipeline, size=size, mean=preprocess.mean,
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


def make_remat(config: ConfigDict, params: Any) -> frozenset[str]:
    """Returns the paths of the modules that the backward pass computes again."""
    return modules_to_rematerialise(trees.named_leaves(params), config.train.remat)


def check_ghost_batch_size(config: ConfigDict) -> int:
    """Returns `train.ghost_batch_size`, which divides the rows of a part of a batch.

    Raises:
      UserError: if it does not.
    """
    size, rows = config.train.ghost_batch_size, config.train.batch_size // config.train.accumulate
    if size and rows % size:
        raise UserError(f"train.ghost_batch_size is {size}, but it must divide the {rows} examples "
                        "of a batch (of a part of one, with train.accumulate): set "
                        f"--config.train.ghost_batch_size={_nearest_divisor(size, rows)}.")
    return size


def _nearest_divisor(size: int, rows: int) -> int:
    """Returns the divisor of `rows` nearest to a size; 1 row alone has no statistics."""
    return next((n for distance in range(max(size, rows)) for n in (size - distance,
                                                                    size + distance)
                 if n > 1 and rows % n == 0), 1)


def check_target_threshold(config: ConfigDict, num_classes: int) -> None:
    """Raises a UserError if the sigmoid loss would have the same target for every class."""
    threshold, smoothing = config.train.target_threshold, config.train.label_smoothing
    if config.train.loss != "sigmoid" or threshold is None:
        return
    others = smoothing / num_classes
    if not others <= threshold < 1 - smoothing + others:
        raise UserError(f"train.target_threshold is {threshold}, but with train.label_smoothing="
                        f"{smoothing} the target of an image's own class is "
                        f"{1 - smoothing + others:.3g} and that of the others {others:.3g}: set "
                        "it between the two, --config.train.target_threshold=0.2 for example, or "
                        "to None to train with the targets as they are.")


def check_accumulate(parts: int, batch_size: int, mesh: Mesh) -> None:
    """Raises a UserError unless the parts of `train.accumulate` divide the rows of each device."""
    rows = batch_size // mesh.size
    if rows % parts:
        # A run that goes on keeps its parts.
        fewer = next((n for n in range(mesh.size, 0, -1) if batch_size % (n * parts) == 0), None)
        raise UserError(f"train.accumulate is {parts}, but it must divide the {rows} examples of a "
                        f"batch on each device: set --config.train.accumulate to a divisor of "
                        f"{rows}" + (f", or --config.devices={fewer}." if fewer else "."))
