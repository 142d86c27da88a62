"""What every source of images gives: records `Dataset` and `Split`, and what builds them."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from cnnjax.cores import available_cores
from cnnjax.data import order
from cnnjax.data.bad_examples import BadExample
from cnnjax.types import UserError

T = TypeVar("T")
# Examples that one thread reads at a time: enough that handing out work costs nothing.
_BLOCK = 256


class RandomAccess(Protocol):
    """A sequence of examples. `source[i]` may be called from many threads at once.

    A source whose images differ in size also has `channels`, 1 or 3. One that reads several
    examples faster than one by one has `many(indices)`, which yields them in order; one that has
    all of them in memory has `arrays()`, which returns what `Split.arrays` does. One that has
    images in files has `encoded(index)`, which returns the bytes of the image, the label and where
    it lies; `name(index)`, which file it is or was; and `num_bytes`, of all on disk, or None.

    An example that cannot be read, where others may be fine, raises a `bad_examples.BadExample`.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Returns (image uint8 [H, W, C], label)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """A part of a data set.

    Attributes:
      name: such as "train" or "test[:50%]".
      source: the examples: `source[i]` is (image uint8 [H, W, C], label int).
      image_shape: (H, W, C) of every image, or None when they differ in size.
    """

    name: str
    source: RandomAccess
    image_shape: tuple[int, int, int] | None

    def __len__(self) -> int:
        return len(self.source)

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for RGB; others have a meaning of their own."""
        return self.image_shape[-1] if self.image_shape else self.source.channels

    def name_of(self, index: int) -> str:
        """Returns the file of an example, or "train[7]"."""
        if hasattr(self.source, "name"):
            return self.source.name(index)
        return f"{self.name}[{index}]"

    def of_another_size(self, index: int, image: np.ndarray) -> BadExample | None:
        """Returns what is wrong with an image [H, W, C] that has not the size of all, if any."""
        if self.image_shape in (None, image.shape):
            return None
        return BadExample(self.name_of(index), "is an image of {}x{}, but the others are "
                          "{}x{}".format(*image.shape[:2], *self.image_shape[:2]),
                          "remove it, or make all of one size")

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns all examples: images uint8 [N, H, W, C] and labels int32 [N], read-only.

        They are read once, by all cores, and kept.

        Raises:
          BadExample: if an example cannot be read, or has another size than the others.
          UserError: if a label is not a class.
          ValueError: if the images differ in size.
        """
        return self._arrays

    @functools.cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        if self.image_shape is None:
            raise ValueError(f"The images of {self.name} differ in size; there is no one array.")
        arrays = self.source.arrays() if hasattr(self.source, "arrays") else self._read_all()
        for array in arrays:  # Shared by all who ask, and on CPU with the device.
            array.flags.writeable = False
        return arrays

    def _read_all(self) -> tuple[np.ndarray, np.ndarray]:
        images = np.empty((len(self), *self.image_shape), np.uint8)
        labels = np.empty(len(self), np.int32)

        def read(rows: range) -> None:
            for i, (image, label) in zip(rows, read_many(self.source, rows), strict=True):
                if bad := self.of_another_size(i, image):
                    raise bad
                images[i], labels[i] = image, label

        in_blocks(read, len(self))
        return images, labels


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """An image classification data set, opened.

    Attributes:
      name: as given to `open_dataset`.
      class_names: in the order of the labels.
      train: the examples to train on.
      eval: the examples to evaluate on.
      mean: per channel, of images scaled to [0, 1].
      std: likewise.
      fingerprint: 16 hex digits that change when the data change.
      divided: whether `eval` was drawn at random from examples of which others are to train on:
        from others, even a single one more, another part is drawn.
      notes: what was taken for granted, and what to do if it is not so; sentences.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    eval: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    divided: bool = False
    notes: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for RGB; others have a meaning of their own."""
        return len(self.mean)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


