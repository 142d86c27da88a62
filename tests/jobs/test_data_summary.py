"""--job=summarize --what=data: what it finds, and the page of augmented images."""

import functools
import json

import jax
import numpy as np
import pytest
from odd_files import encode, photo, ycck
from PIL import Image

from cnnjax import config as config_lib
from cnnjax.command_flags import parse
from cnnjax.command_line import main
from cnnjax.data import open_dataset
from cnnjax.jobs import augmented_sheet, contact_sheet, data_summary
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.evaluation import make_inputs
from cnnjax.train import step as step_lib
from cnnjax.types import UserError

CONFIG = ["launch.py", "--job=summarize", "--what=data", "--config=experiments/simple_cnn.py"]


@pytest.fixture
def photos(tmp_path):
    """Twelve photos in train/, six in val/, of which two are in train/ and one is broken."""
    for split, count in (("train", 12), ("val", 6)):
        for name in "ab":
            (tmp_path / "photos" / split / name).mkdir(parents=True)
        for i in range(count):
            image = photo(i + 100 * (split == "val"), 40, 40 + i)
            path = tmp_path / "photos" / split / "ab"[i >= count - 3] / f"{i}.png"
            path.write_bytes(encode(image, "PNG"))
    train, val = tmp_path / "photos/train", tmp_path / "photos/val"
    (val / "a/0.png").write_bytes((train / "a/5.png").read_bytes())
    # The same pixels in another file, and under another class.
    (val / "b/3.png").write_bytes(encode(photo(7, 40, 47), "PNG", compress_level=1))
    (val / "a/1.png").write_bytes(b"")
    (train / "a/0.png").write_bytes(ycck(photo(0, 40, 40)))
    (train / "a/1.png").write_bytes(encode(Image.fromarray(photo(1)).convert("L"), "PNG"))
    for name in ("a/1.HEIC", "b/2.heic", "b/Thumbs.db", "b/.DS_Store"):
        (train / name).write_bytes(b"something else")
    return tmp_path / "photos"


def test_a_folder_is_described_and_its_faults_are_named(photos, tmp_path, capsys):
    assert main([*CONFIG, f"--config.data.name=folder:{photos}", "--config.data.image_size=32",
                 "--config.train.batch_size=12", f"--workdir={tmp_path / 'out'}"]) == 0
    said = capsys.readouterr()
    found = json.loads((tmp_path / "out/data.json").read_text())
    train, val = found["splits"]["train"], found["splits"]["val"]
    assert (train["examples"], train["readable"]) == (12, 12)
    assert (val["examples"], val["readable"]) == (6, 5)
    assert train["classes"] == {"a": 9, "b": 3} and val["classes"] == {"a": 2, "b": 3}
    assert found["not_read"] == {str(photos / "train"): {".heic": 2, ".db": 1}}
    assert f"Not read in {photos / 'train'}: files with other extensions: .heic: 2, .db: 1" in \
        said.out
    assert train["kinds"] == {"PNG RGB": 10, "JPEG CMYK": 1, "PNG L": 1}
    assert train["smallest"] == [40, 40] and train["longest_side"] == 123
    assert train["bytes"] == sum(p.stat().st_size for p in (photos / "train").rglob("*.png"))
    assert val["bad_files"] == [{"name": str(photos / "val/a/1.png"),
                                 "reason": "is empty (0 bytes)"}]
    pairs = {frozenset((str(photos / "train/a/5.png"), str(photos / "val/a/0.png"))),
             frozenset((str(photos / "train/a/7.png"), str(photos / "val/b/3.png")))}
    assert {frozenset(group) for group in found["in_both_splits"]} == pairs
    assert [frozenset(group) for group in found["two_classes"]] == [
        frozenset((str(photos / "train/a/7.png"), str(photos / "val/b/3.png")))]
    assert "Equal images in both splits, so that the accuracy says too much (2)" in said.err
    assert "val/a/1.png is empty" in said.err
    assert "largest over smallest 3" in said.out and "9 (75.0%)" in said.out
    page = Image.open(tmp_path / "out/data.png")
    assert page.size == (8 * 176, 6 * 212)


