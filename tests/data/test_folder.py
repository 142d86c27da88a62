import errno
import functools
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from cnnjax.data import open_dataset
from cnnjax.data.bad_examples import BadExample
from cnnjax.data.folder import list_images
from cnnjax.data.sizes import image_size
from cnnjax.types import UserError


def labels(split):
    return [split.source[i][1] for i in range(len(split))]


def test_train_and_val_folders(image_folder, write_image):
    pixels = write_image(image_folder / "train/cat/0.png", 25, 16)
    dataset = open_dataset(f"folder:{image_folder}")
    assert dataset.class_names == ("cat", "dog")
    assert (len(dataset.train), len(dataset.eval)) == (20, 8)
    assert (dataset.train.name, dataset.eval.name) == ("train", "val")
    assert labels(dataset.eval) == [0] * 4 + [1] * 4
    assert dataset.train.image_shape is None and dataset.channels == 3
    assert (dataset.train.source[0][0] == pixels).all()


def test_photographs(shared_data):
    dataset = open_dataset(f"folder:{shared_data / 'hymenoptera'}")
    assert (len(dataset.train), len(dataset.eval)) == (244, 153)
    assert dataset.class_names == ("ants", "bees")
    assert np.bincount(labels(dataset.eval)).tolist() == [70, 83]


def test_nested_folders_any_extension_no_hidden_files(tmp_path, write_image):
    for name in ("cat/a.PNG", "cat/deep/b.Jpeg", "cat/c.bmp", "dog/d.webp", "dog/e.tiff",
                 "dog/f.tif", "dog/.hidden.png", ".git/x/g.png", "dog/h.jpg"):
        write_image(tmp_path / "train" / name)
    write_image(tmp_path / "test/dog/a.png")
    (tmp_path / "train/dog/notes.txt").write_text("no image")
    dataset = open_dataset(f"folder:{tmp_path}")
    assert dataset.class_names == ("cat", "dog")
    assert labels(dataset.train) == [0, 0, 0, 1, 1, 1, 1]
    assert dataset.eval.name == "test" and labels(dataset.eval) == [1]


def test_a_folder_of_classes_is_divided_by_class(tmp_path, write_image):
    for name, count in (("a", 10), ("b", 5), ("c", 2), ("d", 1)):
        for i in range(count):
            write_image(tmp_path / name / f"{i}.png", 5 + i, 5)
    dataset = open_dataset(f"folder:{tmp_path}", val_fraction=0.2)
    assert np.bincount(labels(dataset.train)).tolist() == [8, 4, 1, 1]
    assert np.bincount(labels(dataset.eval), minlength=4).tolist() == [2, 1, 1, 0]
    assert not set(dataset.train.source.paths) & set(dataset.eval.source.paths)
    again = open_dataset(f"folder:{tmp_path}", val_fraction=0.2)
    assert again.eval.source.paths == dataset.eval.source.paths
    assert again.fingerprint == dataset.fingerprint
    other = open_dataset(f"folder:{tmp_path}", val_fraction=0.2, split_seed=1)
    assert other.eval.source.paths != dataset.eval.source.paths
    assert other.fingerprint != dataset.fingerprint
    with pytest.raises(UserError, match="val_fraction is 1.5"):
        open_dataset(f"folder:{tmp_path}", val_fraction=1.5)


def test_train_without_val_is_divided(image_folder):
    shutil.rmtree(image_folder / "val")
    dataset = open_dataset(f"folder:{image_folder}")
    assert (len(dataset.train), len(dataset.eval)) == (16, 4)


def test_two_parts_of_a_folder_of_classes_are_all_of_it(tmp_path, write_image):
    for name in ("a", "b"):
        for i in range(10):
            write_image(tmp_path / name / f"{i}.png", 5 + i, 5)
    dataset = open_dataset(f"folder:{tmp_path}", train_split="train[:80%]",
                           eval_split="train[80%:]")
    assert (len(dataset.train), len(dataset.eval)) == (16, 4)
    assert len(set(dataset.train.source.paths) | set(dataset.eval.source.paths)) == 20
    half = open_dataset(f"folder:{tmp_path}", eval_split="val[:50%]")
    assert (len(half.train), len(half.eval)) == (16, 2)


