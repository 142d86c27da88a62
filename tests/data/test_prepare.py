import builtins
import errno
import importlib
import importlib.util
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from cnnjax.data import NotPrepared, open_dataset, prepare
from cnnjax.data.alone import alone
from cnnjax.types import UserError

prepare_lib = importlib.import_module("cnnjax.data.prepare")  # The function has its name.
needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed")


@pytest.fixture
def offline(monkeypatch):
    """No host is found, as on a machine without a network."""
    def getaddrinfo(*args):
        raise OSError("Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", getaddrinfo)
    monkeypatch.setattr("urllib.request.getproxies", dict)


def test_what_needs_no_preparation(tmp_path):
    lines = []
    for name in ("digits", f"folder:{tmp_path}", f"npz:{tmp_path}/a.npz"):
        prepare(name, log=lines.append)
    assert all("needs no preparation" in line for line in lines) and len(lines) == 3


def test_what_is_prepared_is_left_alone(write_tfds, encode):
    data_dir = write_tfds({"train": [(encode(5, 5), 0)]})
    before = sorted(data_dir.rglob("*"))
    lines = []
    assert prepare("toy", data_dir=data_dir, log=lines.append) == data_dir / "toy/1.0.0"
    assert "prepared already" in lines[0] and sorted(data_dir.rglob("*")) == before


def test_an_unknown_name_is_explained(tmp_path):
    with pytest.raises(UserError, match="Did you mean 'fashion_mnist'"):
        prepare("fashionmnist", data_dir=tmp_path)


def test_without_tensorflow_the_user_is_told_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "tensorflow":
            raise ImportError("No module named 'tensorflow'", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="pip install tensorflow-cpu"):
        prepare("cifar10", data_dir=tmp_path)


def test_two_do_not_prepare_a_set_at_once(write_tfds, encode, monkeypatch):
    monkeypatch.setattr(prepare_lib, "_import_tensorflow", lambda: None)
    data_dir = write_tfds({"train": [(encode(5, 5), 0)]}, file_format="tfrecord")
    before = sorted(data_dir.rglob("*"))
    lock = alone(data_dir / ".toy.lock", "")
    with lock, pytest.raises(UserError, match="Another process is writing toy to .*: wait for it"):
        prepare("toy", data_dir=data_dir)
    assert sorted(data_dir.rglob("*")) == before


def test_a_set_that_another_has_prepared_meanwhile_is_left_alone(write_tfds, encode, monkeypatch):
    examples = {"train": [(encode(5, 5), 0)]}
    data_dir = write_tfds(examples, file_format="tfrecord")

    def meanwhile():
        shutil.rmtree(data_dir)
        write_tfds(examples)

    monkeypatch.setattr(prepare_lib, "_import_tensorflow", meanwhile)
    assert prepare("toy", data_dir=data_dir, log=list) == data_dir / "toy/1.0.0"


@needs_tensorflow
def test_without_a_network_the_user_is_told_what_to_download(tmp_path, offline):
    with pytest.raises(UserError, match=r"cifar-10-binary.tar.gz[\s\S]*data.manual_dir"):
        prepare("cifar10", data_dir=tmp_path)
    with pytest.raises(UserError, match="There is no folder .*gone"):
        prepare("cifar10", data_dir=tmp_path, manual_dir=tmp_path / "gone")


@needs_tensorflow
def test_a_file_with_a_wrong_checksum_is_named(tmp_path):
    (tmp_path / "manual").mkdir()
    (tmp_path / "manual/cifar-10-binary.tar.gz").write_bytes(b"not what it should be")
    with pytest.raises(UserError, match=r"damaged[\s\S]*cifar-10-binary.tar.gz"):
        prepare("cifar10", data_dir=tmp_path, manual_dir=tmp_path / "manual", log=list)


@needs_tensorflow
def test_a_set_that_asks_for_a_registration_is_explained(tmp_path):
    with pytest.raises(UserError, match=r"registration[\s\S]*ILSVRC2012[\s\S]*data.manual_dir"):
        prepare("imagenet2012", data_dir=tmp_path, log=list)


