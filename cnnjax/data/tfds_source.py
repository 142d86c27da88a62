"""TFDS data sets that were prepared as ArrayRecord, read without TensorFlow."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.data import dataset, decode, statistics
from cnnjax.data.array_record import unread
from cnnjax.data.dataset import Dataset, NotPrepared, Split
from cnnjax.files import expanded
from cnnjax.types import UserError, did_you_mean

_NAME = re.compile(r"(?P<name>[A-Za-z]\w*)(/(?P<config>[\w.\-+]+))?(:(?P<version>\d+\.\d+\.\d+))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")


class TfdsSource:
    """Records of a split, decoded when asked for: (image uint8 [H, W, C], label int).

    TFDS would decode a record in about 130 µs of Python; taking the two features out of the
    tf.train.Example ourselves takes a tenth of that.
    """

    def __init__(self, records: Any, keys: tuple[str, str], channels: int, num_classes: int,
                 where: str, folder: str | os.PathLike[str], files: int,
                 num_bytes: int | None = None):
        self.channels, self._files, self.num_bytes = channels, files, num_bytes
        self._records, self._keys = records, keys
        self._num_classes, self._where, self._folder = num_classes, where, folder

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        try:
            record = self._records[index]
        except RuntimeError as error:
            raise unread(f"{self._where}, example {index}", error, f"delete {self._folder}, and "
                         "prepare the data set anew with --job=prepare") from None
        return self._decode(record, index)

    def many(self, indices: Sequence[int]) -> Iterator[tuple[np.ndarray, int]]:
        """Yields the examples in order, out of one file much faster than one by one.

        Out of several, ArrayRecord starts threads for each call, up to 64: 16 records of 64 files
        took 25 times as long as one by one.
        """
        if self._files > 1:
            yield from (self[i] for i in indices)
            return
        indices = [int(i) for i in indices]
        try:
            records = self._records.__getitems__(indices)
        except RuntimeError:  # Which of them cannot be read?
            yield from (self[i] for i in indices)
            return
        for i, record in zip(indices, records, strict=True):
            yield self._decode(record, i)

    def _decode(self, record: bytes, index: int) -> tuple[np.ndarray, int]:
        from tensorflow_datasets.proto import tf_example_pb2

        features = tf_example_pb2.Example.FromString(record).features.feature
        image_key, label_key = self._keys
        label = features[label_key].int64_list.value[0]
        if not 0 <= label < self._num_classes:
            raise UserError(
                f"{self._where}: the label of example {index} is {label}, but there are "
                f"{self._num_classes} classes. A test split may come without its labels: name "
                "another with --config.data.eval_split, such as 'validation' or 'train[90%:]'.")
        # TensorFlow ignores EXIF orientation, and so do the accuracies published with TFDS.
        image = decode.decode_image(features[image_key].bytes_list.value[0],
                                  f"{self._where}, example {index}", channels=self.channels,
                                  orient=False)
        return image, label


@dataclasses.dataclass(frozen=True)
class TfdsName:
    """A TFDS data set as the user names it: "name", "name/config", "name/config:1.0.0"."""

    name: str
    config: str | None
    version: str | None

    @classmethod
    def parse(cls, text: str) -> TfdsName:
        """Raises a UserError if `text` cannot be the name of a data set."""
        match = _NAME.fullmatch(text)
        if not match:
            raise UserError(
                f"data.name is {text!r}. It is one of: digits; folder:PATH, a folder of images; "
                "wds:PATH, tar shards; imagenet:PATH, the tar files of ILSVRC2012; records:PATH, a "
                "prepared copy; npz:PATH; or the name of a TFDS data set, such as cifar10, "
                "imagenet2012 or cifar10_corrupted/brightness_1:1.0.0.")
        return cls(**match.groupdict())


def data_root(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Returns where TFDS keeps data: `data_dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    """
    given = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return expanded(given)


