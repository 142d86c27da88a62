"""Prepared copies: encoded images in ArrayRecord files, as `resized_copy.write_copy` makes them.

A record is a tf.train.Example with "image" (the bytes of the file), "label" and "name" (that of
the original), so that TensorFlow's and Grain's own tools read it too. ArrayRecord keeps a checksum
of each.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.data import dataset, decode, statistics
from cnnjax.data.array_record import unread
from cnnjax.data.dataset import Dataset, Split
from cnnjax.data.slices import is_part_of, parse_split, shuffled_part, shuffling_seed
from cnnjax.files import expanded
from cnnjax.types import UserError, did_you_mean

ABOUT = "dataset.json"
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class _File:
    """What ArrayRecord wants to know of a file, so that it need not open all at the start."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


class RecordSource:
    """Images of a prepared copy, decoded when asked for: RGB uint8 [H, W, 3], and the label.

    It may be used by many threads, and sent to other processes. It has no `many`: that of
    ArrayRecord starts up to 64 threads for each call, which for 16 photographs takes 14 times as
    long as one by one.

    Args:
      files: of the copy.
      counts: how many records each has.
      rows: which of the records, counted through all files; None is all.
      num_classes: for the check of labels.
      num_bytes: of the files; None if only some of their records are taken.
    """

    channels = 3

    def __init__(self, files: list[str], counts: list[int], rows: np.ndarray | None,
                 num_classes: int, num_bytes: int | None):
        # Grain has it too, but brings JAX, which processes that only read do without.
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self._records = ArrayRecordDataSource(
            [_File(file, 0, count, count) for file, count in zip(files, counts, strict=True)])
        self._files, self._ends = files, np.cumsum(counts)
        self._rows, self._num_classes, self.num_bytes = rows, num_classes, num_bytes

    def __len__(self) -> int:
        return len(self._records if self._rows is None else self._rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        data, label, name = self.encoded(index)
        return decode.decode_image(data, name), label

    def name(self, index: int) -> str:
        """Returns the name of the original. Raises as `encoded` does."""
        return self._read(index)[2]

    def encoded(self, index: int) -> tuple[bytes, int, str]:
        """Returns (the bytes of the image, label, "file of the copy, record N (original name)").

        Raises:
          BadExample: if the record cannot be read or is damaged.
          UserError: if its label is not a class, or nothing can be read.
        """
        data, label, name, place = self._read(index)
        return data, label, f"{place} ({name})"

    def _read(self, index: int) -> tuple[bytes, int, str, str]:
        """Returns the bytes of the image, its label, the original's name, and where it lies."""
        from tensorflow_datasets.proto import tf_example_pb2

        row = int(index if self._rows is None else self._rows[index])
        if not 0 <= row < len(self._records):
            raise IndexError(f"There is no example {index} of {len(self)}.")
        try:
            features = tf_example_pb2.Example.FromString(self._records[row]).features.feature
            label = features["label"].int64_list.value[0]
            data, name = (features[key].bytes_list.value[0] for key in ("image", "name"))
        except Exception as error:  # ArrayRecord's and protobuf's own are of many kinds.
            raise unread(self._place(row), error, "delete the folder, and make the copy anew with "
                         "--job=prepare") from None
        name, place = name.decode(errors="replace"), self._place(row)
        if not 0 <= label < self._num_classes:
            raise UserError(f"{place} ({name}): the label is {label}, but there are "
                            f"{self._num_classes} classes, from 0 on.")
        return data, label, name, place

    def _place(self, row: int) -> str:
        number = int(np.searchsorted(self._ends, row, side="right"))
        return f"{self._files[number]}, record {row - int(self._ends[number - 1]) * (number > 0)}"


def open_records(path: str, train_split: str | None = None, eval_split: str | None = None,
                 split_seed: int = 0) -> Dataset:
    """Opens a folder that `--job=prepare` has written.

    Args:
      path: the folder.
      train_split: "train" by default; a part, such as "train[:10%]", is taken after `split_seed`
        has shuffled the images.
      eval_split: "val" by default. Either may also be the name of what was copied, such as
        "train[:95%]" or "validation", which means all of it.
      split_seed: of that shuffling.

    Raises:
      UserError: if it is not such a folder, is unfinished, or a file is missing or has another
        size than was written.
    """
    where, root = f"records:{path}", expanded(path)
    about = read_about(path, root)
    splits, names = about["splits"], tuple(about["class_names"])

    train_split, eval_split = _roles(splits, train_split, eval_split, where)

    def split(name: str) -> Split:
        base, part = parse_split(name, splits, where)
        shards = splits[base]["shards"]
        counts = [shard["records"] for shard in shards]
        rows = shuffled_part(part, sum(counts), split_seed, where)
        shape = splits[base]["image_shape"]
        size = sum(shard["bytes"] for shard in shards) if rows is None else None
        source = RecordSource([_checked(root, shard) for shard in shards], counts, rows, len(names),
                              size)
        return Split(name, source, tuple(shape) if shape else None)

    train, evaluation = split(train_split or "train"), split(eval_split or "val")
    seed = shuffling_seed(split_seed, train.name, evaluation.name)
    mean, std = statistics.mean_and_std("", channels=3)
    about.pop("source", None)  # A path: where the originals lay is not what they were.
    divided = about.pop("divided", False)
    return Dataset(name=where, class_names=names, train=train, eval=evaluation, mean=mean, std=std,
                   divided=divided or is_part_of(evaluation.name, train.name),
                   fingerprint=dataset.digest(about, train.name, evaluation.name, *seed))


def _roles(splits: Mapping[str, Any], train_split: str | None, eval_split: str | None, where: str
           ) -> tuple[str | None, str | None]:
    """Returns the splits asked for, where they are called as in the original by the copy's names.

    Raises:
      UserError: if a name is that of one split here and was that of the other there.
    """
    asked = train_split, eval_split
    if asked == (splits["train"].get("of"), splits["val"].get("of")):
        return "train", "val"
    role_of = {entry["of"]: role for role, entry in splits.items() if entry.get("of")}
    for name in asked:
        if name in splits and role_of.get(name, name) != name:
            raise UserError(f"{where}: {name!r} is a split of the copy, and was that of the "
                            f"original which is {role_of[name]!r} here. Leave out "
                            "--config.data.train_split and --config.data.eval_split for what was "
                            "copied to train and to evaluate on.")
    return tuple(role_of.get(name, name) for name in asked)


def read_about(path: str, root: Path) -> dict[str, Any]:
    """Returns what dataset.json says. Raises a UserError if it does not, or is not there."""
    if not (root / ABOUT).is_file() or not path:
        near = did_you_mean(root.name, os.listdir(root.parent)) if root.parent.is_dir() else ""
        reason = f"is not finished: it has no {ABOUT}" if root.is_dir() else "is not there"
        raise UserError(f"The prepared copy {root.absolute()} {reason}.{near} Make it, or go on "
                        "making it, with python launch.py --job=prepare --config=FILE "
                        "--config.data.name=folder:PHOTOS.")
    try:
        about = json.loads((root / ABOUT).read_text())
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']}, not {FORMAT}")
        for split in about["splits"].values():
            if not split["shards"] or not all(
                    isinstance(shard["records"], int) and shard["records"] > 0
                    and isinstance(shard["bytes"], int) and isinstance(shard["file"], str)
                    for shard in split["shards"]):
                raise ValueError("a split of it has no records")
        if len(about["class_names"]) < 2:
            raise ValueError("it has less than two classes")
    except OSError as error:
        raise UserError(f"{root / ABOUT} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{root / ABOUT} is damaged, or not that of a prepared copy ({error}). "
                        "Delete the folder, and make the copy anew with --job=prepare.") from None
    return about


def _checked(root: Path, shard: dict[str, Any]) -> str:
    """Returns the path of a file of the copy, if it has the size that was written."""
    name = shard["file"]
    if os.path.basename(name) != name or name in ("", ".", ".."):
        raise UserError(f"{root / ABOUT} names the file {name!r}, which is not in its folder. "
                        "Do not trust this copy; make it anew.")
    path = root / name
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Delete the folder, and make the "
                        "copy anew with --job=prepare.") from None
    if size != shard["bytes"]:
        raise UserError(f"{path} has {size:,} bytes, but {shard['bytes']:,} were written: it was "
                        "cut short or changed. Copy it again, or delete the folder and make the "
                        "copy anew with --job=prepare.")
    return os.fspath(path)
