"""Images read out of tar files one by one, at random, without extracting them."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from collections.abc import Callable, Collection, Sequence

import numpy as np

from cnnjax.data import dataset, decode
from cnnjax.data.dataset import Split
from cnnjax.data.slices import EVAL_NAMES, parse_split, shuffled_part, shuffling_seed
from cnnjax.data.tar_index import BLOCK, Shard
from cnnjax.types import UserError

# Bytes that are read with an image: its header, and one before that with a name of up to 1.5 KB.
_BEFORE = 6 * BLOCK


class TarSource:
    """Images in tar files, decoded when asked for: RGB uint8 [H, W, 3], and the label.

    It holds arrays and paths, no open file: it may be used by many threads, and sent to other
    processes. Opening a file costs 5 µs where decoding costs some thousand.

    Args:
      shards: the tar files.
      rows: which of their images, counted through all of them; None is all.
    """

    channels = 3

    def __init__(self, shards: Sequence[Shard], rows: np.ndarray | None = None):
        which = np.repeat(np.arange(len(shards), dtype=np.int32), [len(s.labels) for s in shards])
        arrays = (which, *(np.concatenate([getattr(shard, name) for shard in shards])
                           for name in ("offsets", "sizes", "labels")))
        self._paths = [shard.path for shard in shards]
        self._which, self._offsets, self._sizes, self.labels = (
            arrays if rows is None else (array[rows] for array in arrays))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_bytes(self) -> int:
        """Of the encoded images."""
        return int(self._sizes.sum())

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        data, label, name = self.encoded(index)
        return decode.decode_image(data, name), label

    def name(self, index: int) -> str:
        """Returns "path of the tar file: name in it". Raises as `encoded` does."""
        return self._read(index, 0)[1]

    def encoded(self, index: int) -> tuple[bytes, int, str]:
        """Returns (the bytes of the image, label, "path of the tar file: name in it").

        Raises:
          UserError: if the file is not there, or has changed since it was looked through.
        """
        data, name = self._read(index, int(self._sizes[index]))
        return data, int(self.labels[index]), name

    def _read(self, index: int, count: int) -> tuple[bytes, str]:
        """Returns the first `count` bytes of the image, and its name."""
        path = self._paths[self._which[index]]
        start, size = int(self._offsets[index]), int(self._sizes[index])
        before = min(start, _BEFORE)
        try:
            file = os.open(path, os.O_RDONLY)
            try:
                # With the header before it, which says whether this is still the image.
                data = os.pread(file, before + count, start - before)
            finally:
                os.close(file)
            header = tarfile.TarInfo.frombuf(data[before - BLOCK:before], "utf-8", "replace")
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from None
        except tarfile.TarError:
            header = None
        if header is None or header.size != size or len(data) != before + count:
            raise UserError(f"{path} has changed since it was looked through, or is damaged, near "
                            f"byte {start:,}: run the command again, so that its index is made "
                            "anew.")
        return data[before:], f"{path}: {_long_name(data[:before]) or header.name}"


def _long_name(blocks: bytes) -> str | None:
    """Returns the name in a header that stands before the last one of `blocks` and belongs to it.

    There are names that are long or not ASCII (POSIX.1-2001, "pax", and GNU's "L"); the header
    itself has what of them fits.
    """
    for start in range(len(blocks) - 3 * BLOCK, -1, -BLOCK):
        if blocks[start + 156] in b"xL" and blocks[start + 257:start + 262] == b"ustar":
            with contextlib.suppress(tarfile.TarError, ValueError):
                member = tarfile.TarFile(fileobj=io.BytesIO(blocks[start:]), encoding="utf-8",
                                         errors="replace").firstmember
                if member.offset_data == len(blocks) - start:
                    return member.name
    return None


def common_shape(shards: Sequence[Shard]) -> tuple[int, int, int] | None:
    """Returns (H, W, 3) if all images have one size, else None."""
    shapes = {shard.shape for shard in shards}
    first = next(iter(shapes))
    return None if len(shapes) > 1 or first is None else (*first, 3)


def open_splits(shards_of: Callable[[str], Sequence[Shard]], names: Collection[str],
                train_name: str, eval_name: str | None, val_fraction: float, split_seed: int,
                where: str) -> tuple[Split, Split, str]:
    """Opens the images to train and to evaluate on.

    Args:
      shards_of: the tar files of one of `names`.
      names: of the splits that there are.
      train_name: one of them, or a part of one, taken after `split_seed` has shuffled it.
      eval_name: likewise; None divides the training images at random, each class in proportion,
        and calls the second part "val".
      val_fraction: the size of that part, between 0 and 1.
      split_seed: any integer.
      where: the data set, for messages.

    Returns:
      Both splits, and 16 hex digits that change with what is in them.

    Raises:
      UserError: if there is no such split, or nothing is left of it.
    """
    base, _ = parse_split(train_name, names, where)
    divided: dict[str, np.ndarray] = {}
    if eval_name is None and base == "val":
        eval_name = base  # `open_dataset` refuses it, and says what to do.
    if eval_name is None or (eval_name.partition("[")[0] == "val"
                             and not set(EVAL_NAMES) & set(names)):
        labels = np.concatenate([shard.labels for shard in shards_of(base)])
        divided = dict(zip((base, "val"), dataset.stratified_split(
            labels, val_fraction, split_seed), strict=True))
        eval_name = eval_name or "val"
    digests: dict[str, list[str]] = {}

    def split(name: str) -> Split:
        group, part = parse_split(name, {**dict.fromkeys(names), **divided}, where)
        rows = divided.get(group)
        group = base if rows is not None else group
        shards = shards_of(group)
        digests[group] = [shard.digest for shard in shards]
        count = sum(len(shard.labels) for shard in shards) if rows is None else len(rows)
        chosen = shuffled_part(part, count, split_seed, where)
        if chosen is not None:
            rows = chosen if rows is None else rows[chosen]
        return Split(name, TarSource(shards, rows), common_shape(shards))

    train, evaluation = split(train_name), split(eval_name)
    return train, evaluation, dataset.digest(
        train.name, evaluation.name, len(train), len(evaluation), digests,
        (val_fraction, split_seed) if divided
        else shuffling_seed(split_seed, train.name, evaluation.name))