@needs_tensorflow
@pytest.mark.parametrize(("error", "raised", "says"), [
    (RuntimeError('Failed to finalize writing of split "train": write() failed: No space left on '
                  "device; writing x"), UserError, "No space left on device.* Make room"),
    (OSError(errno.ENOSPC, "No space left on device"), UserError, "No space left.* Make room"),
    (RuntimeError("a failure of the program"), RuntimeError, "of the program"),
])
def test_a_disk_that_fills_is_explained(tmp_path, monkeypatch, error, raised, says):
    import tensorflow_datasets as tfds

    def fail(**options):
        raise error

    builder = SimpleNamespace(
        name="cifar10", data_dir=tmp_path, info=SimpleNamespace(full_name="cifar10/3.0.2"),
        url_infos={}, MANUAL_DOWNLOAD_INSTRUCTIONS="", download_and_prepare=fail)
    monkeypatch.setattr(tfds, "builder", lambda *args, **options: builder)
    with pytest.raises(raised, match=says):
        prepare("cifar10", data_dir=tmp_path, log=list)


@needs_tensorflow
def test_wrong_configs_and_versions_are_explained(tmp_path):
    for name in ("mnist:1.0.0", "cifar10_corrupted/brightnes_1"):
        with pytest.raises(UserError, match="TFDS .* has no"):
            prepare(name, data_dir=tmp_path)


@needs_tensorflow
def test_tfrecord_is_converted_and_kept(write_tfds, encode):
    import tensorflow as tf
    examples = [(encode(20 + i, 30, i), i % 3) for i in range(6)]
    data_dir = write_tfds({"train": examples, "test": examples[:2]}, name="truth")
    truth = open_dataset("truth", data_dir=data_dir).train
    write_tfds({"train": examples, "test": examples[:2]}, file_format="tfrecord")
    for split in ("train", "test"):
        path = data_dir / f"toy/1.0.0/toy-{split}.tfrecord-00000-of-00001"
        records = open_dataset("truth", data_dir=data_dir, train_split=split,
                               eval_split="test").train.source._records
        with tf.io.TFRecordWriter(str(path)) as writer:
            for i in range(len(records)):
                writer.write(records[i])
    with pytest.raises(NotPrepared):
        open_dataset("toy", data_dir=data_dir)
    whole = path.read_bytes()
    record = whole[:len(whole) // 2]  # Of two that are about as long.
    for damaged, says in ((record, "cannot be read"), (b"", "has 0 records of 2")):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=says):
            prepare("toy", data_dir=data_dir, log=list)
        assert not list(path.parent.glob("toy-test.array_record-*"))
    path.write_bytes(whole)
    folder = prepare("toy", data_dir=data_dir, log=list)
    assert len(list(folder.glob("*.tfrecord-*"))) == 2
    dataset = open_dataset("toy", data_dir=data_dir)
    assert (len(dataset.train), len(dataset.eval)) == (6, 2)
    for i in range(6):
        (image, label), (expected, right) = dataset.train.source[i], truth.source[i]
        assert (image == expected).all() and label == right
    prepare("toy", data_dir=data_dir, log=list)


@needs_tensorflow
@pytest.mark.slow
def test_fashion_mnist_is_prepared_offline(tmp_path, shared_data, offline):
    manual = shared_data / "fashion_mnist"
    before = {p.name: (p.stat().st_size, p.stat().st_mtime_ns) for p in manual.iterdir()}
    lines = []
    folder = prepare("fashion_mnist", data_dir=tmp_path, manual_dir=manual, log=lines.append)
    assert folder == tmp_path / "fashion_mnist/3.0.1"
    assert {p.name: (p.stat().st_size, p.stat().st_mtime_ns) for p in manual.iterdir()} == before
    assert any("4 of 4 files" in line for line in lines)
    dataset = open_dataset("fashion_mnist", data_dir=tmp_path)
    images, labels = dataset.train.arrays()
    assert images.shape == (60000, 28, 28, 1) and len(dataset.eval) == 10000
    assert np.bincount(labels).tolist() == [6000] * 10
    assert dataset.class_names[0] == "T-shirt/top"
    np.testing.assert_allclose(((images / 255).mean(), (images / 255).std()),
                               (dataset.mean[0], dataset.std[0]), atol=5e-5)
    assert not os.path.exists(tmp_path / "downloads/extracted/fashion_mnist-3.0.1")
    shutil.rmtree(tmp_path / "downloads")
