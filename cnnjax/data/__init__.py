"""Data: sources of images, the host's part, batches on the device, and augmentation there.

    dataset = open_dataset("digits")
    feed = make_train_feed(dataset.train, batch_size=64, seed=0, mesh=mesh, image_size=(8, 8))
    for k, batch in feed.batches(0, 100):        # on the devices already, [k, 64, …]
        state = step(state, feed.constants, batch)

Nothing heavy is imported before it is needed, and TensorFlow by nothing but `prepare`.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from typing import TYPE_CHECKING

from cnnjax.data.dataset import Dataset, NotPrepared, Split, digest
from cnnjax.data.decode import decode_image, read_image
from cnnjax.data.host import resize_center_crop, resize_whole
from cnnjax.data.order import TrainOrder
from cnnjax.data.prepare import is_of_tfds, prepare
from cnnjax.data.resized_copy import CopySettings, write_copy
from cnnjax.types import UserError

if TYPE_CHECKING:
    from cnnjax.data.eval_feed import (
        EvalFeed,
        ResidentEvalFeed,
        StreamEvalFeed,
        make_array_eval_feed,
        make_eval_feed,
    )
    from cnnjax.data.feed import (
        Feed,
        ResidentFeed,
        StreamFeed,
        check_batch_size,
        check_crops,
        make_array_feed,
        make_train_feed,
    )
    from cnnjax.data.placement import resident_limit

__all__ = [
    "CopySettings", "Dataset", "EvalFeed", "Feed", "NotPrepared", "ResidentEvalFeed",
    "ResidentFeed", "Split", "StreamEvalFeed", "StreamFeed", "TrainOrder", "check_batch_size",
    "check_crops", "decode_image", "make_array_eval_feed", "make_array_feed", "make_eval_feed",
    "make_train_feed", "is_of_tfds", "open_dataset", "prepare", "read_image", "resident_limit",
    "resize_center_crop", "resize_whole", "write_copy",
]

# Those import JAX, which processes that only read (`workers`) do without.
_ON_FIRST_USE = ("cnnjax.data.feed", "cnnjax.data.eval_feed", "cnnjax.data.placement")


def __getattr__(name: str):
    if name in __all__:
        for module in map(importlib.import_module, _ON_FIRST_USE):
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module 'cnnjax.data' has no attribute {name!r}")


def open_dataset(name: str, *, data_dir: str | os.PathLike[str] | None = None,
                 train_split: str | None = None, eval_split: str | None = None,
                 val_fraction: float = 0.2, split_seed: int = 0) -> Dataset:
    """Opens a data set by name.

    Args:
      name: "digits", embedded in the package (`open_digits`); "folder:PATH", a folder of images
        (`open_folder`); "wds:PATH", tar shards (`open_shards`); "imagenet:PATH", the tar files of
        ILSVRC2012 (`open_imagenet`); "records:PATH", what `write_copy` wrote (`open_records`);
        "npz:PATH", arrays in a file (`open_npz`); or a TFDS data set that was prepared, "name",
        "name/config" or "name/config:version" (`open_tfds`).
      data_dir: where TFDS data sets are; by default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      train_split: "train" by default; a part is written "train[:90%]".
      eval_split: by default the validation split if there is one, else the test split.
      val_fraction: share of the training examples to evaluate on, for a folder or file that has
        no others to evaluate on.
      split_seed: of that division.

    Raises:
      UserError: for whatever is wrong with the name or with what is found there, and if the
        images to train on would be those to evaluate on without `eval_split` saying so.
      NotPrepared: if it is a TFDS data set that is not on this machine.
    """
    opened = _open(name, data_dir, train_split, eval_split, val_fraction, split_seed)
    train, evaluation = (split.name.partition("[")[0] for split in (opened.train, opened.eval))
    if not eval_split and train == evaluation:
        raise UserError(f"{name}: data.train_split is {train_split!r}, and nothing is left to "
                        "evaluate on. Divide it: "
                        f"--config.data.train_split='{train}[:80%]' "
                        f"--config.data.eval_split='{train}[80%:]'; or name another split "
                        "with --config.data.eval_split.")
    return _prepared_alike(opened)


def _prepared_alike(opened: Dataset) -> Dataset:
    """Returns it with images that all count as of different sizes if those of one split are.

    Images of one size are resized whole, others are cropped: what a model is evaluated on must be
    prepared as what it was trained on, whichever sizes the few images of a split happen to have.
    """
    splits = {name: getattr(opened, name) for name in ("train", "eval")}
    if all(split.image_shape for split in splits.values()):
        return opened
    changed = {name: dataclasses.replace(split, image_shape=None) for name, split in splits.items()
               if split.image_shape and hasattr(split.source, "channels")}
    if not changed:
        return opened
    # To a run that began before this was so they are other data.
    return dataclasses.replace(opened, **changed, fingerprint=digest(
        opened.fingerprint, "of different sizes"))


def _open(name: str, data_dir: str | os.PathLike[str] | None, train_split: str | None,
          eval_split: str | None, val_fraction: float, split_seed: int) -> Dataset:
    kind, colon, path = name.partition(":")
    if colon and not path.strip():
        raise UserError(f"{name} names no path: write --config.data.name={kind}:PATH.")
    if name == "digits":
        from cnnjax.data.digits import open_digits
        return open_digits(train_split, eval_split)
    if kind == "folder":
        from cnnjax.data.folder import open_folder
        return open_folder(path, train_split, eval_split, val_fraction, split_seed)
    if kind == "wds":
        from cnnjax.data.webdataset import open_shards
        return open_shards(path, train_split, eval_split, val_fraction, split_seed)
    if kind == "imagenet":
        from cnnjax.data.imagenet import open_imagenet
        return open_imagenet(path, train_split, eval_split, val_fraction, split_seed)
    if kind == "records":
        from cnnjax.data.records import open_records
        return open_records(path, train_split, eval_split, split_seed)
    if kind == "npz":
        from cnnjax.data.npz import open_npz
        return open_npz(path, train_split, eval_split, val_fraction, split_seed)
    from cnnjax.data.tfds_source import open_tfds
    return open_tfds(name, data_dir, train_split, eval_split)
