"""A run's folder of checkpoints, put in order: what killed and failed saves, and damage, have left.

A checkpoint is a folder named by its step. Others are not seen: `replaced-STEP`, kept until the one
that takes its place is finished; `damaged-STEP`; and what is unfinished or on its way out.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from cnnjax import checkpoint_files as files
from cnnjax.types import UserError

REPLACED = "replaced"
GOING = "deleted"  # A rename into it is atomic, as the deletion of many files is not.
_UNFINISHED = "*.orbax-checkpoint-tmp*"


class DamagedCheckpoint(UserError):
    """A checkpoint's files are not those that were written."""


class GoneCheckpoint(UserError):
    """A checkpoint was there, and is no more: a run goes on there, and keeps only some."""


def put_in_order(folder: Path, tell: Callable[[str], None]) -> None:
    """Has process 0 remove what cannot be used; all return when that is done, or raise.

    Then the last checkpoint is whole. Of those before, all but the arrays was looked at.

    Args:
      folder: holds the checkpoints; need not exist.
      tell: gets a sentence about what is damaged and set aside.

    Raises:
      DamagedCheckpoint: if there are checkpoints and none is whole; then none is changed.
    """
    damaged = None
    if jax.process_index() == 0:
        try:
            restore_replaced(folder)
            _set_damaged_aside(folder, tell)
            remove_leftovers(folder)
        except DamagedCheckpoint as error:
            damaged = error
    if jax.process_count() > 1 and multihost_utils.process_allgather(
            np.int32(damaged is not None)).any():
        damaged = damaged or DamagedCheckpoint(
            f"Process 0 has found no checkpoint in {folder} that is whole.")
    if damaged:
        raise damaged


def restore_replaced(folder: Path) -> None:
    """Gives what was to be replaced its name back, or removes it if the other is finished."""
    for path in folder.glob(f"{REPLACED}-*"):
        target = folder / path.name.removeprefix(f"{REPLACED}-")
        if target.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(target)


def remove_leftovers(folder: Path, unfinished: bool = True) -> None:
    """Removes what is on its way out, or unfinished; what cannot be removed does no harm."""
    for path in (*(folder.glob(_UNFINISHED) if unfinished else ()), folder / GOING):
        shutil.rmtree(path, ignore_errors=True)


def _set_damaged_aside(folder: Path, tell: Callable[[str], None]) -> None:
    steps = sorted((int(p.name) for p in folder.glob("*") if p.name.isdecimal()), reverse=True)
    problems, whole = {}, None
    for step in steps:  # Those before the last that is whole are read when they are needed.
        problems[step] = files.problem(folder / str(step), arrays=whole is None)
        if whole is None and problems[step] is None:
            whole = step
    damaged = {step: problem for step, problem in problems.items() if problem}
    if not damaged:
        return
    if whole is None:
        raise DamagedCheckpoint(
            damage(folder, damaged) + " None is whole, and none was changed. Restore the folder "
            "from a copy, or start anew: move it away, or give another --workdir.")
    names = files.rename(folder, dict.fromkeys(damaged, "damaged"))
    tell(damage(folder, damaged) + " The last that is whole is at step "
         f"{whole}; what is damaged is kept as {', '.join(names)}.")


def damage(folder: Path, problems: Mapping[int, str]) -> str:
    """Returns sentences that say what is wrong with checkpoints: {step: `files.problem`}."""
    return " ".join(f"The checkpoint at step {step} in {folder} is damaged: {problem}."
                    for step, problem in problems.items())