def test_other_files_of_a_folder_that_both_splits_are_of_are_counted_once(photos, tmp_path, capsys):
    assert main([*CONFIG, f"--config.data.name=folder:{photos / 'train'}",
                 "--config.data.image_size=8", "--config.train.batch_size=2",
                 "--config.summarize.images=1", "--config.summarize.draws=1",
                 f"--workdir={tmp_path / 'out'}"]) == 0
    assert json.loads((tmp_path / "out/data.json").read_text())["not_read"] == {
        str(photos / "train"): {".heic": 2, ".db": 1}}
    assert capsys.readouterr().out.count(".heic: 2") == 1


@pytest.mark.parametrize("size", [8, 28])
def test_mean_and_std_are_those_of_the_images_at_the_models_size(size, tmp_path):
    assert main([*CONFIG, "--config.data.name=digits", f"--config.data.image_size={size}",
                 "--config.summarize.images=1", "--config.summarize.draws=1",
                 f"--workdir={tmp_path}"]) == 0
    found = json.loads((tmp_path / "data.json").read_text())["splits"]["test"]
    images, labels = open_dataset("digits").eval.arrays()
    resized = np.stack([Image.fromarray(image[..., 0]).resize((size, size), 2)
                        for image in images]) / 255
    np.testing.assert_allclose(found["mean"], [resized.mean()], atol=5e-4)
    np.testing.assert_allclose(found["std"], [resized.std()], atol=5e-4)
    assert list(found["classes"].values()) == np.bincount(labels).tolist()


def first_batch(experiment):
    """Returns the rows of the first step, [1, B, …], and what that step is given."""
    inputs = make_inputs(experiment, experiment.phases[-1])
    _, batch = next(iter(inputs.feed.batches(0, 1)))
    return batch, inputs.fetch(inputs.constants, {name: rows[0] for name, rows in batch.items()})


@pytest.mark.parametrize("mix", [[], pytest.param(
    ["--config.augment.mixup=0.4", "--config.augment.cutmix=1.0"], marks=pytest.mark.slow)])
def test_the_page_shows_what_the_first_steps_are_given(photos, mix, monkeypatch):
    command = parse([*CONFIG, f"--config.data.name=folder:{photos}", "--config.data.image_size=32",
                     "--config.augment.random_resized_crop=(0.3,1.0)", "--config.augment.flip=True",
                     "--config.augment.pad_crop=4", "--config.train.batch_size=6",
                     "--config.data.placement=stream", "--config.summarize.images=4",
                     "--config.summarize.draws=3", *mix])
    cells = []
    monkeypatch.setattr(contact_sheet, "draw", lambda images, columns: cells.extend(images) or b"")
    experiment = experiment_lib.build(command.config)
    augmented_sheet.draw(experiment)
    phase = experiment.phases[-1]
    batch, given = first_batch(experiment)
    images, targets = jax.jit(functools.partial(step_lib.augmented, phase.task))(0, given)
    mean, std = np.array(experiment.preprocess.mean), np.array(experiment.preprocess.std)
    expected = np.clip(np.round(255 * (np.asarray(images) * std + mean)), 0, 255)
    assert len(cells) == 4 * (1 + 3)
    for row in range(4):
        original, first, second = (cells[row + 4 * k] for k in range(3))
        index = int(batch["index"][0, row])
        assert (original[0] == experiment.dataset.train.source[index][0]).all()
        assert np.abs(first[0].astype(int) - expected[row]).max() <= 1
        assert (first[0] != second[0]).any()
        label = experiment.dataset.class_names[int(targets.label[row])]
        assert first[1].endswith(label)
        if mix:
            weight = float(np.broadcast_to(targets.weight, (6,))[row])
            assert weight > 0.995 or first[1] == f"{weight:.2f} {label}"


