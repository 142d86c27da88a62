import numpy as np
import pytest

from cnnjax.data import open_dataset
from cnnjax.types import UserError


def test_keras_keys(write_npz):
    path = write_npz()
    dataset = open_dataset(f"npz:{path}")
    assert (len(dataset.train), len(dataset.eval), dataset.num_classes) == (50, 20, 5)
    assert dataset.train.image_shape == (9, 7, 3) and dataset.mean == (0.485, 0.456, 0.406)
    with np.load(path) as file:
        assert (dataset.eval.arrays()[0] == file["x_test"]).all()
    assert dataset.eval.arrays()[1].dtype == np.int32


def test_grey_images_and_columns_of_labels(write_npz):
    path = write_npz(x_train=np.zeros((50, 4, 4), np.uint8), x_test=np.zeros((20, 4, 4), np.uint8),
                     y_train=np.arange(50, dtype=np.uint8)[:, None] % 5)
    dataset = open_dataset(f"npz:{path}")
    assert (dataset.train.image_shape, dataset.mean) == ((4, 4, 1), (0.5,))


@pytest.mark.parametrize(("size", "channels"), [((9, 7), 2), ((9, 7), 4), ((32, 32), 13),
                                                ((5, 5), 103), ((1, 5), 3)])
def test_images_of_any_number_of_channels(write_npz, size, channels):
    images = np.random.default_rng(0).integers(0, 256, (50, *size, channels), np.uint8)
    dataset = open_dataset(f"npz:{write_npz(x_train=images, x_test=images[:20])}")
    assert (dataset.train.image_shape, dataset.channels) == ((*size, channels), channels)
    assert (dataset.train.arrays()[0] == images).all()
    assert channels == 3 or dataset.mean == dataset.std == (0.5,) * channels


@pytest.mark.parametrize(("shape", "told"), [((8, 12, 13), True), ((12, 8, 13), False),
                                             ((8, 12, 3), False), ((9, 9, 200), False)])
def test_images_that_are_lower_than_they_have_channels_are_taken_with_a_note(
        write_npz, shape, told):
    images = np.zeros((50, *shape), np.uint8)
    dataset = open_dataset(f"npz:{write_npz(x_train=images, x_test=images[:20])}")
    assert dataset.train.image_shape == shape
    notes = " ".join(dataset.notes)
    assert ("8 high and 12 wide, of 13 channels" in notes and "transpose(0, 2, 3, 1)" in notes
            ) is told is bool(notes)


@pytest.mark.parametrize("shape", [(20, 13, 13), (8, 12, 13), (9, 7, 3)])
def test_a_file_that_tells_its_layout_is_read_so_without_a_note(write_npz, shape):
    images = np.random.default_rng(0).integers(0, 256, (50, *shape), np.uint8)
    path = write_npz(x_train=images, x_test=images[:20], layout=np.array("NHWC"))
    dataset = open_dataset(f"npz:{path}")
    assert (dataset.train.arrays()[0] == images).all() and dataset.notes == ()


def test_medmnist_keys_and_class_names(tmp_path):
    np.savez(tmp_path / "m.npz", class_names=["no", "yes"], **{
        f"{split}_{kind}": np.zeros((n, 4, 4) if kind == "images" else (n, 1), np.uint8)
        for split, n in (("train", 9), ("val", 5), ("test", 3)) for kind in ("images", "labels")})
    dataset = open_dataset(f"npz:{tmp_path / 'm.npz'}")
    assert (len(dataset.eval), dataset.eval.name) == (5, "validation")
    assert dataset.class_names == ("no", "yes")
    assert len(open_dataset(f"npz:{tmp_path / 'm.npz'}", eval_split="test[:2]").eval) == 2
    with np.load(tmp_path / "m.npz") as arrays:
        np.savez(tmp_path / "b.npz", **{**arrays, "class_names": np.array([b"no", b"yes"])})
    assert open_dataset(f"npz:{tmp_path / 'b.npz'}").class_names == ("no", "yes")


def test_images_and_labels_alone_are_divided_by_class(tmp_path):
    images = np.arange(100, dtype=np.uint8)[:, None, None] * np.ones((1, 3, 3), np.uint8)
    np.savez(tmp_path / "one.npz", images=images, labels=np.arange(100) % 4)
    name = f"npz:{tmp_path / 'one.npz'}"
    dataset = open_dataset(name)
    assert np.bincount(dataset.eval.arrays()[1]).tolist() == [5, 5, 5, 5]
    both = [split.arrays()[0][:, 0, 0, 0].tolist() for split in (dataset.train, dataset.eval)]
    assert sorted(both[0] + both[1]) == list(range(100))
    other = open_dataset(name, split_seed=1)
    assert other.eval.arrays()[0].tolist() != dataset.eval.arrays()[0].tolist()
    assert other.fingerprint != dataset.fingerprint


