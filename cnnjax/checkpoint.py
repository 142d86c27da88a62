"""Orbax checkpoints: the arrays, and beside them a record of what they are.

A checkpoint holds two items: `state`, the arrays, and `record`, JSON: config, model, preprocessing,
class names, data set and its fingerprint, versions, git commit, and the metrics at that step.

What may go wrong, and what happens then: a checkpoint that was not finished has another name and is
never seen (`checkpoint_folder`); of one that is damaged the checksums tell (`checkpoint_files`),
and the one before it is used; one that cannot be written is an entry in `errors`, and the run goes
on.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from cnnjax import checkpoint_files as files
from cnnjax.checkpoint_folder import (
    GOING,
    REPLACED,
    DamagedCheckpoint,
    GoneCheckpoint,
    damage,
    put_in_order,
    remove_leftovers,
    restore_replaced,
)
from cnnjax.types import UserError

PyTree = Any
_LOWER_IS_BETTER = ("loss",)


def warn(message: str) -> None:
    """Prints a warning where it is seen in a batch job's log."""
    print(f"Warning: {message}", file=sys.stderr, flush=True)


class Checkpoints:
    """The checkpoints of one run.

    Args:
      folder: where they lie, each in a folder named by its step.
      keep_last: how many of the newest to keep.
      keep_best: how many of the best by `metric` to keep besides.
      metric: "top1", "top5" or "loss", of the evaluation at the checkpoint's step.
      read_only: never creates or deletes anything.
      tell: gets a sentence about what is damaged and what cannot be written; default: to stderr.

    Unless it is read-only, opening removes what a killed process left unfinished, and gives what is
    damaged another name (`damaged-STEP`), so that its step can be saved again.

    Attributes:
      errors: of saves that failed: {"step": …, "error": …}, the first first.

    Raises:
      DamagedCheckpoint: if there are checkpoints and none is whole; then none is changed.
      UserError: if the folder's name is not UTF-8 or, unless read-only, a pattern.
    """

    def __init__(self, folder: str | Path, *, keep_last: int = 1, keep_best: int = 0,
                 metric: str = "top1", read_only: bool = False,
                 tell: Callable[[str], None] = warn):
        self._folder = Path(folder).absolute()
        files.check_name(self._folder, read_only)
        self._metric, self._tell = metric, tell
        self._saving: int | None = None  # The step of the save that may not have ended.
        self._removing: threading.Thread | None = None  # What it has replaced.
        self.errors: list[dict[str, Any]] = []
        logging.getLogger("absl").addFilter(_drop_tracebacks)
        if not read_only:
            put_in_order(self._folder, tell)
        keep = [policies.LatestN(keep_last)]
        best = dict(get_metric_fn=lambda metrics: metrics[metric])
        if keep_best:
            keep.append(policies.BestN(**best, n=keep_best, reverse=metric in _LOWER_IS_BETTER,
                                       keep_checkpoints_without_metrics=False))
        # Read-only is what was asked for; a warning that says so is noise.
        with _quiet(logging.ERROR if read_only else logging.WARNING):
            self._manager = ocp.CheckpointManager(
                self._folder, item_names=("state", "record"),
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=policies.AnyPreservationPolicy(keep),
                    # Without it the scores would not be written, and the best of the steps before
                    # a restart would be unknown, and deleted.
                    best_fn=best["get_metric_fn"] if keep_best and not read_only else None,
                    todelete_subdir=None if read_only else GOING,
                    lightweight_initialize=read_only,
                    create=not read_only, read_only=read_only,
                    async_options=None if read_only else ocp.AsyncOptions(
                        post_finalization_callback=self._seal),
                    enable_async_checkpointing=not read_only))

    def steps(self) -> list[int]:
        """Returns the steps of the finished checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def find(self, which: str) -> int:
        """Returns the step of "last", "best" (by the metric) or a number given as text.

        Of the last and the best a damaged one is told of, and the next is taken. While a run goes
        on in the folder, they are those of one moment.

        Raises:
          DamagedCheckpoint: if what is left is damaged.
          UserError: if there is no such checkpoint; the message lists those there are.
        """
        try:
            return self._find(which)
        except GoneCheckpoint:
            self._manager.reload()
            return self.find(which)

    def _find(self, which: str) -> int:
        steps = self.steps()
        candidates = [int(which)] if which.isdecimal() and int(which) in steps else []
        if which == "last":
            candidates = steps[::-1]
        if which == "best":
            sign = -1 if self._metric in _LOWER_IS_BETTER else 1
            scores = {step: self._score(step) for step in steps}
            # Of two equal ones the later is the better: it has seen more.
            candidates = sorted((s for s in steps if scores[s] is not None),
                                key=lambda s: (sign * scores[s], s), reverse=True)
        damaged = {}
        for step in candidates:
            if not (problem := files.problem(self._folder / str(step))):
                if damaged:
                    self._tell(damage(self._folder, damaged) + f" Using step {step} instead.")
                return step
            self._check_there(step)
            damaged[step] = problem
        if damaged:
            raise DamagedCheckpoint(damage(self._folder, damaged))
        raise UserError(f"There is no checkpoint {which!r} in {self._folder}. "
                        + (f"There are: last, {', '.join(map(str, steps))}, and best if "
                           f"{self._metric} was evaluated where it was saved."
                           if steps else "There is none at all: train first."))

    def _score(self, step: int) -> float | None:
        try:
            return self.record(step)["metrics"].get(f"eval_{self._metric}")
        except DamagedCheckpoint:
            return None

    def save(self, step: int, state: PyTree, record: dict[str, Any]) -> None:
        """Starts to save, and returns when `state` may change; the writing goes on behind.

        A save that fails, now or behind, is told of and put into `errors`; the checkpoints before
        it stay, and what was written of it goes. Of several processes those that did not fail may
        wait for the one that did: there the error is raised.
        """
        self.wait()
        metrics = record["metrics"]
        scores = {name: metrics[f"eval_{name}"] for name in ("top1", "top5", "loss")
                  if metrics.get(f"eval_{name}") is not None}
        self._saving = step
        try:
            self._probe()
            # Not each checkpoint is evaluated; Orbax would warn of every one that is not.
            with _quiet(logging.ERROR):
                self._manager.save(
                    step, args=ocp.args.Composite(state=ocp.args.StandardSave(state),
                                                  record=ocp.args.JsonSave(record)),
                    metrics=scores if self._metric in scores else None, force=True)
        except Exception as error:  # Of the file system, in the words of several libraries.
            self._failed(error)

    def _probe(self) -> None:
        """Raises an OSError if nothing can be written: Orbax would find out too late.

        Where it cannot make its folders, its threads wait for them for minutes, and with them the
        end of the process.
        """
        if jax.process_index() == 0:
            files.probe(self._folder / f"{self._saving}.orbax-checkpoint-tmp-probe")

    def _seal(self) -> None:
        """Writes the files. Orbax calls it in its thread, before the rename that finishes."""
        if jax.process_index() == 0:
            for folder in self._folder.glob(f"{self._saving}.orbax-checkpoint-tmp*"):
                files.write_checksums(folder)

    def _failed(self, error: Exception) -> None:
        step, self._saving, said = self._saving, None, files.in_one_line(error)
        if jax.process_count() > 1:
            raise OSError(f"the checkpoint at step {step} could not be saved: {said}") from error
        self.errors.append({"step": step, "error": said})
        restore_replaced(self._folder)
        remove_leftovers(self._folder)
        self._manager.reload()
        steps = self.steps()
        self._tell(f"the checkpoint at step {step} could not be saved: {said}. "
                   + (f"The last good one is at step {steps[-1]}." if steps else
                      "There is no other yet.") + " The next save tries again.")

    def check(self) -> None:
        """Notices a save that has failed or ended behind, without waiting for one that has not."""
        # When a save is seen to have ended differs between processes, and what follows must not.
        if jax.process_count() > 1:
            return
        if self._saving is not None and not self._manager.is_saving_in_progress():
            self._end_save()

    def set_aside(self, steps: Mapping[int, str]) -> list[str]:
        """Gives checkpoints, {step: word}, other names, WORD-STEP: they are no longer seen.

        Returns:
          The names; of process 0 alone, which gives them.
        """
        names = files.rename(self._folder, steps) if jax.process_index() == 0 else []
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("set aside")
        self._manager.reload()
        return names

    def check_last(self) -> None:
        """Sets aside what is damaged, as opening does: the last, if there is one, is then whole."""
        put_in_order(self._folder, self._tell)
        self._manager.reload()

    def replace(self, step: int) -> None:
        """Makes room for another checkpoint at a step. Until that is finished the old one counts.

        If the process ends before, the next start gives the old one its name back.
        """
        if step in self.steps():
            self.wait()
            self.set_aside({step: REPLACED})

    def record(self, step: int) -> dict[str, Any]:
        """Returns what was written beside the arrays."""
        with _quiet(), self._damage_of(step):
            return self._manager.restore(
                step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]

    def restore(self, step: int, abstract: PyTree, sharding: PyTree) -> PyTree:
        """Returns the state at `step`, in the structure of `abstract`, on this run's devices.

        Args:
          step: of a finished checkpoint.
          abstract: `jax.eval_shape` of the state.
          sharding: of every array, or one for each. How the checkpoint lay on the devices that
            wrote it does not matter.
        """
        if isinstance(sharding, jax.sharding.Sharding):
            sharding = jax.tree.map(lambda _, where=sharding: where, abstract)
        target = jax.tree.map(
            lambda a, where: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where), abstract,
            sharding)
        with _quiet(), self._damage_of(step):
            return self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target)))["state"]

    @contextlib.contextmanager
    def _damage_of(self, step: int) -> Iterator[None]:
        """Makes what a reader stumbles over a `DamagedCheckpoint`, if the files are damaged.

        Or a `GoneCheckpoint`, if it went meanwhile: even if nothing failed, to be sure that all of
        it was read.
        """
        try:
            yield
        except Exception as error:
            self._check_there(step)
            folder = self._folder / str(step)
            problem = files.problem(folder)
            if problem is None and (folder / files.NAME).exists():
                raise  # The files are those that were written, so the mistake is in the program.
            raise DamagedCheckpoint(damage(
                self._folder, {step: problem or files.in_one_line(error)})) from error
        self._check_there(step)

    def _check_there(self, step: int) -> None:
        if not (self._folder / str(step)).exists():
            raise GoneCheckpoint(
                f"The checkpoint at step {step} in {self._folder} is gone: the run that goes on "
                "there has replaced it. Give the same command again.")

    def restore_parts(self, step: int, parts: Sequence[str]) -> dict[str, PyTree]:
        """Returns some fields of the state, those of `parts` that there are, as NumPy arrays.

        For readers that don't know how the state was trained: no structure need be given, and
        neither the optimiser's arrays are read nor the devices of that run looked for.
        """
        with (_quiet(logging.ERROR), self._damage_of(step),
              ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader):
            path = self._folder / str(step) / "state"
            saved = reader.metadata(path).item_metadata.tree
            wanted = {name: saved[name] for name in parts if name in saved}
            types = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
            return reader.restore(path, args=ocp.args.PyTreeRestore(
                wanted, types, partial_restore=True))

    def wait(self) -> None:
        """Returns when everything that was saved is on disk, or has failed."""
        self._end_save()
        if self._removing is not None:  # Orbax must not move another there meanwhile.
            self._removing.join()
            self._removing = None

    def _end_save(self) -> None:
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            self._failed(error)
        if self._saving is not None:
            self._saving = None
            if jax.process_index() == 0:
                restore_replaced(self._folder)
                # In a thread: the dozen files of an old checkpoint can take ten steps' time.
                self._removing = threading.Thread(target=remove_leftovers,
                                                  args=(self._folder, False))
                self._removing.start()

    def close(self) -> None:
        """Waits, and ends the threads."""
        self.wait()
        with _quiet():
            self._manager.close()


def _drop_tracebacks(record: logging.LogRecord) -> bool:
    """Whether a line is to be logged: not what Orbax logs of errors, which are told of here."""
    return not (record.exc_info and "orbax" in record.pathname)


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