def test_other_names_and_parts(image_folder):
    (image_folder / "train").rename(image_folder / "training")
    with pytest.raises(UserError, match=r"val/ but no train/.*data.train_split.*training, val"):
        open_dataset(f"folder:{image_folder}")
    dataset = open_dataset(f"folder:{image_folder}", train_split="training[:50%]",
                           eval_split="training[50%:]")
    assert (len(dataset.train), len(dataset.eval)) == (10, 10)
    assert not set(dataset.train.source.paths) & set(dataset.eval.source.paths)
    assert set(labels(dataset.train)) == {0, 1}  # Not simply the first class.
    with pytest.raises(UserError, match="no split 'vale'.*Did you mean 'val'"):
        open_dataset(f"folder:{image_folder}", train_split="training", eval_split="vale")


def test_images_of_one_size_are_noticed(tmp_path, write_image):
    for i in range(40):
        write_image(tmp_path / "ab"[i % 2] / f"{i}.png", 12, 10, seed=i)
    split = open_dataset(f"folder:{tmp_path}").train
    assert split.image_shape == (12, 10, 3)
    assert split.arrays()[0].shape == (32, 12, 10, 3)
    write_image(tmp_path / "a/38.png", 12, 11)
    dataset = open_dataset(f"folder:{tmp_path}")
    # Whichever of the two has it: both are prepared alike.
    assert dataset.train.image_shape is None and dataset.eval.image_shape is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".tif"])
