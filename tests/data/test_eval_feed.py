import jax
import numpy as np
import pytest

from cnnjax.data import (
    ResidentEvalFeed,
    StreamEvalFeed,
    make_array_eval_feed,
    make_eval_feed,
    open_dataset,
)
from cnnjax.types import UserError


def collect(feed):
    fetch = jax.jit(feed.fetch)
    batches = [jax.device_get(fetch(feed.constants, batch)) for batch in feed.batches()]
    return len(batches), {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}


@pytest.mark.parametrize("placement", ["device", "stream"])
@pytest.mark.parametrize("batch_size", [1, 19, 20, 21, 7, 64])
def test_every_example_counts_once(write_npz, mesh, placement, batch_size):
    split = open_dataset(f"npz:{write_npz()}").eval
    images, labels = split.arrays()
    feed = make_eval_feed(split, batch_size=batch_size, mesh=mesh, image_size=(4, 4),
                          placement=placement, threads=2)
    count, examples = collect(feed)
    assert count == -(-20 // feed.batch_size) == -(-20 // batch_size)
    assert feed.num_examples == 20 and feed.image_shape == (9, 7, 3)
    assert examples.keys() == {"image", "label", "index", "mask"}
    assert examples["mask"].dtype == np.float32
    assert len(examples["mask"]) == count * feed.batch_size
    real = examples["mask"] == 1
    assert examples["mask"].sum() == real.sum() == 20
    np.testing.assert_array_equal(examples["index"][real], np.arange(20))
    np.testing.assert_array_equal(examples["image"][real], images)
    np.testing.assert_array_equal(examples["label"][real], labels)


@pytest.mark.parametrize("kind", ["digits", "folder", "tfds"])
def test_both_feeds_give_the_same_batches(kind, image_folder, write_tfds, encode, mesh):
    if kind == "tfds":
        photos = [(encode(20 + i, 40 - i, i), i % 3) for i in range(5)]
        dataset = open_dataset("toy", data_dir=write_tfds({"train": photos, "test": photos}))
    else:
        dataset = open_dataset("digits" if kind == "digits" else f"folder:{image_folder}")
    feeds = [make_eval_feed(dataset.eval, batch_size=3, mesh=mesh, image_size=(12, 12),
                            placement=placement) for placement in ("device", "stream")]
    assert [type(feed) for feed in feeds] == [ResidentEvalFeed, StreamEvalFeed]
    (count, resident), (again, stream) = map(collect, feeds)
    assert count == again
    for name in resident:
        np.testing.assert_array_equal(resident[name], stream[name])
    assert feeds[0].image_shape == ((8, 8, 1) if kind == "digits" else (12, 12, 3))


@pytest.mark.parametrize("batch_size", [1, 7, 20, 64])
def test_arrays_stay_on_the_host_or_lie_on_the_devices_and_are_the_same_batches(mesh, batch_size):
    arrays = {"image": np.arange(60, dtype=np.float32).reshape(20, 3),
              "label": np.arange(20, dtype=np.int32)}
    feeds = [make_array_eval_feed(arrays, batch_size=batch_size, mesh=mesh, placement=placement)
             for placement in ("device", "stream")]
    assert feeds[0].constants and not feeds[1].constants
    assert feeds[0].image_shape == feeds[1].image_shape == (3,)
    (count, resident), (again, stream) = map(collect, feeds)
    assert count == again == -(-20 // feeds[1].batch_size) and resident.keys() == stream.keys()
    for name in resident:
        np.testing.assert_array_equal(resident[name], stream[name])


def test_a_feed_can_be_gone_through_again(image_folder, mesh):
    feed = make_eval_feed(open_dataset(f"folder:{image_folder}").eval, batch_size=3, mesh=mesh,
                          image_size=(12, 12), placement="stream")
    (_, first), (_, second) = collect(feed), collect(feed)
    assert all((first[name] == second[name]).all() for name in first)


def test_wrong_arguments_are_explained(mesh):
    split = open_dataset("digits").eval
    with pytest.raises(UserError, match="auto, device, stream"):
        make_eval_feed(split, batch_size=3, mesh=mesh, image_size=(8, 8), placement="host")
    with pytest.raises(UserError, match="interpolation"):
        make_eval_feed(split, batch_size=3, mesh=mesh, image_size=(8, 8), interpolation="area")