def find_prepared(text: str, data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """Returns the folder DATA_DIR/name[/config]/version of a prepared data set, or None.

    Without a version it is the newest; without a config the only one that is prepared.

    Raises:
      UserError: if `text` is no name, or several configs are prepared and none is named.
    """
    parsed = TfdsName.parse(text)
    folder = data_root(data_dir) / parsed.name
    if parsed.config:
        folder /= parsed.config
    elif not _versions(folder, parsed.version) and folder.is_dir():
        configs = sorted(p.name for p in folder.iterdir() if _versions(p, parsed.version))
        if len(configs) > 1:
            raise UserError(f"{parsed.name} is prepared with several configs: give "
                            "--config.data.name one of "
                            + ", ".join(f"{parsed.name}/{c}" for c in configs) + ".")
        if configs:
            folder /= configs[0]
    versions = _versions(folder, parsed.version)
    return versions[-1] if versions else None


def _other_version(text: str, data_dir: str | os.PathLike[str] | None) -> str:
    """Returns that a set is prepared in another version than the one asked for, "" if it is not."""
    name, colon, version = text.partition(":")
    found = find_prepared(name, data_dir) if colon else None
    return found and (f"is not prepared in {data_root(data_dir)}, but {name}:{found.name} is: give "
                      f"--config.data.name={name}:{found.name}. This command downloads and "
                      f"prepares {version}, if TFDS has it") or ""


def _versions(folder: Path, wanted: str | None) -> list[Path]:
    """Returns the prepared versions in a folder, oldest first."""
    if not folder.is_dir():
        return []
    found = [p for p in folder.iterdir() if _VERSION.fullmatch(p.name)
             and (p / "dataset_info.json").is_file() and wanted in (None, p.name)]
    return sorted(found, key=lambda p: tuple(map(int, p.name.split("."))))


def file_formats(folder: Path) -> set[str]:
    """Returns the formats in which a prepared data set is there, such as {"array_record"}."""
    info = json.loads((folder / "dataset_info.json").read_text())
    # Versions of TFDS that did not write the format knew no other.
    return {info.get("fileFormat") or "tfrecord", *info.get("alternativeFileFormats", ())}


def check_known(text: str) -> None:
    """Raises a UserError if this version of TFDS has no data set of that name."""
    import tensorflow_datasets as tfds

    known = tfds.list_builders(with_community_datasets=False)
    name = TfdsName.parse(text).name
    if name not in known:
        raise UserError(
            f"data.name is {text!r}, which is not a data set of TFDS {tfds.__version__} and is "
            "not prepared on this machine." + did_you_mean(name, [*known, "digits"])
            + " Images of your own are named by folder:PATH or npz:PATH.")


def open_tfds(text: str, data_dir: str | os.PathLike[str] | None = None,
              train_split: str | None = None, eval_split: str | None = None) -> Dataset:
    """Opens a prepared TFDS data set.

    Args:
      text: "name", "name/config" or "name/config:version".
      data_dir: where to look; by default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      train_split: in the language of TFDS, "train" by default.
      eval_split: "validation" by default if there is one, else "test".

    Raises:
      NotPrepared: if it is not there, or was not prepared as ArrayRecord.
      UserError: if TFDS does not know it, it does not pair an image with a class, or a split does
        not exist.
    """
    root = data_root(data_dir)
    folder = find_prepared(text, data_dir)
    if folder is None:
        check_known(text)
        raise NotPrepared(text, root, reason=_other_version(text, data_dir))
    formats = file_formats(folder)
    if "array_record" not in formats:
        raise NotPrepared(
            text, root, reason=f"is in {folder} as {', '.join(formats)}, which needs TensorFlow to "
            "be read. This command writes ArrayRecord beside it", )
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    keys = _feature_keys(builder, text)
    if eval_split is None:
        eval_split = next((s for s in ("validation", "test") if s in builder.info.splits), None)
    if eval_split is None:
        raise UserError(
            f"{text} has no split called validation or test (it has "
            f"{', '.join(builder.info.splits)}): set --config.data.eval_split, for example to "
            "'train[90%:]', and --config.data.train_split to 'train[:90%]'.")
    label = builder.info.features[keys[1]]
    train, evaluation = (_open_split(builder, name, keys, text)
                         for name in (train_split or "train", eval_split))
    mean, std = statistics.mean_and_std(TfdsName.parse(text).name, channels=train.channels)
    depth = builder.info.features[keys[0]].shape[-1]
    notes = () if depth not in (2, 4) else (
        f"The images of {text} have {depth} channels, the last of which is their transparency: it "
        f"is dropped, and they are read as RGB. What has another meaning can be saved as npz:PATH, "
        "uint8 [N, H, W, C].",)
    return Dataset(name=text, class_names=tuple(label.names), train=train, eval=evaluation,
                   mean=mean, std=std, fingerprint=_fingerprint(builder, train, evaluation),
                   notes=notes)


def _feature_keys(builder: Any, text: str) -> tuple[str, str]:
    """Returns the names of the image and the class among the features."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    kinds = (tfds.features.Image, tfds.features.ClassLabel)

    def fits(keys: Any) -> bool:
        return (isinstance(keys, tuple) and len(keys) == 2 and all(
            isinstance(k, str) and k in features and isinstance(features[k], kind)
            for k, kind in zip(keys, kinds, strict=True)))

    keys = builder.info.supervised_keys
    if not fits(keys):
        found = [[k for k, v in features.items() if isinstance(v, kind)] for kind in kinds]
        keys = (found[0][0], found[1][0]) if [len(f) for f in found] == [1, 1] else None
    if keys is None or features[keys[0]].np_dtype != np.uint8:
        raise UserError(f"{text} does not pair one image of 8 bits with one class, so a "
                        "classifier cannot be trained on it. What you need of it can be saved as "
                        "npz:PATH, uint8 [N, H, W, C] with any number of channels. Its features "
                        f"are: {features}")
    return keys


def _open_split(builder: Any, name: str, keys: tuple[str, str], text: str) -> Split:
    from tensorflow_datasets.core import decode

    try:
        if not builder.info.splits[name].num_examples:
            raise ValueError("it has no examples")
        records = builder.as_data_source(
            split=name, deserialize_method=decode.DeserializeMethod.RAW_BYTES)
    except (KeyError, ValueError, AssertionError) as error:
        sizes = ", ".join(f"{k} ({v.num_examples:,})" for k, v in builder.info.splits.items())
        raise UserError(f"{text}: there is no split {name!r} ({str(error).splitlines()[0]}). "
                        f"There are: {sizes}; a part of one is written like 'train[:80%]'."
                        + did_you_mean(name, builder.info.splits)) from None
    height, width, depth = builder.info.features[keys[0]].shape
    channels = 1 if depth == 1 else 3
    shape = (height, width, channels) if height and width else None
    source = TfdsSource(records, keys, channels, builder.info.features[keys[1]].num_classes,
                        f"{text}, {name}", builder.data_dir,
                        len(builder.info.splits[name].file_instructions),
                        # Of a part of a split TFDS does not know it.
                        int(getattr(builder.info.splits[name], "num_bytes", 0)) or None)
    return Split(name, source, shape)


def _fingerprint(builder: Any, train: Split, evaluation: Split) -> str:
    info = builder.info
    splits = {name: [split.num_bytes, *split.shard_lengths] for name, split in info.splits.items()}
    return dataset.digest(info.full_name, splits, str(info.features), train.name, len(train),
                          evaluation.name, len(evaluation))
