"""The data set that is always there: 1,797 handwritten digits, embedded in the package."""

from __future__ import annotations

import io
from importlib import resources

import numpy as np

from cnnjax.data import dataset, statistics
from cnnjax.data.dataset import ArraySource, Dataset, Split
from cnnjax.data.slices import parse_split, slice_range


def open_digits(train_split: str | None = None, eval_split: str | None = None) -> Dataset:
    """Opens the UCI handwritten digits (Alpaydin and Kaynak, 1998; doi 10.24432/C50P49).

    They are those of `sklearn.datasets.load_digits`. An image is [8, 8, 1]; a pixel of the
    original is a count from 0 to 16, which is spread over 0 to 255 and rounded. "train" has
    1,437 of them and "test" 360, divided once and for all with each digit in proportion; note
    that a writer may be in both, so that the accuracy says nothing about new writers.

    Args:
      train_split: "train" by default; a part is written "train[:50%]".
      eval_split: "test" by default.

    Raises:
      UserError: for a split that does not exist.
    """
    raw = resources.files("cnnjax.data").joinpath("digits.npz").read_bytes()
    with np.load(io.BytesIO(raw), allow_pickle=False) as file:
        counts, labels = file["images"], file["labels"].astype(np.int32)
    images = np.round(counts * (255 / 16)).astype(np.uint8)[..., None]
    parts = dict(zip(("train", "test"), dataset.stratified_split(labels, 0.2, seed=0),
                     strict=True))

    def split(name: str) -> Split:
        base, part = parse_split(name, parts, "digits")
        chosen = slice_range(part, len(parts[base]), "digits")
        indices = parts[base][chosen.start:chosen.stop]
        return Split(name, ArraySource(images[indices], labels[indices]), images.shape[1:])

    train, evaluation = split(train_split or "train"), split(eval_split or "test")
    mean, std = statistics.mean_and_std("digits", channels=1)
    return Dataset(name="digits", class_names=tuple("0123456789"), train=train, eval=evaluation,
                   mean=mean, std=std,
                   fingerprint=dataset.digest(raw, train.name, evaluation.name))