def test_images_beyond_pillows_limit_have_a_size(extension, tmp_path, write_image, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for i in range(8):
        write_image(tmp_path / "ab"[i % 2] / f"{i}.png", 9, 9, seed=i)
    large = tmp_path / f"a/large{extension}"
    write_image(large, 30, 20)  # Of so many times the limit Pillow would tell nothing.
    assert image_size(large) == (30, 20)
    found = open_dataset(f"folder:{tmp_path}")
    assert found.train.image_shape is None and found.eval.image_shape is None


def test_turned_grey_transparent_and_deep_images(tmp_path, write_image):
    from PIL import Image
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was held upright: turn clockwise.
    pixels = write_image(tmp_path / "a/turned.tif", 20, 30, exif=exif)
    grey = write_image(tmp_path / "a/grey.png", 20, 30, mode="L")
    clear = write_image(tmp_path / "b/clear.png", 20, 30, mode="RGBA")
    write_image(tmp_path / "b/photo.jpg", 20, 30, exif=exif)
    Image.fromarray(np.full((20, 30), 40000, np.uint16)).save(tmp_path / "b/deep.png")
    dataset = open_dataset(f"folder:{tmp_path}", val_fraction=0.01)
    files = {path.split("/")[-1]: split.source[i][0] for split in (dataset.train, dataset.eval)
             for i, path in enumerate(split.source.paths)}
    assert (files["grey.png"] == grey[..., None]).all() and files["grey.png"].shape[-1] == 3
    assert (files["clear.png"] == clear[..., :3]).all()
    assert files["photo.jpg"].shape == (30, 20, 3)
    assert (files["deep.png"] == 40000 >> 8).all()
    assert files["turned.tif"].shape == (20, 30, 3) or (
        files["turned.tif"] == np.rot90(pixels, -1)).all()


def test_the_fingerprint_is_of_names_and_sizes(image_folder, write_image):
    first = open_dataset(f"folder:{image_folder}").fingerprint
    os.utime(image_folder / "train/cat/0.png", (1, 1))
    assert open_dataset(f"folder:{image_folder}").fingerprint == first
    moved = image_folder.rename(image_folder.with_name("moved"))
    assert open_dataset(f"folder:{moved}").fingerprint == first
    write_image(moved / "train/cat/0.png", 50, 50)
    assert open_dataset(f"folder:{moved}").fingerprint != first


@pytest.mark.parametrize("target", ["nowhere.png", "train/cat/gone.png"])
def test_a_link_to_nothing_is_an_example_that_cannot_be_read(image_folder, target):
    (image_folder / "train/cat/gone.png").symlink_to(image_folder / target)
    source = open_dataset(f"folder:{image_folder}").train.source
    index = next(i for i, path in enumerate(source.paths) if path.endswith("gone.png"))
    with pytest.raises(BadExample, match="gone.png cannot be read"):
        source[index]


def test_a_link_to_a_folder_that_holds_it_is_refused_and_other_links_are_followed(image_folder):
    count = len(open_dataset(f"folder:{image_folder}").train.source)
    link = image_folder / "train/cat/more"
    link.symlink_to(image_folder / "train/dog")
    dogs = len(list((image_folder / "train/dog").iterdir()))
    assert len(open_dataset(f"folder:{image_folder}").train.source) == count + dogs
    link.unlink()
    link.symlink_to(image_folder / "train")
    with pytest.raises(UserError, match="more is a link to .*train, a folder that it lies in"):
        open_dataset(f"folder:{image_folder}")
    # A class that would be missing without a word; a circle of two; and a link beside what is read,
    # which is nobody's concern.
    link.unlink()
    lost = image_folder / "train/lost"
    lost.symlink_to(lost)
    with pytest.raises(UserError, match="lost, beside the classes, is a link to nothing"):
        open_dataset(f"folder:{image_folder}")
    lost.unlink()
    link.symlink_to(image_folder / "train/dog")
    back = image_folder / "train/dog/back"
    back.symlink_to(image_folder / "train/cat")
    with pytest.raises(UserError, match="is a link to .*, a folder that it lies in"):
        open_dataset(f"folder:{image_folder}")
    back.unlink()
    (image_folder / "all").symlink_to(image_folder)
    assert len(open_dataset(f"folder:{image_folder}").train.source) == count + dogs


@pytest.mark.parametrize("names", [("Train", "Val"), ("dev", "eval"), ("testing", "training")])
def test_splits_are_not_taken_for_classes(tmp_path, write_image, names):
    for name in names:
        for i in range(2):
            write_image(tmp_path / name / "ab"[i] / "1.png", 8, 8, i)
    with pytest.raises(UserError, match=f"has {names[0]}, {names[1]}, which look like splits"):
        open_dataset(f"folder:{tmp_path}")
    dataset = open_dataset(f"folder:{tmp_path}", train_split=names[0], eval_split=names[1])
    assert dataset.class_names == ("a", "b")


def test_splits_without_classes_are_not_taken_for_classes(tmp_path, write_image):
    for name in ("train/1.jpg", "train/2.jpg", "val/1.jpg", "val/2.jpg"):
        write_image(tmp_path / name, 8, 8)
    with pytest.raises(UserError, match="train, val, which look like splits.* val/cat/1.jpg"):
        open_dataset(f"folder:{tmp_path}")


@pytest.mark.parametrize("state", ["without classes", "empty", "a link to nothing"])
@pytest.mark.parametrize("asked", [None, "val", "val[:50%]"])
def test_a_split_to_evaluate_on_that_cannot_be_used_is_not_silently_another(
        image_folder, write_image, state, asked):
    val = image_folder / "val"
    val.rename(image_folder / "test")  # Which comes after it.
    if state == "a link to nothing":
        val.symlink_to("nowhere")
    elif state == "without classes":
        write_image(val / "1.jpg", 8, 8)
    else:
        val.mkdir()
    with pytest.raises(UserError, match="/val holds no split .* sub-folder for each class"):
        open_dataset(f"folder:{image_folder}", eval_split=asked)
    assert len(open_dataset(f"folder:{image_folder}", eval_split="test").eval) == 8


def test_images_to_test_on_may_have_no_classes(image_folder, write_image):
    shutil.rmtree(image_folder / "val")
    write_image(image_folder / "test/1.jpg", 8, 8)
    assert open_dataset(f"folder:{image_folder}").eval.name == "val"  # A part of train.


@pytest.mark.parametrize("name", ["Test", "testing", "eval", "dev"])
def test_a_split_of_another_name_is_to_be_named(tmp_path, write_image, name):
    for split in ("train", name):
        for i in range(2):
            write_image(tmp_path / split / "ab"[i] / "1.png", 8, 8, i)
    with pytest.raises(UserError, match=f"eval_split={name}"):
        open_dataset(f"folder:{tmp_path}")
    dataset = open_dataset(f"folder:{tmp_path}", eval_split=name)
    assert (len(dataset.train), len(dataset.eval)) == (2, 2)


def test_a_class_may_be_called_train(tmp_path, write_image):
    for i, name in enumerate(("car/old", "car/new", "train/old", "train/new")):
        write_image(tmp_path / "train" / name / "1.png", 8, 8, i)
    assert open_dataset(f"folder:{tmp_path}").class_names == ("car", "train")


def test_classes_of_one_image_each_leave_none_to_evaluate_on(tmp_path, write_image):
    for name in "ab":
        write_image(tmp_path / name / "1.png", 8, 8)
    with pytest.raises(UserError, match="No class has two examples.*eval_split"):
        open_dataset(f"folder:{tmp_path}")


def test_a_missing_folder_is_explained(image_folder):
    with pytest.raises(UserError, match="no folder .*petz. Did you mean 'pets'"):
        open_dataset(f"folder:{image_folder.with_name('petz')}")
    for kind in ("folder", "npz", "wds", "records", "imagenet"):
        with pytest.raises(UserError, match=f"{kind}: names no path: .*name={kind}:PATH"):
            open_dataset(f"{kind}:")


def test_no_images_one_class_and_empty_classes_are_explained(tmp_path, write_image):
    with pytest.raises(UserError, match="no sub-folders"):
        open_dataset(f"folder:{tmp_path}")
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="only one class, 'a'"):
        open_dataset(f"folder:{tmp_path}")
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="no images in"):
        open_dataset(f"folder:{tmp_path}")
    write_image(tmp_path / "a/1.png")
    with pytest.raises(UserError, match="class folder .*b has no images"):
        open_dataset(f"folder:{tmp_path}")
    for name in ("1.HEIC", "2.heic", "3.gif"):
        (tmp_path / "b" / name).touch()
    with pytest.raises(UserError, match=r"There are other files: \.heic \(2\), \.gif \(1\)\."):
        open_dataset(f"folder:{tmp_path}")


