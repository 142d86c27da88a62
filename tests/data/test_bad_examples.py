"""What becomes of examples that cannot be read: of every source, placed anywhere."""

import pickle

import jax
import numpy as np
import pytest
from test_eval_feed import collect as collect_eval
from test_feed import collect as collect_train

from cnnjax.data import make_eval_feed, make_train_feed, open_dataset
from cnnjax.data.bad_examples import BadExample
from cnnjax.data.dataset import Split
from cnnjax.data.host import HostTransform
from cnnjax.data.reader import Reader
from cnnjax.data.stream import HostStream
from cnnjax.types import UserError

DEVICE, STREAM, WORKERS = ({"placement": "device"}, {"placement": "stream"},
                           {"placement": "stream", "workers": 2})
# Of 20: one, two in a row, and the last, with those that take their places.
BAD = {3: 4, 8: 11, 9: 10, 19: 0}


@pytest.fixture
def folder(image_folder):
    """The training split of a folder with these bad images."""
    for index in BAD:
        path = open_dataset(f"folder:{image_folder}").train.source.paths[index]
        with open(path, "wb") as file:
            file.write(b"broken")
    return open_dataset(f"folder:{image_folder}").train


@pytest.fixture
def tfds(write_tfds, encode):
    """The same of a TFDS data set."""
    photos = [(b"broken" if i in BAD else encode(20 + i, 40 - i, i), i % 3) for i in range(20)]
    return open_dataset("toy", data_dir=write_tfds({"train": photos, "test": photos[:2]})).train


