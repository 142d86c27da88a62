"""Whether a run can fit, from shapes alone: a batch too large is told of, and kills nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from cnnjax.analysis import summarize, text
from cnnjax.analysis.kinds import MULTIPLY
from cnnjax.types import UserError

if TYPE_CHECKING:
    from cnnjax.jobs.experiment import Experiment

# An image becomes at most about 200 times as large in the nets here, all layers together.
_LARGEST_GROWTH = 1000


def check(experiment: Experiment, trains: bool = True) -> None:
    """Checks the least that a step and an evaluation need against what a device has.

    That is the state with its gradient, the images, and what the convolutions and dense layers give
    and the backward pass takes. A run that passes may still need more.

    Args:
      experiment: of the run.
      trains: whether there will be steps, or evaluations alone.

    Raises:
      UserError: names the keys that make it too large.
    """
    config, limit = experiment.config, memory_of(experiment.mesh.devices.flat[0])
    if limit is None:
        return
    state = experiment.abstract_state
    fixed = _bytes(state) + _bytes(state.params) * trains
    if config.sharding.fsdp_min_size or config.sharding.rules:
        fixed //= experiment.mesh.size  # At the least: nothing is gathered all at once.
    if fixed > limit:
        raise UserError(
            f"The state of {config.model.name} takes {text.size(fixed)}, but a device has "
            f"{text.size(limit)}: choose smaller --config.model.* arguments (here: "
            f"{_arguments(config)}) or a smaller --config.data.image_size.")
    shape = experiment.dataset.train.image_shape
    if trains and shape and config.data.placement == "device":
        size = len(experiment.dataset.train) * math.prod(shape)
        if size + fixed > limit:
            raise UserError(f"data.placement is device, but the images take {text.size(size)} "
                            f"and a device has {text.size(limit)}: set "
                            "--config.data.placement=stream.")
    largest = max(1, config.train.batch_size // experiment.mesh.size // config.train.accumulate)
    # What is computed again need not be kept.
    whole = not config.train.remat and all(
        p.task.trainable is None and p.task.trunk is None for p in experiment.phases)
    steps = (largest, experiment.parts.train_size, "train.batch_size", whole)
    evaluations = (
        (config.eval.batch_size or config.train.batch_size) // experiment.mesh.size or 1,
        experiment.preprocess.size, "eval.batch_size", False)
    for rows, size, key, parts in (*[steps] * trains, evaluations):
        one = _bytes_of_image(experiment, size, parts, limit // rows)
        if fixed + rows * one > limit:
            raise UserError(
                f"{key}={rows * experiment.mesh.size} images of {size[0]}x{size[1]} pixels take at "
                f"least {text.size(fixed + rows * one)} on a device that has "
                f"{text.size(limit)}: set a smaller --config.{key} or "
                "--config.data.image_size" + (
                    ", or take the batch in --config.train.accumulate parts." if parts else "."))


def memory_of(device: jax.Device) -> int | None:
    """Returns the bytes that a device may use, or None if nobody knows."""
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        # XLA computes some of a too large step twice to make it smaller: be sure that it can't be.
        return 2 * stats["bytes_limit"] if "bytes_limit" in stats else None
    found = []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # "max": no limit.
            continue
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                found.append(1024 * int(line.split()[1]))
    except OSError:
        pass
    return min(found, default=None)


def _bytes_of_image(experiment: Experiment, size: tuple[int, int], all_layers: bool, limit: int
                    ) -> int:
    """Returns the bytes of an image of the model's input, and of what the layers make of it."""
    shape, width = (1, *size, experiment.preprocess.channels), experiment.dtype.itemsize
    image = math.prod(shape) * width
    if image > limit or image * _LARGEST_GROWTH < limit:
        return image
    layers = [math.prod(row.output_shape) * width
              for row in summarize(experiment.module, shape).rows if row.kind in MULTIPLY]
    return image + (sum(layers) if all_layers else max(layers, default=0))


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _arguments(config) -> str:
    return ", ".join(f"model.{k}={v}" for k, v in config.model.items() if k != "name") or "none set"