def test_a_class_that_was_not_trained_on_is_explained(image_folder, write_image):
    write_image(image_folder / "val/dogs/1.png")
    with pytest.raises(UserError, match="dogs.*cat, dog.*Did you mean 'dog'"):
        open_dataset(f"folder:{image_folder}")


def test_a_class_that_only_looks_like_one_that_was_trained_on_is_explained(tmp_path, write_image):
    for name in ("train/caf\u00e9", "train/bar", "val/cafe\u0301"):
        write_image(tmp_path / name / "1.png")
    with pytest.raises(UserError, match=r"looks the same.* 'caf\\xe9'.* 'cafe\\u0301'"):
        open_dataset(f"folder:{tmp_path}")


def test_a_broken_image_is_named(image_folder):
    whole = (image_folder / "train/cat/1.png").read_bytes()
    for contents in (b"", b"no image", whole[:30]):
        (image_folder / "train/cat/0.png").write_bytes(contents)
        split = open_dataset(f"folder:{image_folder}").train
        with pytest.raises(UserError, match="train/cat/0.png is .*(empty|text file|cut off)"):
            split.source[0]
    (image_folder / "train/cat/0.png").unlink()
    with pytest.raises(UserError, match="cannot be read .No such file"):
        split.source[0]


def test_evaluation_images_are_not_silently_those_to_train_on(image_folder):
    divided = {"train_split": "val[:50%]", "eval_split": "val[50%:]"}
    for path in (image_folder, image_folder / "train"):  # With val/, and divided.
        with pytest.raises(UserError, match=r"'val', and nothing is left to evaluate on.*"
                           r"train_split='val\[:80%\]' --config.data.eval_split='val\[80%:\]'"):
            open_dataset(f"folder:{path}", train_split="val")
        dataset = open_dataset(f"folder:{path}", **divided)
        assert not set(dataset.train.source.paths) & set(dataset.eval.source.paths)
    shutil.rmtree(image_folder / "train")
    with pytest.raises(UserError, match="nothing is left to evaluate on"):
        open_dataset(f"folder:{image_folder}", train_split="val[:50%]")


@pytest.mark.parametrize(("kind", "fixture"), [("folder", "image_folder"), ("wds", "shards")])
def test_a_shuffled_part_of_what_is_trained_on_is_drawn_at_random(kind, fixture, request):
    name = f"{kind}:{request.getfixturevalue(fixture)}"

    def divided(train, evaluation):
        return open_dataset(name, train_split=train, eval_split=evaluation).divided

    assert divided("train[:50%]", "train[50%:]")
    assert not divided("train[:50%]", "val") and not divided("train", "val[50%:]")
    assert not divided("train", "train")


@pytest.mark.parametrize(("kind", "fixture"), [("folder", "image_folder"), ("wds", "shards")])
def test_lost_and_found_which_only_root_may_read_is_no_part_of_the_data(
        kind, fixture, request, monkeypatch):
    root = request.getfixturevalue(fixture)
    (root / "lost+found").mkdir()

    def read(path, allowed, *args):
        if os.fspath(path).endswith("lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return allowed(path, *args)

    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, functools.partial(read, allowed=getattr(os, name)))
    assert open_dataset(f"{kind}:{root}").num_classes > 1


def test_what_only_root_may_read_hides_no_message(image_folder, monkeypatch):
    scandir, root = os.scandir, image_folder / "val"
    (root / "lost+found").mkdir()
    monkeypatch.setattr(os, "scandir", lambda path: scandir(
        "/nowhere" if os.fspath(path).endswith("lost+found") else path))
    images = list_images(root)
    assert len(images) == 8
    for path in images:
        path.rename(path.with_suffix(".heic"))
    with pytest.raises(UserError, match="There are no images in .*There are other files: .heic"):
        open_dataset(f"folder:{root}")
