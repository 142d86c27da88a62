"""Images of other channels than grey and RGB ones have, through every job."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import cnnjax
from cnnjax import config as config_lib
from cnnjax.command_line import main
from cnnjax.data import open_dataset
from cnnjax.jobs import initial_weights
from cnnjax.jobs.images import open_images
from cnnjax.types import Preprocess
from cnnjax.weights import Pretrained

QUIET = ["--config.log.progress=none", "--config.log.plot=False", "--config.log.tensorboard=False"]
TINY = ["launch.py", "--config=experiments/simple_cnn.py", "--config.model.widths=(4,8)",
        "--config.train.batch_size=16", *QUIET]


def write(folder, channels):
    """Writes FOLDER/CHANNELS.npz, whose classes differ in the last channel alone."""
    labels = np.arange(64) % 2
    images = np.random.default_rng(0).integers(0, 80, (64, 12, 12, channels), np.uint8)
    images[..., -1] += (150 * labels[:, None, None]).astype(np.uint8)
    path = folder / f"{channels}.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images[:24], y_test=labels[:24])
    return f"--config.data.name=npz:{path}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, root):
    """A workdir that has trained on images of 13 channels, was stopped and has gone on."""
    folder = tmp_path_factory.mktemp("channels")
    command = [*TINY, write(folder, 13), "--config.train.steps=16", "--config.augment.flip=True",
               "--config.augment.random_resized_crop=(0.5,1.0)", "--config.augment.cutmix=1.0",
               "--config.augment.mix_probability=0.5", "--config.augment.erase=0.2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main([*command, f"--workdir={folder / 'whole'}"]) == 0
        stopped = [*command, f"--workdir={folder / 'run'}", "--config.data.placement=stream"]
        assert main([*stopped, "--config.train.stop_after_steps=6"]) == 0
        assert main(stopped) == 0
    return folder / "run"


def read(path):
    return json.loads(path.read_text())


def test_a_run_on_13_channels_resumes_bit_for_bit_and_learns_from_the_last(trained):
    run, whole = (read(folder / "summary.json") for folder in (trained, trained.parent / "whole"))
    assert run["state_sha256"] == whole["state_sha256"] and run["top1"] > 0.9


def test_its_checkpoint_is_evaluated_over_views_probed_and_exported(trained):
    job = [f"--workdir={trained}", *QUIET]
    assert main(["launch.py", "--job=evaluate", *job, "--config.eval.tta=five_crop",
                 "--config.eval.probe=all"]) == 0
    found = read(trained / "evaluate.json")
    assert found["eval_examples"] == 24 and min(found["eval_top1"], found["probe_linear"]) > 0.8
    assert main(["launch.py", "--job=export", *job]) == 0
    assert read(trained / "export" / "model.json")["input"]["shape"] == ["batch", 16, 16, 13]


def test_corruptions_that_know_colours_are_refused_before_anything_is_measured(trained, capsys):
    job = ["launch.py", "--job=evaluate", f"--workdir={trained}", *QUIET]
    for dry in ([], ["--dry_run"]):
        assert main([*job, "--config.eval.corruptions=('snow','contrast')", *dry]) == 2
        error = capsys.readouterr().err
        assert "have 13 channels, but snow of eval.corruptions" in error
        assert "\"--config.eval.corruptions=('contrast',)\"" in error
    assert main([*job, "--config.eval.corruptions=('contrast',)"]) == 0
    assert len(read(trained / "evaluate.json")["corruptions"]["contrast"]) == 5


def test_the_evaluation_split_is_labelled_and_files_are_refused(trained, tmp_path, capsys):
    job = ["launch.py", "--job=predict", f"--workdir={trained}", *QUIET]
    assert main([*job, "--config.predict.sheet=0"]) == 0
    rows = [line.split(",") for line in (trained / "predictions.csv").read_text().splitlines()[1:]]
    top1 = read(trained / "summary.json")["top1"]
    assert np.mean([row[1] == row[-1] for row in rows]) == pytest.approx(top1)
    assert main([*job, f"--images={__file__}"]) == 2
    assert "takes 13. Without --images the evaluation split" in capsys.readouterr().err


@pytest.mark.parametrize("channels", [1, 2])
def test_images_of_other_channels_than_the_models_are_refused(trained, tmp_path, capsys, channels):
    other = write(tmp_path, channels)
    for job, message in (("evaluate", f"have {channels} channels, and the model in {trained} "
                          "takes 13"), ("predict", "--images=FOLDER")):
        assert main(["launch.py", f"--job={job}", f"--workdir={trained}", *QUIET, other]) == 2
        assert message in capsys.readouterr().err


def test_pictures_show_the_first_three_channels_and_say_so(trained, tmp_path, capsys):
    images = np.load(trained.parent / "13.npz")["x_test"]
    assert main(["launch.py", "--job=predict", f"--workdir={trained}", *QUIET]) == 0
    assert "first three of 13 channels" in capsys.readouterr().out
    sheet = np.asarray(Image.open(trained / "predictions.png"))[8:168, 8:168]  # The first image.
    shown = sheet.reshape(16, 10, 16, 10, 3)[:, 5, :, 5].mean((0, 1))
    np.testing.assert_allclose(shown, images[0, ..., :3].mean((0, 1)), atol=2)
    assert main(["launch.py", "--job=visualize", f"--workdir={trained}", *QUIET,
                 "--config.visualize.count=8", "--config.visualize.shown=1",
                 "--config.visualize.channels=1", "--config.visualize.patches=1",
                 "--config.visualize.ascent=0", "--config.visualize.integration=2",
                 "--config.visualize.umap=False", "--config.visualize.endpoints=('stage1',)"]) == 0
    assert (trained / "visualize" / "index.html").read_text().count("first three of 13") == 1


@pytest.mark.parametrize(("channels", "note"), [(2, "two channels as red"), (13, "of 13 channels")])
def test_what_is_in_such_a_data_set(tmp_path, capsys, channels, note):
    assert main([*TINY, "--job=summarize", "--what=data", write(tmp_path, channels),
                 f"--workdir={tmp_path / 'run'}", "--config.summarize.draws=1"]) == 0
    out = capsys.readouterr().out
    assert note in out and f"{channels} channels: 64" in out
    found = read(tmp_path / "run" / "data.json")["splits"]["train"]
    with np.load(tmp_path / f"{channels}.npz") as file:
        images = file["x_train"] / 255
    np.testing.assert_allclose(found["mean"], images.mean((0, 1, 2)), atol=1e-3)


@pytest.fixture(scope="module")
def rgb(tmp_path_factory):
    """Weights of a small CNN on RGB images, for two classes."""
    path = tmp_path_factory.mktemp("rgb") / "rgb.safetensors"
    module = cnnjax.create_model("simple_cnn", 2, widths=(4, 8))
    variables = jax.jit(module.init)(jax.random.key(3), np.zeros((1, 16, 16, 3), np.float32))
    cnnjax.save_weights(path, "simple_cnn", variables, widths=(4, 8), preprocess=Preprocess(
        (16, 16), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)))
    return path, np.asarray(variables["params"]["conv1"]["kernel"])


@pytest.mark.parametrize(("channels", "mean", "taken"), [
    (13, None, 13), (2, None, 2), (3, None, 3), (1, None, 3), (1, (0.5,), 1)])
def test_weights_to_start_from_are_adapted_as_timm_adapts_them(
        rgb, tmp_path, channels, mean, taken):
    path, kernel = rgb
    config = config_lib.default()
    with config.unlocked():
        config.model.name, config.model.widths = "simple_cnn", (4, 8)
        config.weights.path, config.data.mean = str(path), mean
    name = write(tmp_path, channels).removeprefix("--config.data.name=")
    found = initial_weights.load(config, open_dataset(name))
    # timm 1.0.31, models/_manipulate.py, adapt_input_conv.
    expected = (kernel.sum(2, keepdims=True) if taken == 1 else
                np.tile(kernel, (1, 1, 5, 1))[:, :, :taken] * (3 / taken))
    np.testing.assert_allclose(found.variables["params"]["conv1"]["kernel"], expected, rtol=1e-6)
    assert found.preprocess.channels == taken
    assert found.adapted_from == (None if taken == 3 else 3)


def test_a_run_says_that_it_starts_from_adapted_weights(rgb, tmp_path, capsys):
    command = [*TINY, write(tmp_path, 13), f"--config.weights.path={rgb[0]}",
               "--config.train.steps=2", f"--workdir={tmp_path / 'run'}"]
    assert main(command) == 0
    # The table breaks the line.
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "the first layer adapted from 3 to 13 channels, with their head" in said
    assert main([*command, "--config.train.steps=4"]) == 0
    assert read(tmp_path / "run" / "summary.json")["steps"] == 4


@pytest.mark.parametrize(("channels", "adapted"), [(13, 3), (3, None)])
def test_the_evaluation_of_weights_says_of_what_channels_they_are(rgb, tmp_path, channels, adapted):
    assert main([*TINY, "--job=evaluate", write(tmp_path, channels), f"--workdir={tmp_path}",
                 f"--config.weights.path={rgb[0]}"]) == 0
    found = read(tmp_path / "evaluate.json")
    assert found["weights"] == str(rgb[0]) and found.get("adapted_from_channels") == adapted


def test_numbers_for_other_channels_are_refused_with_how_many_there_should_be(tmp_path, capsys):
    assert main([*TINY, write(tmp_path, 13), "--config.data.mean=(0.5,)", "--config.data.std=(1,)",
                 f"--workdir={tmp_path / 'run'}"]) == 2
    assert "have 13 channels, but data.mean is for 1. Give --config.data.mean and std one number " \
        "for each channel" in capsys.readouterr().err


@pytest.mark.parametrize(("channels", "advice"), [(13, "give a teacher of images like those of"),
                                                  (1, "set --config.data.mean and std")])
def test_a_teacher_of_other_channels_is_refused_with_what_helps(
        rgb, tmp_path, capsys, channels, advice):
    assert main([*TINY, write(tmp_path, channels), "--config.distill.model=simple_cnn",
                 f"--config.distill.weights={rgb[0]}", f"--workdir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert f"takes images of 3 channels, and the student of {channels}: {advice}" in error


def test_what_was_taken_for_granted_of_the_images_is_told(tmp_path, root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    labels = np.arange(32) % 2
    np.savez(tmp_path / "low.npz", images=np.zeros((32, 8, 12, 13), np.uint8), labels=labels)
    assert main([*TINY, f"--config.data.name=npz:{tmp_path / 'low.npz'}", "--dry_run"]) == 0
    said = capsys.readouterr().err
    assert said.count("Warning: ") == 1 and "8 high and 12 wide, of 13 channels" in said
    assert main([*TINY, f"--config.data.name=npz:{tmp_path / 'low.npz'}", "--job=summarize"]) == 0
    assert "8 high and 12 wide, of 13 channels" in capsys.readouterr().err
    config = config_lib.default()
    config.data.name, config.data.image_size = f"npz:{tmp_path / 'low.npz'}", 8
    model = Pretrained(cnnjax.create_model("simple_cnn", 2), {}, Preprocess(
        (8, 8), (0.5,) * 13, (0.5,) * 13), None, "simple_cnn", {}, "nowhere")
    open_images(config, model, None)
    assert "8 high and 12 wide, of 13 channels" in capsys.readouterr().err
