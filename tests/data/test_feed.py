import itertools
import threading
import time

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from cnnjax import lookahead
from cnnjax.data import (
    CopySettings,
    ResidentFeed,
    StreamFeed,
    TrainOrder,
    feed,
    make_train_feed,
    open_dataset,
    placement,
    write_copy,
)
from cnnjax.types import UserError

KINDS = ["digits", "npz", "folder", "wds", "imagenet", "records", "tfds"]


@pytest.fixture
def datasets(image_folder, write_npz, write_tfds, encode, shards, imagenet_files, tmp_path):
    """A data set of every kind."""
    write_copy(open_dataset(f"folder:{image_folder}"), image_folder, tmp_path / "copy",
               CopySettings(short_side=22, shard_bytes=6000))
    photos = [(encode(20 + i, 40 - i, i), i % 3) for i in range(15)]
    data_dir = write_tfds({"train": photos, "test": photos[:4]})
    return {"digits": open_dataset("digits"), "npz": open_dataset(f"npz:{write_npz()}"),
            "folder": open_dataset(f"folder:{image_folder}"),
            "wds": open_dataset(f"wds:{shards}"),
            "imagenet": open_dataset(f"imagenet:{imagenet_files}"),
            "records": open_dataset(f"records:{tmp_path / 'copy'}"),
            "tfds": open_dataset("toy", data_dir=data_dir)}


@pytest.fixture
def make(mesh):
    """Makes a feed of 4 rows a batch of images of 8x8."""
    def make(dataset, **changes):
        return make_train_feed(dataset.train, **({"batch_size": 4, "seed": 5, "mesh": mesh,
                                                  "image_size": (8, 8), "threads": 2} | changes))
    return make


def collect(feed, start, stop, k=1):
    """Returns the examples of the steps, arrays [steps, B, …], as a jitted step would see them."""
    fetch = jax.jit(feed.fetch)
    steps = [fetch(feed.constants, {name: array[i] for name, array in batch.items()})
             for k, batch in feed.batches(start, stop, k) for i in range(k)]
    return {name: np.stack([step[name] for step in steps]) for name in steps[0]}


def assert_same(a, b):
    assert a.keys() == b.keys() == {"image", "label", "index"}
    for name in a:
        assert a[name].dtype == b[name].dtype
        np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize("kind", KINDS)
def test_both_feeds_give_the_same_batches(datasets, make, kind):
    dataset = datasets[kind]
    resident, stream = (make(dataset, placement=p) for p in ("device", "stream"))
    assert isinstance(resident, ResidentFeed) and isinstance(stream, StreamFeed)
    assert resident.image_shape == stream.image_shape
    steps = 2 * len(dataset.train) // 4 + 3 if len(dataset.train) < 100 else 12
    examples = collect(resident, 0, steps)
    assert_same(examples, collect(stream, 0, steps))
    assert examples["image"].shape == (steps, 4, *stream.image_shape)
    assert examples["image"].dtype == np.uint8 and examples["label"].dtype == np.int32
    order = TrainOrder(5, len(dataset.train)).at(range(4 * steps)).reshape(steps, 4)
    assert (examples["index"] == order).all()
    for index, label in zip(order[-1], examples["label"][-1], strict=True):
        assert dataset.train.source[index][1] == label