class ArraySource:
    """Examples in memory: images uint8 [N, H, W, C] and labels int32 [N]."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self._images[index], int(self._labels[index])

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return self._images, self._labels


class NotPrepared(UserError):
    """A TFDS data set is not on this machine, or not in a form that can be read here.

    Attributes:
      name: the data set, as the user wrote it.
      data_dir: the directory that was looked in.
      reason: what is wrong with the data there, if it is not simply absent.
    """

    def __init__(self, name: str, data_dir: str | os.PathLike[str], *, reason: str = "",
                 command: str = "python launch.py --job=prepare --config=FILE[:PRESET]"):
        self.name, self.data_dir, self.reason = name, str(data_dir), reason
        reason = reason or (f"is not prepared in {self.data_dir}. This command downloads and "
                            "prepares it there")
        super().__init__(
            f"The data set {name!r} {reason}:\n  {command}\n"
            "Another directory is named by --config.data.data_dir=DIR or by the environment "
            "variable TFDS_DATA_DIR.")


def read_many(source: RandomAccess, indices: Sequence[int]) -> Iterable[tuple[np.ndarray, int]]:
    """Yields source[i] for the indices, by the fastest way that the source has."""
    if hasattr(source, "many"):
        return source.many(indices)
    return (source[i] for i in indices)


def in_blocks(read: Callable[[range], T], count: int, threads: int = 0) -> list[T]:
    """Returns read(rows) of consecutive rows, which are 0..count-1 together, by many threads.

    Args:
      read: called with at most 256 rows.
      count: number of rows.
      threads: 0 for one a core.
    """
    blocks = [range(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK)]
    with concurrent.futures.ThreadPoolExecutor(threads or available_cores()) as pool:
        return list(pool.map(read, blocks))


def check_labels(labels: np.ndarray, num_classes: int, where: str) -> None:
    """Raises a UserError that names the first label outside 0..num_classes-1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        raise UserError(
            f"{where}: the label of example {wrong[0]} is {labels[wrong[0]]}, but there are "
            f"{num_classes} classes, 0 to {num_classes - 1} ({wrong.size} such labels). "
            "Number the classes from 0, or take a split that has labels.")


def numbered_classes(labels: np.ndarray, where: object, place: str) -> tuple[str, ...]:
    """Returns "0", "1", … up to the largest label.

    Args:
      labels: int [N], of all splits.
      where: the data set, for the message.
      place: where their names could be, likewise.

    Raises:
      UserError: if the numbers are higher than those of classes could be.
    """
    highest = int(labels.max())
    if highest >= len(labels):
        raise UserError(f"{where}: the largest label is {highest}, but there are only "
                        f"{len(labels)} examples. Number the classes from 0 without gaps, or save "
                        f"their names {place}.")
    return tuple(str(i) for i in range(highest + 1))


def stratified_split(labels: np.ndarray, fraction: float, seed: int
                     ) -> tuple[np.ndarray, np.ndarray]:
    """Divides examples at random so that each class keeps its share in both parts.

    The second part gets ceil(fraction * N) examples, divided over the classes by largest
    remainder; beyond that every class of two or more is in both parts, and one of a single
    example in the first. A pure function of the arguments, on any version of NumPy.

    Args:
      labels: int [N].
      fraction: of the second part, between 0 and 1.
      seed: any integer.

    Returns:
      The indices of the first and of the second part, each ascending, int32.

    Raises:
      UserError: if the fraction is not between 0 and 1, or no class has two examples.
    """
    if not 0 < fraction < 1:
        raise UserError(f"val_fraction is {fraction}; it is a share between 0 and 1, such as 0.2.")
    # A class may have any number until it is checked: the count of each must not be of up to that.
    labels = np.unique(labels, return_inverse=True)[1]
    counts = np.bincount(labels)
    quota = counts * fraction
    take = np.floor(quota).astype(int)
    missing = max(0, math.ceil(len(labels) * fraction - 1e-9) - take.sum())
    take[np.argsort(take - quota, kind="stable")[:missing]] += 1
    take = np.clip(take, np.minimum(1, counts - 1).clip(0), np.maximum(counts - 1, 0))
    if not take.any():
        raise UserError("No class has two examples, so that none can be kept to evaluate on: add "
                        "some, or name others with --config.data.eval_split.")
    shuffled = order.permutation(seed, 0, order.SPLIT, len(labels))
    chosen = [shuffled[labels[shuffled] == c][:n] for c, n in enumerate(take)]
    second = np.sort(np.concatenate(chosen)).astype(np.int32)
    return np.setdiff1d(np.arange(len(labels), dtype=np.int32), second), second


def digest(*parts: Any) -> str:
    """Returns 16 hex digits of what the arguments are: bytes, or anything that JSON can hold."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode())
        sha.update(b"\0")
    return sha.hexdigest()[:16]
