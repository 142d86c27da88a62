"""Orbax checkpoints: the arrays, and beside them a record of what they are.

A checkpoint holds two items: `state`, the arrays, and `record`, JSON: config, model, preprocessing,
class names, data set and its fingerprint, versions, git commit, and the metrics at that step.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from cnnjax.types import UserError

PyTree = Any
_LOWER_IS_BETTER = ("loss",)


class Checkpoints:
    """The checkpoints of one run.

    Args:
      folder: where they lie, each in a folder named by its step.
      keep_last: how many of the newest to keep.
      keep_best: how many of the best by `metric` to keep besides.
      metric: "top1", "top5" or "loss", of the evaluation at the checkpoint's step.
      read_only: never creates or deletes anything.
    """

    def __init__(self, folder: str | Path, *, keep_last: int = 1, keep_best: int = 0,
                 metric: str = "top1", read_only: bool = False):
        self._folder = Path(folder).absolute()
        self._metric = metric
        keep = [policies.LatestN(keep_last)]
        if keep_best:
            keep.append(policies.BestN(get_metric_fn=lambda metrics: metrics[metric],
                                       n=keep_best, reverse=metric in _LOWER_IS_BETTER,
                                       keep_checkpoints_without_metrics=False))
        # Read-only is what was asked for; a warning that says so is noise.
        with _quiet(logging.ERROR if read_only else logging.WARNING):
            self._manager = ocp.CheckpointManager(
                self._folder, item_names=("state", "record"),
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=policies.AnyPreservationPolicy(keep),
                    create=not read_only, read_only=read_only,
                    enable_async_checkpointing=not read_only))

    def steps(self) -> list[int]:
        """Returns the steps of the finished checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def find(self, which: str) -> int:
        """Returns the step of "last", "best" (by the metric) or a number given as text.

        Raises:
          UserError: if there is no such checkpoint; the message lists those there are.
        """
        steps = self.steps()
        if which == "last" and steps:
            return steps[-1]
        if which == "best" and steps:
            sign = -1 if self._metric in _LOWER_IS_BETTER else 1
            scores = {s: self.record(s)["metrics"].get(f"eval_{self._metric}") for s in steps}
            scored = [s for s in steps if scores[s] is not None]
            if scored:
                # Of two equal ones the later is the better: it has seen more.
                return max(scored, key=lambda s: (sign * scores[s], s))
        if which.isdecimal() and int(which) in steps:
            return int(which)
        raise UserError(f"There is no checkpoint {which!r} in {self._folder}. "
                        + (f"There are: last, {', '.join(map(str, steps))}, and best if "
                           f"{self._metric} was evaluated where it was saved."
                           if steps else "There is none at all: train first."))

    def save(self, step: int, state: PyTree, record: dict[str, Any]) -> None:
        """Starts to save, and returns when `state` may change; the writing goes on behind."""
        metrics = record["metrics"]
        scores = {name: metrics[f"eval_{name}"] for name in ("top1", "top5", "loss")
                  if metrics.get(f"eval_{name}") is not None}
        with _quiet():
            self._manager.save(
                step, args=ocp.args.Composite(state=ocp.args.StandardSave(state),
                                              record=ocp.args.JsonSave(record)),
                metrics=scores if self._metric in scores else None, force=True)

    def record(self, step: int) -> dict[str, Any]:
        """Returns what was written beside the arrays."""
        with _quiet():
            return self._manager.restore(
                step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]

    def restore(self, step: int, abstract: PyTree, sharding: jax.sharding.Sharding) -> PyTree:
        """Returns the state at `step`, in the structure of `abstract`, on this run's devices.

        Args:
          step: of a finished checkpoint.
          abstract: `jax.eval_shape` of the state.
          sharding: of every array that has none of its own in `abstract`. How and by what devices
            the checkpoint was written doesn't matter.
        """
        target = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding or sharding),
            abstract)
        with _quiet():
            return self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target)))["state"]

    def restore_parts(self, step: int, parts: Sequence[str]) -> dict[str, PyTree]:
        """Returns some fields of the state, those of `parts` that there are, as NumPy arrays.

        For readers that don't know how the state was trained: no structure need be given, and
        neither the optimiser's arrays are read nor the devices of that run looked for.
        """
        with _quiet(logging.ERROR), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            path = self._folder / str(step) / "state"
            saved = reader.metadata(path).item_metadata.tree
            wanted = {name: saved[name] for name in parts if name in saved}
            types = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
            return reader.restore(path, args=ocp.args.PyTreeRestore(
                wanted, types, partial_restore=True))

    def wait(self) -> None:
        """Returns when everything that was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and ends the threads."""
        with _quiet():
            self._manager.close()


@contextlib.contextmanager
def _quiet(least: int = logging.WARNING) -> Iterator[None]:
    """Orbax logs dozens of lines for every checkpoint; its warnings and errors still show."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(max(level, least))
    try:
        yield
    finally:
        logger.setLevel(level)
