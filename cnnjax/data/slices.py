"""Names of splits, such as "train[:50%]", for the sources that are not TFDS (which has its own)."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from cnnjax.data import order
from cnnjax.types import UserError, did_you_mean

# What is evaluated on where nothing else is asked for, in this order.
EVAL_NAMES = ("val", "valid", "validation", "test")
# What splits are called; those that are not above are evaluated on where they are asked for.
SPLIT_NAMES = ("train", *EVAL_NAMES, "training", "testing", "eval", "evaluation", "dev")
_BOUND = r"(-?\d+%?)?"
_SPLIT = re.compile(rf"([^\[\]]+)(?:\[{_BOUND}:{_BOUND}\])?")


def parse_split(split: str, known: Collection[str], where: str) -> tuple[str, slice]:
    """Reads a split name: returns ("train", slice) where the slice counts percent or examples.

    Args:
      split: "train", "train[:50%]", "train[100:-100]".
      known: the names that exist.
      where: the data set, for the message.

    Raises:
      UserError: if the text is no split, or names none of `known`.
    """
    match = _SPLIT.fullmatch(split)
    if not match or match[1] not in known:
        raise UserError(f"{where}: there is no split {split!r}. There are: {', '.join(known)}; "
                        "a part of one is written like 'train[:80%]' or 'train[1000:]'."
                        + did_you_mean(match[1] if match else split, known))
    return match[1], slice(match[2], match[3])


def slice_range(part: slice, count: int, where: str) -> range:
    """Returns the positions that a slice of `parse_split` selects out of `count`, as TFDS would.

    Percent are rounded to the nearest example.

    Raises:
      UserError: if nothing is left.
    """
    def position(bound: str | None, default: int) -> int:
        if bound is None:
            return default
        value = round(int(bound[:-1]) * count / 100) if bound.endswith("%") else int(bound)
        return min(max(value + count if value < 0 else value, 0), count)

    chosen = range(position(part.start, 0), position(part.stop, count))
    if not chosen:
        raise UserError(f"{where}: [{part.start or ''}:{part.stop or ''}] of {count} examples "
                        "leaves none.")
    return chosen


def shuffled_part(part: slice, count: int, seed: int, where: str) -> np.ndarray | None:
    """Returns which of `count` examples a part holds, taken after shuffling, ascending int32.

    None is all of them. For data that may lie in the order of their classes.

    Raises:
      UserError: if nothing is left.
    """
    if part == slice(None, None):
        return None
    chosen = slice_range(part, count, where)
    return np.sort(order.permutation(seed, 1, order.SPLIT, count)[chosen.start:chosen.stop])


def is_part_of(evaluation: str, train: str) -> bool:
    """Whether a split to evaluate on is a part of that to train on, such as "train[80%:]"."""
    return "[" in evaluation and evaluation.partition("[")[0] == train.partition("[")[0]


def shuffling_seed(seed: int, *splits: str) -> tuple[int, ...]:
    """Returns what a fingerprint says of the seed by which parts of these splits were taken.

    Seed 0 is left out: so it was for all seeds, and what was made then is the same still.
    """
    return (seed,) if seed and any("[" in split for split in splits) else ()


def default_eval(names: Iterable[str], train: str, where: str) -> str | None:
    """Returns the split to evaluate on where none is named, or None if there is none.

    Raises:
      UserError: if one is called something else than `EVAL_NAMES`.
    """
    found = next((name for name in EVAL_NAMES if name in names and name != train), None)
    others = [name for name in names if name != train and is_split_name(name)
              and name.lower() not in ("train", "training")]
    if not found and others:
        raise UserError(f"{where} has {', '.join(others)} besides {train}: name what to evaluate "
                        f"on with --config.data.eval_split={others[0]}.")
    return found


def check_eval_folder(root: Path, names: Collection[str], eval_split: str | None, takes: str
                      ) -> None:
    """Checks that what is called as the split to evaluate on is one: nothing else takes its place.

    A folder "test" that holds no split is passed over: images to test on often come without their
    classes.

    Args:
      root: the folder of the splits.
      names: those that were found there.
      eval_split: what to evaluate on; None is the first of `EVAL_NAMES`.
      takes: what a split consists of, for the message.

    Raises:
      UserError: if it is there, such as a link to nothing or an empty folder, and holds no split.
    """
    asked = [eval_split.partition("[")[0]] if eval_split else itertools.takewhile(
        lambda name: name not in names, EVAL_NAMES[:-1])
    for name in asked:
        if name not in names and os.path.lexists(root / name):
            raise UserError(f"{root / name} holds no split to evaluate on: that takes {takes}. "
                            "Mend it; or, to evaluate on a part of the training images, move it "
                            "away.")


def is_passed_over(name: str) -> bool:
    """Whether a folder of this name is no part of any data set.

    Besides hidden ones that is what ext4 has at the top of a disk, and only root may read.
    """
    return name.startswith(".") or name == "lost+found"


def is_split_name(name: str) -> bool:
    """Whether splits are called so, in whatever case."""
    return name.lower() in SPLIT_NAMES
