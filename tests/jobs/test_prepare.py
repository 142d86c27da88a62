"""--job=prepare of photographs, and training on the copy, as a user types them."""

import numpy as np
import pytest
from PIL import Image
from results import lines, summary

from cnnjax.command_line import main

PREPARE = ["launch.py", "--config=experiments/simple_cnn.py", "--job=prepare"]
TRAIN = ["launch.py", "--config=experiments/simple_cnn.py", "--config.model.widths=(4, 8)",
         "--config.data.image_size=16", "--config.augment.random_resized_crop=(0.2, 1.0)",
         "--config.train.batch_size=8", "--config.train.steps=12", "--config.log.every_steps=1",
         "--config.checkpoint.every_steps=2", "--config.log.progress=none",
         "--config.log.plot=False"]


@pytest.fixture
def photos(tmp_path):
    """40 photos of two classes, 60 to 79 pixels high."""
    for i in range(40):
        path = tmp_path / "photos" / ("cat", "dog")[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((90, 60 + i // 2)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def command(photos):
    return [*PREPARE, f"--config.data.name=folder:{photos}", "--config.prepare.short_side=32"]


def test_a_copy_is_made_beside_the_photos_and_named(command, photos, capsys):
    assert main([*command, "--dry_run"]) == 0
    assert f"Would copy 32 and 8 images of folder:{photos}" in capsys.readouterr().out
    assert [p.name for p in photos.parent.iterdir()] == ["photos"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert f"Train on it with --config.data.name=records:{photos}-32px" in out
    assert "train: 32 images, 32 of them made smaller" in out
    assert main(command) == 0
    assert "is prepared already" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_on_a_copy_resumes_to_what_an_uninterrupted_one_ends_with(
        command, photos, tmp_path, capsys):
    assert main(command) == 0
    train = [*TRAIN, f"--config.data.name=records:{photos}-32px", "--config.data.placement=stream"]
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert main([*train, f"--workdir={whole}"]) == 0
    assert main([*train, f"--workdir={halves}", "--config.train.stop_after_steps=5"]) == 0
    assert main([*train, f"--workdir={halves}"]) == 0
    assert summary(halves)["state_sha256"] == summary(whole)["state_sha256"]
    losses = [[line["train_loss"] for line in lines(folder)] for folder in (halves, whole)]
    assert losses[0] == losses[1] and len(losses[0]) == 12
    assert summary(whole)["data"] == f"records:{photos}-32px"


@pytest.mark.parametrize(("arguments", "message"), [
    (["--config.prepare.output={photos}/copy"], "in the folder of the images"),
    (["--config.prepare.output={photos}/cat/0.jpg/x"], "in the folder of the images"),
    (["--config.prepare.short_side=4"], "prepare.short_side is 4; it lies between 16 and 8192"),
    (["--config.prepare.quality=0"], "prepare.quality is 0"),
    (["--config.prepare.sort_side=4"], "prepare.short_side"),
    (["--config.data.name=folder:nowhere"], "There is no folder"),
    (["--config.data.train_split=trian"], "Did you mean 'train'? (data.train_split=trian)"),
    (["--config.data.name=wds:nowhere"], "There is no folder"),
    (["--config.data.name=imagenet:nowhere"], "There is no folder"),
])
def test_mistakes_are_one_message(command, photos, capsys, arguments, message):
    words = [word.format(photos=photos) for word in arguments]
    assert main([*command, *words]) == 2
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err


def test_bad_photos_are_an_error_or_copied_as_they_are(command, photos, capsys):
    (photos / "dog/1.jpg").write_bytes(b"broken")
    assert main(command) == 2
    err = capsys.readouterr().err
    assert "dog/1.jpg is a text file" in err and "on_error=skip" in err
    assert main([*command, "--config.data.on_error=skip"]) == 0
    assert "1 unreadable" in capsys.readouterr().out


def test_what_needs_no_copy_says_so(tmp_path, command, photos, capsys):
    assert main(command) == 0
    for name in ("digits", f"records:{photos}-32px"):
        assert main([*PREPARE, f"--config.data.name={name}"]) == 0
        assert "needs no preparation" in capsys.readouterr().out


def test_a_copy_that_is_not_there_says_how_to_make_it(photos, capsys):
    assert main([*TRAIN, f"--config.data.name=records:{photos}-32px", "--dry_run"]) == 2
    assert "--job=prepare" in capsys.readouterr().err