def test_the_fingerprint_is_of_the_contents(write_npz):
    first = open_dataset(f"npz:{write_npz()}").fingerprint
    assert open_dataset(f"npz:{write_npz()}").fingerprint == first
    changed = np.arange(50) % 5
    changed[0] = 1
    assert open_dataset(f"npz:{write_npz(y_train=changed)}").fingerprint != first


Y = np.arange(50) % 5


@pytest.mark.parametrize(("changes", "message"), [
    ({"x_train": np.zeros((50, 9, 7, 3), np.float32)}, r"x_train is float32.*\* 255"),
    ({"x_train": np.zeros((50, 63), np.uint8)}, r"x_train has the shape \[50, 63\]"),
    ({"x_train": np.zeros((50, 3, 9, 7), np.uint8)}, r"transpose\(0, 2, 3, 1\)"),
    ({"x_train": np.zeros((50, 13, 32, 32), np.uint8)}, r"any number C.*transpose\(0, 2, 3, 1\)"),
    ({"x_train": np.zeros((50, 103, 5, 5), np.uint8)}, r"transpose\(0, 2, 3, 1\)"),
    ({"x_train": np.zeros((50, 20, 13, 13), np.uint8)},
     "If they are 20 high and 13 wide, of 13 channels, save layout='NHWC' beside them"),
    ({"layout": np.array("NCHW")}, "layout is 'NCHW', but images are 'NHWC'. From NCHW save"),
    ({"x_test": np.zeros((20, 9, 7), np.uint8)}, "channels"),
    ({"y_train": Y.astype(np.float32)}, "y_train is float32"),
    ({"y_train": np.eye(5, dtype=int)[Y]}, r"argmax\(1\)"),
    ({"y_train": Y[:-1]}, r"of the shape \[50\]"),
    ({"y_train": Y - 1}, "label of example 0 is -1, but there are 5 classes"),
    ({"y_train": Y - 100}, "label of example 0 is -100"),
    ({"y_train": Y + 2**40}, "largest label is 1099511627780, but there are only 70 examples"),
    ({"y_train": Y * 0, "y_test": np.zeros(20, int)}, "only one class"),
    ({"class_names": np.array(["a", "b", "c", "d"])}, "label of example 4 is 4.*4 classes"),
    ({"y_train": None}, "no 'y_train'"),
    ({"x_train": None, "y_train": None}, "nothing to train on"),
    ({"x_train": np.array([None] * 50)}, "Python objects"),
])
def test_wrong_arrays_are_explained(write_npz, changes, message):
    path = write_npz(**changes)
    with pytest.raises(UserError, match=message):
        open_dataset(f"npz:{path}")


def test_no_such_file_and_not_an_npz(tmp_path):
    with pytest.raises(UserError, match="no file .*gone.npz.*x_train"):
        open_dataset(f"npz:{tmp_path / 'gone.npz'}")
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "bare.npy", np.zeros(3))
    np.savez(tmp_path / "other.npz", a=1)
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("text.npz", "bare.npy", "empty.npz"):
        with pytest.raises(UserError, match="cannot be read as an .npz.*no zip file"):
            open_dataset(f"npz:{tmp_path / name}")
    with pytest.raises(UserError, match="holds a, which are not keys"):
        open_dataset(f"npz:{tmp_path / 'other.npz'}")


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "damaged.npz"
    np.savez_compressed(path, x_train=np.arange(6000, dtype=np.uint8).reshape(60, 10, 10),
                        y_train=np.arange(60) % 2)
    whole = bytearray(path.read_bytes())
    whole[60:124] = bytes(64)
    path.write_bytes(whole)
    with pytest.raises(UserError, match="damaged.npz (is damaged|cannot be read)"):
        open_dataset(f"npz:{path}")


def test_evaluation_images_are_not_silently_those_to_train_on(write_npz):
    with pytest.raises(UserError, match="'test', and nothing is left to evaluate on"):
        open_dataset(f"npz:{write_npz()}", train_split="test")
    path = write_npz(x_test=None, y_test=None)
    with pytest.raises(UserError, match=r"eval_split='validation\[80%:\]'"):
        open_dataset(f"npz:{path}", train_split="validation")