@pytest.fixture(params=["folder", "tfds"])
def split(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def feeds(mesh):
    """Makes a training or an evaluation feed, and the list of what it reports."""
    def make(split, make_feed, **changes):
        met = []
        feed = make_feed(split, **({
            "batch_size": 6, "mesh": mesh, "image_size": (8, 8), "threads": 2, "on_error": "skip",
            "report": lambda *problem: met.append(problem)} | changes))
        return feed, met

    return make


@pytest.mark.parametrize("way", [DEVICE, STREAM, WORKERS])
def test_training_takes_another_example_instead(split, feeds, way):
    feed, met = feeds(split, make_train_feed, seed=5, **way)
    batches = collect_train(feed, 0, 10)
    assert {index for index, _, _ in met} == set(BAD)
    assert all("broken" not in name and "is a text file" in reason for _, name, reason in met)
    found = dict(zip(batches["index"].ravel().tolist(),
                     zip(batches["image"].reshape(-1, 8, 8, 3), batches["label"].ravel(),
                         strict=True), strict=True))
    for bad, instead in BAD.items():
        assert (found[bad][0] == found[instead][0]).all() and found[bad][1] == found[instead][1]


def test_batches_depend_neither_on_placement_nor_on_where_they_begin(split, feeds):
    (resident, _), (stream, _) = (feeds(split, make_train_feed, seed=5, **way)
                                  for way in (DEVICE, STREAM))
    whole = collect_train(resident, 0, 10)
    for feed in (resident, stream):
        later = collect_train(feed, 4, 10)
        for name, array in later.items():
            np.testing.assert_array_equal(array, whole[name][4:])


def test_random_crops_of_a_substitute_are_those_of_its_own_place(folder, feeds):
    area = {"seed": 5, "random_resized_crop": (0.3, 1.0)}
    one, many = (collect_train(feeds(folder, make_train_feed, threads=n, **area)[0], 0, 10)
                 for n in (1, 4))
    np.testing.assert_array_equal(one["image"], many["image"])


@pytest.mark.parametrize("way", [DEVICE, STREAM, WORKERS])
def test_evaluation_counts_only_good_examples_and_each_once(split, feeds, way):
    feed, met = feeds(split, make_eval_feed, **way)
    _, examples = collect_eval(feed)
    counted = examples["index"][examples["mask"] == 1].tolist()
    assert counted == [i for i in range(20) if i not in BAD]
    assert examples["mask"].sum() == 16 and np.isfinite(examples["mask"]).all()
    assert sorted({index for index, _, _ in met}) == sorted(BAD)


@pytest.mark.parametrize("placement", ["device", "stream"])
@pytest.mark.parametrize("make_feed", [make_train_feed, make_eval_feed])
def test_without_skipping_the_first_is_named_and_what_to_do(folder, feeds, placement, make_feed):
    with pytest.raises(UserError, match="(3|8|9).png is a text file.*on_error=skip.*what=data"):
        feed, _ = feeds(folder, make_feed, placement=placement, on_error="raise", threads=1,
                        **({"seed": 5} if make_feed is make_train_feed else {}))
        list(feed.batches() if make_feed is make_eval_feed else feed.batches(0, 1))


@pytest.mark.parametrize("way", [DEVICE, STREAM, WORKERS])
def test_a_split_of_nothing_but_bad_examples_is_an_error(folder, feeds, way):
    for path in folder.source.paths:
        with open(path, "wb"):
            pass
    with pytest.raises(UserError, match="None of the 20 examples of train can be read.*is empty"):
        feed, _ = feeds(folder, make_eval_feed, **way)
        list(feed.batches())


def test_an_image_of_another_size_than_all_is_bad(write_tfds, encode, feeds):
    photos = [(encode(9, 7, i) if i == 2 else encode(8, 8, i), i % 3) for i in range(6)]
    data_dir = write_tfds({"train": photos, "test": photos}, shape=(8, 8, 3))
    split = open_dataset("toy", data_dir=data_dir).train
    for placement in ("device", "stream"):
        feed, met = feeds(split, make_eval_feed, placement=placement)
        _, examples = collect_eval(feed)
        assert examples["mask"].sum() == 5
        assert set(met) == {(2, "train[2]", "is an image of 9x7, but the others are 8x8")}
        with pytest.raises(BadExample, match=r"^train\[2\] is an image of 9x7, but the others are "
                           "8x8: remove it, or make all of one size. --config.data.on_error=skip"):
            feed, _ = feeds(split, make_eval_feed, placement=placement, on_error="raise")
            list(feed.batches())


def test_a_bad_file_among_images_of_one_size_leaves_that_size(tmp_path, write_image):
    for i in range(12):
        write_image(tmp_path / "ab"[i % 2] / f"{i}.png", 8, 8, seed=i)
    (tmp_path / "a/0.png").write_bytes(b"")
    assert open_dataset(f"folder:{tmp_path}").train.image_shape == (8, 8, 3)


class DamagedShards:
    """Examples whose label is their index, of which those of some shards cannot be read."""

    def __init__(self, count, bad):
        self._count, self._bad = count, bad

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        if index in self._bad:
            raise BadExample(str(index), "is damaged", "copy it again")
        return np.zeros((1, 1, 1), np.uint8), index


@pytest.mark.parametrize("bad,most", [
    (range(100, 164), 7), (range(936, 1000), 7), ([*range(100, 164), *range(170, 234)], 14),
    ([i for i in range(1000) if i != 500], 999)])
def test_no_example_takes_the_place_of_a_whole_shard(bad, most):
    split = Split("train", DamagedShards(1000, set(bad)), (1, 1, 1))
    labels = [label for _, (_, label), _ in Reader(split, skip=True).read(range(1000))]
    counts = np.bincount([labels[i] for i in bad], minlength=1000)
    assert not counts[list(bad)].any() and counts.max() <= most
    assert [labels[i] for i in range(1000) if i not in set(bad)] == [
        i for i in range(1000) if i not in set(bad)]


@pytest.mark.parametrize("order", [range(2000), range(1999, -1, -1)])
def test_bad_examples_are_passed_once_on_the_way_to_the_only_good_ones(order, monkeypatch):
    good, looked_at = (500, 700), []
    split = Split("train", DamagedShards(2000, set(range(2000)) - set(good)), (1, 1, 1))
    each = Reader.each
    monkeypatch.setattr(Reader, "each", lambda self, indices: (
        looked_at.extend(indices), each(self, indices))[1])
    took = {i: label for i, (_, label), _ in Reader(split, skip=True).read(order)}
    powers = [2**k - 1 for k in range(11)]  # 0, 1, 3, … places after it.
    for i in order:
        first = next((i + step) % 2000 for step in [*powers, *range(2000)]
                     if (i + step) % 2000 in good)
        assert took[i] == first
    assert len(looked_at) < 2000 * (1 + 10 + 2)  # Itself, the powers, and its replacement twice.


def test_a_reader_in_another_process_says_what_it_met(folder):
    reader = pickle.loads(pickle.dumps(Reader(folder, skip=True)))
    stream = pickle.loads(pickle.dumps(HostStream(folder, HostTransform((4, 4)), reader=reader)))
    rows, problems = stream.read(np.array([8, 9, 11]), np.zeros(3, int))
    assert rows["good"].tolist() == [False, False, True] and [p[0] for p in problems] == [8, 9]
    assert pickle.loads(pickle.dumps(problems)) == problems


def test_what_is_no_fault_of_one_file_is_not_skipped(folder, feeds, monkeypatch):
    def open_file(*arguments):
        raise OSError(24, "Too many open files")

    feed, _ = feeds(folder, make_eval_feed, placement="stream")
    monkeypatch.setattr("builtins.open", open_file)
    with pytest.raises(UserError, match=r"Too many open files.*ulimit -n \$") as caught:
        jax.device_get(list(feed.batches()))
    assert not isinstance(caught.value, BadExample)


def test_an_unknown_way_is_explained(folder, feeds):
    with pytest.raises(UserError, match="data.on_error is 'ignore'; it is one of raise, skip"):
        feeds(folder, make_eval_feed, on_error="ignore")