@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("arguments", [
    {"placement": "device"}, {"placement": "stream"}, {"placement": "stream", "workers": 2}],
    ids=["device", "threads", "workers"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_resume_from_the_middle_equals_an_uninterrupted_run(datasets, make, kind, arguments,
                                                              repeats):
    # Images of different sizes are cropped on the host, and so cannot stay on the device.
    if arguments["placement"] == "stream":
        arguments = arguments | {"random_resized_crop": (0.1, 1.0)}
    whole, rest = (make(datasets[kind], repeats=repeats, **arguments) for _ in range(2))
    steps = len(datasets[kind].train) // 4 + 3 if kind != "digits" else 12
    whole, rest = collect(whole, 0, steps, k=1), collect(rest, 3, steps, k=2)
    assert_same({name: array[3:] for name, array in whole.items()}, rest)


@pytest.mark.parametrize("arguments", [{"placement": "device"}, {"placement": "stream"}])
def test_calls_of_several_steps(datasets, make, mesh, arguments):
    feed = make(datasets["npz"], **arguments)
    calls = list(feed.batches(3, 10, 3))
    assert [k for k, _ in calls] == [3, 3, 1]
    for k, batch in calls:
        shapes = feed.batch_shapes(k)
        assert set(shapes) == set(batch)
        for name, array in batch.items():
            assert (array.shape, array.dtype) == (shapes[name].shape, shapes[name].dtype)
            assert getattr(array, "sharding", None) == shapes[name].sharding
            assert array.shape[:2] == (k, 4)
            assert isinstance(array, np.ndarray) or array.sharding.is_equivalent_to(
                jax.sharding.NamedSharding(mesh, PartitionSpec(None, "data")), array.ndim)
    assert_same(collect(feed, 3, 10, 3), collect(feed, 3, 10, 1))
    assert list(feed.batches(5, 5)) == []


@pytest.mark.parametrize(("batch_size", "at_once"), [(4, 16), (8, 16), (40, 40)])
def test_large_batches_are_shuffled_step_by_step(make, monkeypatch, batch_size, at_once):
    """The indices of many at once would take longer than the device is at work on a few."""
    monkeypatch.setattr(feed, "_AT_ONCE", 16)
    resident, asked, at = make(open_dataset("digits"), batch_size=batch_size), [], TrainOrder.at
    monkeypatch.setattr(TrainOrder, "at", lambda order, positions: (
        asked.append(positions.size), at(order, positions))[1])
    assert len(list(resident.host_batches(0, 8))) == 8
    assert max(asked) == at_once


def test_the_number_of_threads_changes_nothing(datasets, make):
    feeds = [make(datasets["folder"], random_resized_crop=(0.2, 0.9), threads=n, batch_size=20)
             for n in (1, 3, 0)]
    first, *others = (collect(feed, 0, 4) for feed in feeds)
    for other in others:
        assert_same(first, other)


def test_an_epoch_holds_every_example_once_and_crops_it_anew(datasets, make):
    feed = make(datasets["folder"], random_resized_crop=(0.1, 0.5))
    examples = collect(feed, 0, 10)  # Two epochs of 20.
    index, images = examples["index"].reshape(2, 20), examples["image"].reshape(2, 20, -1)
    assert (np.sort(index) == np.arange(20)).all()
    first, second = (epoch[np.argsort(i)] for i, epoch in zip(index, images, strict=True))
    assert (first != second).any(axis=1).all()


@pytest.mark.parametrize("where", ["device", "stream"])
def test_images_of_one_size_are_left_for_the_device_to_crop(datasets, make, where):
    cropped, plain = (make(datasets["npz"], random_resized_crop=area, image_size=(6, 5),
                           placement=where) for area in ((0.5, 1.0), None))
    assert cropped.image_shape == plain.image_shape == (9, 7, 3)
    assert_same(collect(cropped, 0, 2), collect(plain, 0, 2))


def test_repeats_of_an_example_are_cropped_differently(datasets, make):
    feed = make(datasets["folder"], random_resized_crop=(0.1, 0.5), repeats=2)
    examples = collect(feed, 0, 5)
    index, images = examples["index"].reshape(10, 2), examples["image"].reshape(10, 2, -1)
    assert (index[:, 0] == index[:, 1]).all() and len(set(index[:, 0])) == 10
    assert (images[:, 0] != images[:, 1]).any(axis=1).all()


def test_what_fits_is_resident(datasets, make, monkeypatch):
    assert isinstance(make(datasets["digits"]), ResidentFeed)
    assert isinstance(make(datasets["folder"]), ResidentFeed)
    assert make(datasets["digits"]).constants["image"].shape == (1437, 8, 8, 1)
    monkeypatch.setattr(placement, "resident_limit", lambda mesh: 1437 * 64 - 1)
    assert isinstance(make(datasets["digits"]), StreamFeed)
    assert make(datasets["digits"]).constants == {}
    assert isinstance(make(datasets["digits"], placement="device"), ResidentFeed)


def test_the_limit_of_an_accelerator_is_a_quarter_of_its_memory(mesh):
    class Device:
        platform, process_index = "gpu", 0

        def memory_stats(self):
            return {"bytes_limit": 80 * 2**30}

    class Mesh:
        local_devices, devices = (Device(),), np.array([Device()])

    assert placement.resident_limit(Mesh) == 20 * 2**30
    assert placement.resident_limit(mesh) == 2 * 2**30


@pytest.mark.parametrize(("arguments", "message"), [
    ({"batch_size": 4096}, "only 1437 training examples. Set --config.train.batch_size=1437 or"),
    ({"batch_size": 0}, "--config.train.batch_size=1"),
    ({"placement": "gpu"}, "auto, device, stream"),
    ({"crop": 2.0}, "crop is 2.0"),
])
def test_wrong_arguments_are_explained(datasets, make, arguments, message):
    with pytest.raises(UserError, match=message):
        make(datasets["digits"], **arguments)


def test_crops_on_the_host_cannot_be_resident(datasets, make):
    with pytest.raises(UserError, match="placement=auto"):
        make(datasets["folder"], placement="device", random_resized_crop=(0.1, 1.0))


@pytest.mark.parametrize(("batch_size", "message"), [
    (60, "over 8 devices. Set --config.train.batch_size=56 or 64, or --config.devices=6"),
    (5, "batch_size=8"), (99, "batch_size=96"), (101, "only 100 .*batch_size=96 or smaller")])
def test_batches_that_do_not_divide_are_explained(batch_size, message):
    class Mesh:
        size = 8

    with pytest.raises(UserError, match=message):
        feed.check_batch_size(batch_size, 100, Mesh)
    with pytest.raises(UserError, match="--config.devices=5"):
        feed.check_batch_size(8, 5, Mesh)


def test_a_broken_image_stops_a_stream_and_is_named(image_folder, make):
    (image_folder / "train/dog/3.png").write_bytes(b"broken")
    feed = make(open_dataset(f"folder:{image_folder}"), placement="stream")
    with pytest.raises(UserError, match="dog/3.png is a text file, .*on_error=skip"):
        list(feed.batches(0, 5))


def test_batches_are_read_ahead_and_an_early_end_frees_the_threads(datasets, make):
    before = threading.active_count()
    feed = make(datasets["folder"], placement="stream")
    iterator = feed.batches(0, 10**9)
    first = list(itertools.islice(iterator, 3))
    assert len(first) == 3
    iterator.close()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


@pytest.mark.parametrize("depth", [0, 2])
def test_two_batches_are_put_before_one_is_used(depth):
    put = []
    stream = lookahead.ahead(range(5), lambda i: put.append(i) or i, depth)
    for expected in range(5):
        assert next(stream) == expected
        assert put == list(range(min(5, expected + depth + 1)))
    assert list(stream) == []


def test_the_data_are_arguments_of_the_step_not_part_of_it(datasets, make):
    feed = make(datasets["digits"])
    _, batch = next(feed.batches(0, 1))
    lowered = jax.jit(feed.fetch).lower(feed.constants, {"index": batch["index"][0]})
    assert len(lowered.as_text()) < 20_000
