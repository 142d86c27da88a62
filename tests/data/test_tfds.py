import re

import numpy as np
import pytest

from cnnjax.data import NotPrepared, open_dataset, tfds_source
from cnnjax.data.bad_examples import BadExample
from cnnjax.data.reader import read_each
from cnnjax.types import UserError


def pairs(encode, count, extension=".jpg", channels=3, size=None):
    return [(encode(*(size or (20 + i, 30 - i)), i, extension, channels), i % 3)
            for i in range(count)]


@pytest.fixture
def toy(write_tfds, encode):
    return write_tfds({"train": pairs(encode, 9), "test": pairs(encode, 5)})


def test_photographs_of_different_sizes(toy, encode):
    import cv2
    dataset = open_dataset("toy", data_dir=toy)
    assert (len(dataset.train), len(dataset.eval), dataset.eval.name) == (9, 5, "test")
    assert dataset.train.image_shape is None and dataset.train.channels == 3
    assert dataset.class_names == ("0", "1", "2")
    image, label = dataset.train.source[4]
    expected = cv2.imdecode(np.frombuffer(encode(24, 26, 4), np.uint8), cv2.IMREAD_COLOR)
    assert (image == expected[..., ::-1]).all() and label == 1
    many = list(dataset.train.source.many([8, 0, 4]))
    assert [label for _, label in many] == [2, 0, 1] and (many[2][0] == image).all()


@pytest.mark.parametrize("files", [1, 4])
def test_many_are_those_that_come_one_by_one(write_tfds, encode, files):
    data_dir = write_tfds({"train": pairs(encode, 11), "test": pairs(encode, 5)}, files=files)
    source = open_dataset("toy", data_dir=data_dir, train_split="train[2:]").train.source
    for (a, b), i in zip(source.many([8, 0, 4, 4]), (8, 0, 4, 4), strict=True):
        assert (a == source[i][0]).all() and b == source[i][1] == (i + 2) % 3


def test_the_validation_split_is_preferred_and_parts_are_parts(write_tfds, encode):
    splits = {"train": pairs(encode, 9), "validation": pairs(encode, 3), "test": pairs(encode, 5)}
    data_dir = write_tfds(splits)
    assert open_dataset("toy", data_dir=data_dir).eval.name == "validation"
    dataset = open_dataset("toy", data_dir=data_dir, train_split="train[:6]",
                           eval_split="train[6:]")
    assert (len(dataset.train), len(dataset.eval)) == (6, 3)
    whole = open_dataset("toy", data_dir=data_dir)
    assert (dataset.eval.source[1][0] == whole.train.source[7][0]).all()
    assert dataset.fingerprint != whole.fingerprint


def test_grey_images_of_one_size_are_read_at_once(write_tfds, encode):
    data_dir = write_tfds({"train": pairs(encode, 7, ".png", 1, (6, 5)),
                           "test": pairs(encode, 2, ".png", 1, (6, 5))}, shape=(6, 5, 1))
    split = open_dataset("toy", data_dir=data_dir).train
    images, labels = split.arrays()
    assert images.shape == (7, 6, 5, 1) and labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert all((split.source[i][0] == images[i]).all() for i in range(7))


@pytest.mark.parametrize("channels", [3, 4])
def test_of_transparency_that_is_dropped_a_note_tells(write_tfds, encode, channels):
    photos = [(encode(6, 5, i, ".png", channels), i % 3) for i in range(6)]
    dataset = open_dataset("toy", data_dir=write_tfds({"train": photos, "test": photos},
                                                      shape=(6, 5, channels)))
    assert dataset.train.source[0][0].shape == (6, 5, 3) == dataset.train.image_shape
    assert [("4 channels" in note, "read as RGB" in note) for note in dataset.notes] == [
        (True, True)] * (channels == 4)


def test_the_data_dir_comes_first_then_the_environment_then_home(toy, monkeypatch, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match="toy"):
        open_dataset("toy")
    monkeypatch.setenv("TFDS_DATA_DIR", str(toy))
    assert len(open_dataset("toy").train) == 9
    with pytest.raises(UserError, match="toy"):
        open_dataset("toy", data_dir=empty)
    monkeypatch.setenv("TFDS_DATA_DIR", str(empty))
    assert len(open_dataset("toy", data_dir=toy).train) == 9
    monkeypatch.delenv("TFDS_DATA_DIR")
    toy.rename(tmp_path / "tensorflow_datasets")
    assert len(open_dataset("toy").train) == 9


def test_versions_and_configs(write_tfds, encode, monkeypatch):
    splits = {"train": pairs(encode, 3), "test": pairs(encode, 3)}
    for version in ("1.9.0", "1.10.0"):
        data_dir = write_tfds(splits, version=version)
    for config in ("easy", "hard"):
        write_tfds(splits, name="both", config=config)
    newest = open_dataset("toy", data_dir=data_dir).fingerprint
    assert open_dataset("toy:1.10.0", data_dir=data_dir).fingerprint == newest
    assert open_dataset("toy:1.9.0", data_dir=data_dir).fingerprint != newest
    monkeypatch.setattr(tfds_source, "check_known", lambda text: None)
    with pytest.raises(NotPrepared, match="but toy:1.10.0 is: give --config.data.name=toy:1.10.0"):
        open_dataset("toy:9.9.9", data_dir=data_dir)
    with pytest.raises(NotPrepared, match="but both/easy:1.0.0 is"):
        open_dataset("both/easy:2.0.0", data_dir=data_dir)
    with pytest.raises(UserError, match="both/easy, both/hard"):
        open_dataset("both", data_dir=data_dir)
    assert len(open_dataset("both/hard:1.0.0", data_dir=data_dir).train) == 3


