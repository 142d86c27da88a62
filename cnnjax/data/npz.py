"""Data sets in one .npz file."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cnnjax.data import dataset, statistics
from cnnjax.data.dataset import ArraySource, Dataset, Split
from cnnjax.data.slices import parse_split, slice_range
from cnnjax.files import expanded
from cnnjax.types import UserError

# Keys of the images and the labels of a split, as Keras and as MedMNIST spell them.
_KEYS = {
    "train": (("x_train", "y_train"), ("train_images", "train_labels")),
    "validation": (("x_val", "y_val"), ("val_images", "val_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
}
_EXAMPLE = ("np.savez('FILE.npz', x_train=…, y_train=…, x_test=…, y_test=…) with images uint8 "
            "[N, H, W] or [N, H, W, C] and labels int [N]")


def open_npz(path: str | os.PathLike[str], train_split: str | None = None,
             eval_split: str | None = None, val_fraction: float = 0.2, split_seed: int = 0
             ) -> Dataset:
    """Opens an .npz file of images uint8 [N, H, W] or [N, H, W, C] and labels int [N] or [N, 1].

    Its keys are x_train, y_train, x_test, y_test (as Keras has them; also x_val, y_val), or
    train_images, train_labels, val_images, … (MedMNIST), or just images and labels. Where there
    is no split to evaluate on, a part of the training examples, each class in proportion, becomes
    the split "validation". `class_names`, an array of strings, is optional: else the classes are
    numbered up to the largest label. The string `layout`="NHWC", optional too, says that images
    are so, of a shape that would be taken for [N, C, H, W], or not without a note.

    Args:
      path: the file.
      train_split: "train" by default; a part is written "train[:50%]".
      eval_split: "validation" by default if there is one, else "test".
      val_fraction: share of the training examples to evaluate on where the file has no other.
      split_seed: of that division.

    Raises:
      UserError: if the file is missing, is no .npz, or holds something else than the above.
    """
    path, where = expanded(path), f"npz:{path}"
    arrays = _load(path)
    splits = _find_splits(arrays, path)
    class_names = _class_names(arrays, splits, path)
    for name, (_, labels) in splits.items():
        dataset.check_labels(labels, len(class_names), f"{path}, {name}")
    division = ()
    if len(splits) == 1 and eval_split is None:
        division = (val_fraction, split_seed)
        images, labels = splits["train"]
        first, second = dataset.stratified_split(labels, val_fraction, split_seed)
        splits = {"train": (images[first], labels[first]),
                  "validation": (images[second], labels[second])}

    def split(name: str) -> Split:
        base, part = parse_split(name, splits, where)
        images, labels = splits[base]
        chosen = slice_range(part, len(labels), where)
        rows = slice(chosen.start, chosen.stop)
        return Split(name, ArraySource(images[rows], labels[rows].astype(np.int32)),
                     images.shape[1:])

    train = split(train_split or "train")
    evaluation = split(eval_split or ("validation" if "validation" in splits else "test"))
    mean, std = statistics.mean_and_std("", channels=splits["train"][0].shape[-1])
    with open(path, "rb") as file:
        contents = hashlib.file_digest(file, "sha256").hexdigest()
    return Dataset(name=where, class_names=class_names, train=train, eval=evaluation, mean=mean,
                   std=std, divided=bool(division), fingerprint=dataset.digest(
                       contents, train.name, evaluation.name, division),
                   notes=() if _layout_is_told(arrays, path) else _notes(train.image_shape, path))


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(f"There is no file {path.absolute()}. Give "
                        "--config.data.name=npz:PATH a file written with " + _EXAMPLE + ".")
    try:
        if not zipfile.is_zipfile(path):  # NumPy would take it for a pickle.
            raise ValueError("it is no zip file, or not a whole one")
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (zlib.error, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path} is damaged, or encrypted ({error}): download or write it anew."
                        ) from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        # Arrays of objects would run code when they are loaded.
        reason = "it holds Python objects" if "allow_pickle" in str(error) else str(error)
        raise UserError(f"{path} cannot be read as an .npz file of plain arrays ({reason}). "
                        f"Write it with {_EXAMPLE}.") from None


def _find_splits(arrays: Mapping[str, np.ndarray], path: Path
                 ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns (images, labels) of each split that the file has; "train" is among them."""
    found = {name: _pick(arrays, keys, path) for name, keys in _KEYS.items()}
    splits = {name: pair for name, pair in found.items() if pair}
    if not splits:
        pair = _pick(arrays, (("images", "labels"),), path)
        if not pair:
            raise UserError(f"{path} holds {', '.join(arrays) or 'nothing'}, which are not keys "
                            f"of a data set. Write it with {_EXAMPLE}.")
        splits = {"train": pair}
    if "train" not in splits:
        raise UserError(f"{path} holds nothing to train on. Write it with {_EXAMPLE}.")
    channels = {name: images.shape[-1] for name, (images, _) in splits.items()}
    if len(set(channels.values())) > 1:
        raise UserError(f"{path}: the images of its splits differ in channels, {channels}: make "
                        "them the same.")
    return splits