def test_the_page_shows_images_with_the_partners_of_the_first_step_where_they_are_repeated(
        photos, monkeypatch):
    config = parse(["launch.py", "--config=experiments/simple_cnn.py", "--job=summarize",
                    f"--config.data.name=folder:{photos}", "--config.data.image_size=8",
                    "--config.train.batch_size=6", "--config.augment.repeats=3",
                    "--config.augment.random_resized_crop=(0.2,0.5)", "--config.augment.mixup=1.0",
                    "--config.data.on_error=skip", "--config.summarize.draws=1"]).config
    cells = []
    monkeypatch.setattr(contact_sheet, "draw", lambda images, columns: cells.extend(images) or b"")
    experiment = experiment_lib.build(config)
    augmented_sheet.draw(experiment)
    batch, given = first_batch(experiment)
    assert len(set(batch["index"][0, :3].tolist())) == 1
    images, _ = jax.jit(functools.partial(step_lib.augmented, experiment.phases[-1].task))(0, given)
    for row, (pixels, *_) in zip((0, 3), cells[2:], strict=True):
        expected = augmented_sheet._pixels(np.asarray(images[row]), experiment)
        assert np.abs(pixels.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("mix", [[], ["--config.augment.mixup=1.0"]])
def test_the_page_shows_few_images_of_a_large_batch_as_they_are_in_it(mix, monkeypatch):
    command = parse([*CONFIG, "--config.train.batch_size=24", "--config.augment.pad_crop=2",
                     "--config.data.placement=stream", "--config.summarize.images=4",
                     "--config.summarize.draws=1", *mix])
    cells = []
    monkeypatch.setattr(contact_sheet, "draw", lambda images, columns: cells.extend(images) or b"")
    monkeypatch.setattr(augmented_sheet, "_ROWS", 8)
    experiment = experiment_lib.build(command.config)
    augmented_sheet.draw(experiment)
    phase = experiment.phases[-1]
    batch, given = first_batch(experiment)
    images, _ = jax.jit(functools.partial(step_lib.augmented, phase.task))(0, given)
    for row, (pixels, *_) in enumerate(cells[4:]):
        expected = augmented_sheet._pixels(np.asarray(images[row]), experiment)
        assert np.abs(pixels.astype(int) - expected).max() <= 1
    if mix:  # With the row that is as far from the end.
        names = [experiment.dataset.class_names[int(batch["label"][0, i])] for i in (0, 23)]
        assert [line.split(" ", 1)[1] for line in cells[4][1:]] == names


def test_a_first_batch_of_nothing_but_bad_files_is_explained():
    experiment = experiment_lib.build(parse([*CONFIG, "--config.data.placement=stream"]).config)
    readable = np.zeros(len(experiment.dataset.train), bool)
    with pytest.raises(UserError, match="None of the images of the first batch.*--config.seed=1"):
        augmented_sheet.draw(experiment, readable)


def test_the_key_is_checked_and_the_model_is_summarized_by_default(capsys):
    assert main([*CONFIG[:2], "--what=date", CONFIG[3]]) == 2
    assert "Did you mean 'data'" in capsys.readouterr().err
    assert main(["launch.py", "--what=data", CONFIG[3]]) == 2
    assert "--what goes with --job=summarize" in capsys.readouterr().err
    assert config_lib.default().summarize.what == "model"


def test_a_dry_run_reads_nothing_and_writes_nothing(tmp_path, capsys):
    assert main([*CONFIG, "--dry_run", f"--workdir={tmp_path / 'out'}"]) == 0
    assert "Would read 1,437 + 360 examples of digits" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_of_many_classes_the_smallest_and_largest_are_shown():
    rows = data_summary._balance({f"c{i}": 10 + i for i in range(25)})
    assert rows.pop("classes").startswith("25; largest over smallest 3.4")
    assert [name.strip() for name in rows] == [
        "c0", "c1", "c2", "c3", "c4", "c24", "c23", "c22", "c21", "c20"]
    assert rows["  c24"] == "34 (6.2%)"
    empty = data_summary._balance({"a": 0, "b": 5})
    assert "a class has none" in empty["classes"] and empty["  a"] == "0 (0.0%)"


def test_classes_of_one_name_are_counted_apart(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "birds.npz", x_train=images, y_train=np.arange(60) % 3,
             class_names=np.array(["crane", "dog", "crane"]))
    assert main([*CONFIG, f"--workdir={tmp_path / 'run'}", "--config.train.batch_size=8",
                 f"--config.data.name=npz:{tmp_path / 'birds.npz'}"]) == 0
    found = json.loads((tmp_path / "run" / "data.json").read_text())["splits"]["train"]["classes"]
    assert found == {"crane (0)": 16, "dog": 16, "crane (2)": 16}
