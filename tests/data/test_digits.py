import hashlib

import numpy as np
import pytest

from cnnjax.data import open_dataset
from cnnjax.types import UserError


def test_the_digits_are_those_of_scikit_learn():
    bunch = pytest.importorskip("sklearn.datasets").load_digits()
    dataset = open_dataset("digits")
    images, labels = (np.concatenate(parts) for parts in
                      zip(dataset.train.arrays(), dataset.eval.arrays(), strict=True))
    counts = np.round(images[..., 0] * (16 / 255)).astype(int)
    ours = sorted((c.tobytes(), label) for c, label in zip(counts, labels, strict=True))
    theirs = sorted((c.tobytes(), label) for c, label in
                    zip(bunch.images.astype(int), bunch.target, strict=True))
    assert ours == theirs


def test_sizes_types_and_statistics():
    dataset = open_dataset("digits")
    images, labels = dataset.train.arrays()
    assert (images.shape, images.dtype) == ((1437, 8, 8, 1), np.uint8)
    assert (labels.shape, labels.dtype) == ((1437,), np.int32)
    assert len(dataset.eval) == 360 and dataset.train.image_shape == (8, 8, 1)
    assert (dataset.num_classes, dataset.channels) == (10, 1)
    assert (images.min(), images.max()) == (0, 255)
    np.testing.assert_allclose((images / 255).mean(), dataset.mean[0], atol=5e-5)
    np.testing.assert_allclose((images / 255).std(), dataset.std[0], atol=5e-5)


def test_each_digit_keeps_its_share():
    dataset = open_dataset("digits")
    train, test = (np.bincount(split.arrays()[1]) for split in (dataset.train, dataset.eval))
    assert (train + test).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.abs(test - (train + test) * 360 / 1797).max() < 1


def test_the_division_never_changes():
    images, labels = open_dataset("digits").eval.arrays()
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    assert digest[:16] == "43b68fc1731541c3"


def test_reading_one_and_reading_all_agree():
    split = open_dataset("digits").train
    images, labels = split.arrays()
    image, label = split.source[17]
    assert (image == images[17]).all() and label == labels[17]


def test_parts_of_the_splits():
    dataset = open_dataset("digits", train_split="train[:10%]", eval_split="test[-100:]")
    assert (len(dataset.train), len(dataset.eval)) == (144, 100)
    whole = open_dataset("digits")
    assert (dataset.train.arrays()[0] == whole.train.arrays()[0][:144]).all()
    assert (dataset.eval.arrays()[0] == whole.eval.arrays()[0][-100:]).all()
    assert dataset.fingerprint != whole.fingerprint


@pytest.mark.parametrize("split", ["tst", "test[50%]", "test[:0%]", "test[a:]", "[3:]"])
def test_a_wrong_split_is_explained(split):
    with pytest.raises(UserError, match="digits.*(train, test|leaves none)"):
        open_dataset("digits", eval_split=split)


def test_what_all_share_cannot_be_written():
    images, _ = open_dataset("digits").train.arrays()
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0