def _pick(arrays: Mapping[str, np.ndarray], spellings: tuple[tuple[str, str], ...], path: Path
          ) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns checked (images [N, H, W, C], labels int [N]) under the first keys that exist."""
    for image_key, label_key in spellings:
        if image_key in arrays or label_key in arrays:
            break
    else:
        return None
    if image_key not in arrays or label_key not in arrays:
        missing = label_key if image_key in arrays else image_key
        raise UserError(f"{path} has no {missing!r}. Write it with {_EXAMPLE}.")
    images, labels = arrays[image_key], arrays[label_key]
    if images.dtype != np.uint8:
        raise UserError(
            f"{path}: {image_key} is {images.dtype}, but images are uint8 from 0 to 255. For "
            f"values in [0, 1] save np.round({image_key} * 255).astype(np.uint8).")
    if images.ndim == 3:
        images = images[..., None]
    told = _layout_is_told(arrays, path)
    if images.ndim != 4 or 0 in images.shape or not told and _channels_first(images.shape):
        raise UserError(
            f"{path}: {image_key} has the shape {list(arrays[image_key].shape)}, but images are "
            "[N, H, W] or [N, H, W, C] with any number C of channels. From [N, C, H, W] save "
            f"{image_key}.transpose(0, 2, 3, 1)." + (
                "" if images.ndim != 4 or 0 in images.shape else
                " If they are {} high and {} wide, of {} channels, save layout='NHWC' beside them."
                .format(*images.shape[1:])))
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        raise UserError(
            f"{path}: {label_key} is {labels.dtype} {list(labels.shape)}, but labels are integers "
            f"of the shape [{len(images)}], one for each image. From one-hot rows save "
            f"{label_key}.argmax(1).")
    return np.ascontiguousarray(images), labels


def _layout_is_told(arrays: Mapping[str, np.ndarray], path: Path) -> bool:
    """Whether the file says that its images are [N, H, W, C].

    Raises:
      UserError: if it says something else.
    """
    if "layout" in arrays and arrays["layout"].tolist() not in ("NHWC", b"NHWC"):
        raise UserError(f"{path}: layout is {arrays['layout'].tolist()!r}, but images are 'NHWC'. "
                        "From NCHW save them as .transpose(0, 2, 3, 1).")
    return "layout" in arrays


def _channels_first(shape: tuple[int, ...]) -> bool:
    """Whether the second axis is that of the channels, unless the last one is grey or RGB.

    It is if it is grey or RGB itself, or if it is not part of a square and the two behind it are
    one: [N, 200, 9, 9] are images [N, C, H, W], and [N, 9, 9, 200] are not.
    """
    _, first, second, third = shape
    return third not in (1, 3) and (
        first in (1, 3) and first < min(second, third) or first != second == third)


def _notes(shape: tuple[int, ...], path: Path) -> tuple[str, ...]:
    """Says of images that are lower than they have channels how they were read."""
    height, width, channels = shape
    if channels in (1, 3) or height >= min(width, channels):
        return ()
    return (f"{path}: images [N, {height}, {width}, {channels}] are taken to be {height} high and "
            f"{width} wide, of {channels} channels. If they are [N, C, H, W], save them as "
            ".transpose(0, 2, 3, 1); if not, layout='NHWC' beside them says so.",)


def _class_names(arrays: Mapping[str, np.ndarray],
                 splits: Mapping[str, tuple[np.ndarray, np.ndarray]], path: Path
                 ) -> tuple[str, ...]:
    if "class_names" in arrays:
        names = tuple(name.decode() if isinstance(name, bytes) else str(name)
                      for name in arrays["class_names"].ravel().tolist())
    else:
        names = dataset.numbered_classes(
            np.concatenate([labels for _, labels in splits.values()]), path, "as class_names")
    if len(names) < 2 and min(int(labels.min()) for _, labels in splits.values()) >= 0:
        raise UserError(f"{path} has only one class; there is nothing to learn to tell apart.")
    return names