def test_a_set_that_is_not_prepared_is_explained(tmp_path):
    with pytest.raises(NotPrepared, match="--job=prepare") as caught:
        open_dataset("cifar10", data_dir=tmp_path)
    assert (caught.value.name, caught.value.data_dir) == ("cifar10", str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    custom = NotPrepared("cifar10", tmp_path, command="python launch.py --config=a.py")
    assert "launch.py --config=a.py" in str(custom)


@pytest.mark.parametrize(("name", "message"), [
    ("mnits", "not a data set of TFDS.*Did you mean 'mnist'"),
    ("MNIST", "Did you mean 'mnist'"),
    ("Digits", "Did you mean 'digits'"),
    ("my photos", "digits; folder:PATH.*npz:PATH"),
    ("", "digits; folder:PATH"),
])
def test_unknown_names_are_explained(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        open_dataset(name, data_dir=tmp_path)


def test_tfrecord_is_explained(write_tfds, encode):
    data_dir = write_tfds({"train": pairs(encode, 3)}, file_format="tfrecord")
    with pytest.raises(NotPrepared, match=r"as tfrecord[\s\S]*TensorFlow[\s\S]*--job=prepare"):
        open_dataset("toy", data_dir=data_dir)


def test_splits_that_are_not_there_are_explained(write_tfds, encode):
    data_dir = write_tfds({"train": pairs(encode, 9)})
    with pytest.raises(UserError, match=r"no split called validation or test.*data.eval_split"):
        open_dataset("toy", data_dir=data_dir)
    with pytest.raises(UserError, match=r"no split 'tran'.*train \(9\).*Did you mean 'train'"):
        open_dataset("toy", data_dir=data_dir, eval_split="tran")
    with pytest.raises(UserError, match="no split 'train.:1%.'.*no examples"):
        open_dataset("toy", data_dir=data_dir, eval_split="train[:1%]")


def test_sets_that_are_not_for_classification_are_explained(write_tfds, encode):
    data_dir = write_tfds({"train": pairs(encode, 3), "test": pairs(encode, 3)}, classes=0)
    with pytest.raises(UserError, match=r"one image of 8 bits with one class[\s\S]*int64"):
        open_dataset("toy", data_dir=data_dir)


def test_features_are_found_without_supervised_keys(write_tfds, encode):
    data_dir = write_tfds({"train": pairs(encode, 3), "test": pairs(encode, 3)}, supervised=False)
    assert open_dataset("toy", data_dir=data_dir).num_classes == 3


def test_hidden_labels_are_explained(write_tfds, encode):
    data_dir = write_tfds({"train": pairs(encode, 3), "test": [(encode(5, 5), -1)] * 3},
                          shape=(5, 5, 3))
    split = open_dataset("toy", data_dir=data_dir).eval
    for read in (split.arrays, lambda: split.source[0]):
        with pytest.raises(UserError, match="label of example 0 is -1.*data.eval_split"):
            read()


@pytest.mark.parametrize("files", [1, 3])
def test_a_damaged_record_is_named_and_the_others_are_read(write_tfds, encode, files):
    data_dir = write_tfds({"train": pairs(encode, 9), "test": pairs(encode, 5)}, files=files)
    path = sorted(data_dir.rglob("toy-train*"))[files // 2]
    whole = bytearray(path.read_bytes())
    whole[1500] ^= 1  # In the second record.
    path.write_bytes(whole)
    found = list(read_each(open_dataset("toy", data_dir=data_dir).train.source, range(9)))
    (bad,) = [i for i in range(9) if isinstance(found[i], BadExample)]
    assert all(found[i][1] == i % 3 for i in range(9) if i != bad)
    assert re.match(rf"toy, train, example {bad} is damaged .*: delete .*1.0.0, and prepare",
                    str(found[bad]))


def test_a_file_that_is_not_there_is_named(toy):
    for path in toy.rglob("toy-test*"):
        path.unlink()
    with pytest.raises(BadExample, match="toy, test, example 0 is damaged or not there .*toy-test"):
        open_dataset("toy", data_dir=toy).eval.source[0]


def test_mnist(shared_data):
    dataset = open_dataset("mnist", data_dir=shared_data / "tfds")
    images, labels = dataset.train.arrays()
    assert images.shape == (60000, 28, 28, 1) and len(dataset.eval) == 10000
    assert np.bincount(labels).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(dataset.eval.arrays()[1]).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    np.testing.assert_allclose(((images / 255).mean(), (images / 255).std()),
                               (dataset.mean[0], dataset.std[0]), atol=5e-5)


SCRIPT = """
import importlib.util, sys
assert importlib.util.find_spec("tensorflow"), "the test means nothing without TensorFlow"
import jax, numpy as np
from cnnjax import data
heavy = {"tensorflow", "tensorflow_datasets", "grain", "cv2", "PIL"}
assert not heavy & set(sys.modules), "importing cnnjax.data must stay light"
mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("data",))
dataset = data.open_dataset("toy", data_dir=sys.argv[1])
for area in (None, (0.5, 1.0)):
    feed = data.make_train_feed(dataset.train, batch_size=4, seed=0, mesh=mesh, image_size=(8, 8),
                                random_resized_crop=area, placement="stream")
    assert len(list(feed.batches(0, 5))) == 5
feed = data.make_eval_feed(dataset.eval, batch_size=4, mesh=mesh, image_size=(8, 8))
assert len(list(feed.batches())) == 2
assert "grain" in sys.modules and "tensorflow" not in sys.modules
"""


def test_reading_never_imports_tensorflow(toy, run_python):
    pytest.importorskip("importlib.util").find_spec("tensorflow") or pytest.skip("no TensorFlow")
    run_python(SCRIPT, toy)
