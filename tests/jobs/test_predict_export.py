"""--job=predict and --job=export, of a trained workdir and of pretrained weights."""

import csv
import dataclasses
import json
import os
import shutil
import sys

import cv2
import jax
import numpy as np
import pytest
from PIL import Image

import cnnjax
from cnnjax import config as config_lib
from cnnjax.command_line import main
from cnnjax.data import augment, inputs
from cnnjax.jobs import backend, console, contact_sheet, export, memory
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.pretrained import _at_size, what_differs
from cnnjax.models.simple_cnn import SimpleCNN
from cnnjax.types import Preprocess
from cnnjax.weights import Pretrained, has_names, namings

RUN = ["launch.py", "--config=experiments/simple_cnn.py", "--config.model.widths=(4,8)",
       "--config.data.image_size=8", "--config.train.steps=30", "--config.log.progress=none",
       "--config.log.plot=False", "--config.log.tensorboard=False"]
TINY = dict(widths=(4, 8))
PREPROCESS = Preprocess((16, 16), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), 0.8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, root):
    """A workdir that has trained on the digits."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main([*RUN, f"--workdir={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Weights of a small CNN on RGB images, with names of its seven classes."""
    path = tmp_path_factory.mktemp("pretrained") / "tiny.safetensors"
    module = cnnjax.create_model("simple_cnn", 7, **TINY)
    variables = jax.jit(module.init)(jax.random.key(3), np.zeros((1, 16, 16, 3), np.float32))
    cnnjax.save_weights(path, "simple_cnn", variables, preprocess=PREPROCESS,
                        class_names=[f"kind {i}" for i in range(7)], **TINY)
    return path


@pytest.fixture
def photos(tmp_path):
    """Images of several sizes and formats, some in a sub-folder, and their names."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = ["a.png", "b.jpg", "more/c.PNG", "more/ü, d.png", "z.bmp"]
    for i, name in enumerate(names):
        image = rng.integers(0, 256, (20 + 3 * i, 33 - 2 * i, 3), np.uint8)
        cv2.imencode(name[-4:], image)[1].tofile(folder / name)
    (folder / "notes.txt").write_text("no image")
    for name in ("from a phone.HEIC", "more/another.heic"):
        (folder / name).write_bytes(b"something else")
    return folder, names


def predict(pretrained, out, *words):
    return main(["launch.py", "--job=predict", "--model=simple_cnn", f"--weights={pretrained}",
                 f"--workdir={out}", "--config.log.progress=none", *words])


def table(folder):
    with open(folder / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_trained_workdir_labels_its_evaluation_split_as_it_was_evaluated(trained, capsys):
    assert main(["launch.py", "--job=predict", f"--workdir={trained}"]) == 0
    rows = table(trained)
    assert len(rows) == 360 and rows[0]["file"] == "test[0]"
    right = np.mean([row["label"] == row["true_label"] for row in rows])
    assert right == json.loads((trained / "summary.json").read_text())["top1"]
    assert f"{right:.2%}" in capsys.readouterr().out


def test_whatever_ends_the_labelling_the_bar_is_taken_down(
        pretrained, photos, tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr(console.Display, "close", lambda display: closed.append(display))
    monkeypatch.setattr("cnnjax.jobs.predict._label", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict(pretrained, tmp_path / "out", f"--images={photos[0]}")
    assert len(closed) == 1


def test_a_trained_workdir_labels_image_files_as_the_split_they_are_from(trained, tmp_path, capsys):
    assert main(["launch.py", "--job=predict", f"--workdir={trained}"]) == 0
    expected = table(trained)[:9]
    source = cnnjax.data.open_dataset("digits").eval.source
    for i in range(9):
        cv2.imwrite(str(tmp_path / f"{i}.png"), source[i][0])
    assert main(["launch.py", "--job=predict", f"--workdir={trained}",
                 f"--images={tmp_path}"]) == 0
    for row, same in zip(table(trained), expected, strict=True):
        assert row["label"] == same["label"]
        assert float(row["probability"]) == pytest.approx(float(same["probability"]), abs=0.01)


def test_images_are_resized_whole_where_those_of_the_data_set_were(tmp_path):
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for i in range(4):
                cv2.imwrite(str(folder / split / name / f"{i}.png"),
                            rng.integers(0, 256, (32, 48, 3), np.uint8))
    config = config_lib.default()
    config.model.name, config.data.name = "simple_cnn", f"folder:{folder}"
    config.data.image_size, config.train.batch_size, config.train.steps = 24, 4, 1
    experiment = experiment_lib.build(config)
    image = experiment.dataset.eval.source[0][0]
    seen = augment.resize(image[None], experiment.preprocess.size)[0]
    found = inputs.fitted(image, experiment.preprocess)
    assert np.abs(found.astype(int) - np.asarray(seen).astype(int)).max() <= 1
    again = Preprocess.from_dict(json.loads(json.dumps(experiment.preprocess.to_dict())))
    assert again == experiment.preprocess and again.whole


@pytest.mark.parametrize("side", [32, 33])
def test_photos_that_have_the_models_size_are_cropped_as_others_are(side):
    preprocess = Preprocess(size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3, crop=0.8)
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    resized = Image.fromarray(pixels).resize((40, 40), Image.Resampling.BILINEAR)
    found = inputs.fitted(pixels, preprocess).astype(int)
    assert np.abs(found - np.asarray(resized)[4:36, 4:36]).max() <= 2
    whole = dataclasses.replace(preprocess, crop=1.0)
    np.testing.assert_array_equal(inputs.fitted(pixels[:32, :32], whole), pixels[:32, :32])


def test_pretrained_weights_label_a_folder_with_class_names_and_a_sheet(pretrained, photos,
                                                                        tmp_path, capsys):
    folder, names = photos
    out = tmp_path / "out"
    # A batch that the images don't fill, and one that they fill twice over.
    assert predict(pretrained, out, f"--images={folder}", "--config.predict.batch_size=4") == 0
    assert "other extensions: .heic: 2, .txt: 1" in " ".join(capsys.readouterr().out.split())
    rows = table(out)
    assert [row["file"] for row in rows] == [str(folder / name) for name in sorted(names)]
    module, variables, preprocess = cnnjax.load_weights("simple_cnn", pretrained)
    assert preprocess == PREPROCESS
    for row in rows:
        image = cnnjax.data.read_image(row["file"])
        image = cnnjax.data.resize_center_crop(image, (16, 16), 0.8)
        x = (image / np.float32(255) - np.float32(PREPROCESS.mean)) / np.float32(PREPROCESS.std)
        probabilities = np.asarray(jax.nn.softmax(module.apply(variables, x[None])[0]))
        best = np.argsort(-probabilities)[:5]
        found = [row[key] for key in ("label", "label_2", "label_3", "label_4", "label_5")]
        assert found == [f"kind {k}" for k in best]
        assert float(row["probability_5"]) == pytest.approx(probabilities[best[4]], abs=1e-5)
    sheet = cv2.imread(str(out / "predictions.png"))
    assert sheet.shape[0] > 160 and sheet.shape[1] > 160 and sheet.std() > 10
    assert {p.name for p in out.iterdir()} == {"predictions.csv", "predictions.png"}


def test_a_caption_of_several_lines_is_put_into_one():
    image = np.zeros((8, 8, 3), np.uint8)
    sheets = [contact_sheet.draw([(image, name)]) for name in ("a\nb,\n", "a b,")]
    assert sheets[0] == sheets[1]


def test_one_file_is_labelled_like_a_folder(pretrained, photos, tmp_path):
    folder, names = photos
    assert predict(pretrained, tmp_path / "out", f"--images={folder / 'b.jpg'}") == 0
    assert [row["file"] for row in table(tmp_path / "out")] == [str(folder / "b.jpg")]


def test_images_that_cannot_be_read_are_named_and_the_others_labelled(pretrained, photos, tmp_path,
                                                                      capsys):
    folder, names = photos
    (folder / "c.jpg").write_bytes(b"not a JPEG")
    (folder / "d.png").write_bytes((folder / "a.png").read_bytes()[:40])
    (folder / "e.png").touch()
    code = predict(pretrained, tmp_path / "out", f"--images={folder}",
                   "--config.predict.batch_size=1")
    said = capsys.readouterr().err
    assert code == 2 and "3 of 8 images could not be read" in said
    assert all(str(folder / name) in said for name in ("c.jpg", "d.png", "e.png"))
    assert len(table(tmp_path / "out")) == len(names)


def test_without_images_pretrained_weights_say_what_is_missing(pretrained, tmp_path, capsys):
    assert predict(pretrained, tmp_path / "out") == 2
    assert "--images=FOLDER" in capsys.readouterr().err
    assert predict(pretrained, tmp_path / "out", f"--images={tmp_path / 'none'}") == 2
    assert "There is no file or folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert predict(pretrained, tmp_path / "out", f"--images={tmp_path / 'empty'}") == 2
    assert "There are no images in" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_of_either_job_writes_nothing(pretrained, photos, tmp_path, capsys):
    assert predict(pretrained, tmp_path / "out", f"--images={photos[0]}", "--dry_run") == 0
    assert "Would label 5 images" in capsys.readouterr().out
    assert main(["launch.py", "--job=export", "--model=simple_cnn", f"--weights={pretrained}",
                 f"--workdir={tmp_path / 'out'}", "--dry_run"]) == 0
    assert "Would export" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_another_model_than_the_workdirs_is_refused(trained, capsys):
    assert main(["launch.py", "--job=predict", f"--workdir={trained}",
                 "--config.model.widths=(4,16)"]) == 2
    assert "model.widths: [4, 8] there, [4, 16] here" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_started_from_weights_labels_as_it_was_evaluated(trained, tmp_path, capsys):
    folder = tmp_path / "transfer"
    assert main(["launch.py", "--config=experiments/transfer.py", f"--workdir={folder}",
                 "--config.model.name=simple_cnn", "--config.model.widths=(4,8)",
                 f"--config.weights.path={trained}", "--config.head.epochs=1",
                 "--config.train.epochs=1", "--config.log.progress=none",
                 "--config.log.plot=False"]) == 0
    for job in ("predict", "export"):
        assert main(["launch.py", f"--job={job}", f"--workdir={folder}"]) == 0
    right = np.mean([row["label"] == row["true_label"] for row in table(folder)])
    assert right == json.loads((folder / "summary.json").read_text())["top1"]


def test_the_config_overrides_the_preprocessing_of_weights(pretrained, photos, tmp_path, capsys):
    assert predict(pretrained, tmp_path, f"--images={photos[0]}", "--dry_run",
                   "--config.data.image_size=24", "--config.data.crop=1.0",
                   "--config.data.interpolation=bicubic") == 0
    out = capsys.readouterr().out
    assert "size=(24, 24)" in out and "crop=1.0" in out and "bicubic" in out


def test_a_workdir_is_a_source_of_weights_too(trained, tmp_path):
    module, variables, preprocess = cnnjax.load_weights("simple_cnn", trained)
    assert module.widths == (4, 8) and preprocess.crop == 1.0 and preprocess.size == (8, 8)
    step = next((trained / "checkpoints").glob("30"))
    again = cnnjax.load_weights("simple_cnn", step)[1]
    jax.tree.map(np.testing.assert_array_equal, variables, again)
    module, found, _ = cnnjax.load_weights("simple_cnn", trained, num_classes=3, in_chans=3)
    assert found["params"]["head"]["kernel"].shape == (8, 3)
    np.testing.assert_array_equal(found["params"]["conv2"]["kernel"],
                                  variables["params"]["conv2"]["kernel"])
    with pytest.raises(cnnjax.types.UserError, match="is a run of simple_cnn, not of lenet5"):
        cnnjax.load_weights("lenet5", trained)


@pytest.mark.parametrize("kind", ["float32", "uint8"])
def test_an_exported_program_gives_the_models_logits_for_any_batch(pretrained, tmp_path, kind,
                                                                   capsys):
    assert main(["launch.py", "--job=export", "--model=simple_cnn", f"--weights={pretrained}",
                 f"--workdir={tmp_path}", f"--config.export.input={kind}"]) == 0
    out = capsys.readouterr().out
    folder = tmp_path / "export"
    program = jax.export.deserialize((folder / "model.stablehlo").read_bytes())
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    module, variables, preprocess = cnnjax.load_weights("simple_cnn", folder / "model.safetensors")
    about = json.loads((folder / "model.json").read_text())
    assert preprocess == PREPROCESS == Preprocess.from_dict(about["preprocess"])
    assert about["class_names"][2] == "kind 2" and about["input"]["dtype"] == kind
    for batch in (1, 5):
        pixels = np.random.default_rng(batch).integers(0, 256, (batch, 16, 16, 3), np.uint8)
        x = (pixels / np.float32(255) - np.float32(preprocess.mean)) / np.float32(preprocess.std)
        expected = module.apply(variables, x)
        logits = program.call(pixels if kind == "uint8" else x)
        np.testing.assert_allclose(logits, expected, atol=1e-4 * np.std(expected))
    # What it prints is Python, of which the program's part works where cnnjax is not installed.
    program_part, weights_part = out[out.index("import pathlib"):].split("import cnnjax\n")
    names = {"images": pixels if kind == "uint8" else np.asarray(x)}
    exec(program_part, names)
    np.testing.assert_array_equal(names["logits"], logits)
    exec("import cnnjax\n" + weights_part, names := {})
    assert names["preprocess"] == preprocess


def test_a_trained_workdir_is_exported_with_its_classes(trained, capsys):
    assert main(["launch.py", "--job=export", f"--workdir={trained}"]) == 0
    about = json.loads((trained / "export" / "model.json").read_text())
    assert about["class_names"] == list("0123456789")
    assert about["input"]["shape"] == ["batch", 8, 8, 1] and about["input"]["channels"] == "grey"
    original = cnnjax.load_weights("simple_cnn", trained)
    exported = cnnjax.load_weights("simple_cnn", trained / "export" / "model.safetensors")
    assert original[0] == exported[0] and original[2] == exported[2]
    jax.tree.map(np.testing.assert_array_equal, original[1], exported[1])


def test_a_model_without_names_in_torch_is_exported_as_a_program_alone(trained, tmp_path,
                                                                       monkeypatch, capsys):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("export"))
    monkeypatch.delitem(namings.NAMINGS, SimpleCNN)
    assert main(["launch.py", "--job=export", f"--workdir={folder}"]) == 0
    assert {path.name for path in (folder / "export").iterdir()} == {"model.stablehlo",
                                                                     "model.json"}
    out = " ".join(capsys.readouterr().out.split())
    assert "left out: no names in torch" in out and "load_weights" not in out


def test_a_model_whose_layout_has_no_names_in_torch_is_exported_as_a_program_alone():
    for size, named in (((28, 28), True), ((28, 20), False)):
        module = cnnjax.create_model("lenet5", 10)
        variables = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct(
            (1, *size, 1), np.float32))
        assert has_names("lenet5", module, variables) == named


def test_a_run_is_evaluated_where_its_training_would_not_fit(trained, monkeypatch):
    monkeypatch.setattr(memory, "memory_of", lambda device: 40_000)
    assert main([*RUN, f"--workdir={trained}", "--config.train.steps=31"]) == 2
    assert main(["launch.py", "--job=evaluate", f"--workdir={trained}",
                 "--config.eval.batch_size=1", "--dry_run"]) == 0


@pytest.mark.parametrize(("flag", "says"), [
    ("--config.data.image_size=16", "data.image_size: 8 there, 16 here"),
    ("--config.data.mean=(0.9,)", "data.mean")])
def test_a_run_labels_images_as_it_was_trained_or_not_at_all(trained, photos, flag, says, capsys):
    assert main(["launch.py", "--job=predict", f"--workdir={trained}", f"--images={photos[0]}",
                 flag, "--dry_run"]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(("job", "side"), [("predict", 32), ("export", 32), ("predict", 4)])
def test_a_net_with_a_flattened_map_is_not_given_images_of_another_size(job, side, photos,
                                                                        tmp_path, capsys):
    module, path = cnnjax.create_model("lenet5", 7), tmp_path / "lenet5.safetensors"
    cnnjax.save_weights(path, "lenet5", module.init(jax.random.key(0), np.zeros((1, 16, 16, 3))),
                        preprocess=PREPROCESS)
    command = ["launch.py", f"--job={job}", "--model=lenet5", f"--weights={path}",
               f"--workdir={tmp_path / 'out'}", "--dry_run",
               *[f"--images={photos[0]}"] * (job == "predict")]
    assert main([*command, f"--config.data.image_size={side}"]) == 2
    said = capsys.readouterr().err
    assert f"Images of {side}x{side} do not fit lenet5" in said
    assert "Set --config.data.image_size=0, for the 16x16" in said
    assert main([*command, "--config.data.image_size=0"]) == 0


def test_an_auxiliary_head_that_images_are_too_small_for_does_not_keep_the_net_from_them():
    module = cnnjax.create_model("inception_v3", 4, aux_logits=True)
    variables = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 299, 299, 3)))
    found = Pretrained(module, variables, dataclasses.replace(PREPROCESS, size=(299, 299)), None,
                       "inception_v3", {}, "inception.safetensors")
    size = dataclasses.replace(found.preprocess, size=(128, 128))
    assert _at_size(found, size, "eval.image_size").preprocess == size


def test_a_standard_deviation_of_0_is_refused(pretrained, photos, tmp_path, capsys):
    assert predict(pretrained, tmp_path / "out", f"--images={photos[0]}",
                   "--config.data.std=(0.5,0.5,0.0)") == 2
    assert "data.std is (0.5, 0.5, 0.0)" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes there")
def test_names_that_are_no_utf8_are_written_as_their_bytes(pretrained, photos, tmp_path):
    folder, name = photos[0], b"caf\xe9.png"
    (folder / "a.png").rename(os.fsdecode(os.path.join(os.fsencode(folder), name)))
    assert predict(pretrained, tmp_path / "out", f"--images={folder}",
                   "--config.predict.batch_size=1000000000") == 0
    written = (tmp_path / "out" / "predictions.csv").read_bytes()
    assert name in written and len(written.splitlines()) == 6


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_images_that_cannot_be_read_are_named_whatever_batch_they_are_in(
        batch_size, pretrained, photos, tmp_path, capsys):
    folder, names = photos
    (folder / "a.jpg").write_bytes(b"not a JPEG")
    words = [f"--images={folder}", f"--config.predict.batch_size={batch_size}"]
    assert predict(pretrained, tmp_path / "bad", *words) == 2
    assert f"1 of {len(names) + 1} images could not be read" in capsys.readouterr().err
    (folder / "a.jpg").unlink()
    assert predict(pretrained, tmp_path / "good", *words) == 0
    assert [(row["file"], row["label"]) for row in table(tmp_path / "bad")] == [
        (row["file"], row["label"]) for row in table(tmp_path / "good")]


def test_an_export_whose_logits_are_others_is_noticed(pretrained, tmp_path, monkeypatch, capsys):
    def wrong(model, kind, right=export.to_stablehlo):
        return right(model._replace(variables=jax.tree.map(lambda a: 1.01 * a, model.variables)),
                     kind)

    monkeypatch.setattr(export, "to_stablehlo", wrong)
    assert main(["launch.py", "--job=export", "--model=simple_cnn", f"--weights={pretrained}",
                 f"--workdir={tmp_path}"]) == 2
    assert "of their spread from the model's" in capsys.readouterr().err


@pytest.mark.parametrize("job", ["predict", "export"])
def test_the_cache_of_compiled_programs_does_not_keep_weights(job, pretrained, photos, tmp_path,
                                                              cache, monkeypatch):
    monkeypatch.setattr(backend, "use_compilation_cache", lambda: None)
    module, variables, preprocess = cnnjax.load_weights("simple_cnn", pretrained)
    others = tmp_path / "others.safetensors"
    cnnjax.save_weights(others, "simple_cnn", jax.tree.map(lambda a: 2 * a, variables),
                        preprocess=preprocess, **TINY)
    kept = []
    for path in (pretrained, others):
        assert main(["launch.py", f"--job={job}", "--model=simple_cnn", f"--weights={path}",
                     f"--workdir={tmp_path / path.stem}", "--config.log.progress=none",
                     *[f"--images={photos[0]}"] * (job == "predict")]) == 0
        kept.append({entry.name for entry in (cache / "jax").glob("*-cache")})
    assert kept[0] and kept[1] == kept[0]


def test_images_of_another_size_are_resized_for_the_model_as_its_preprocessing_says():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    preprocess = Preprocess((8, 8), (0.5,) * 3, (0.25,) * 3, interpolation="bicubic")
    found = experiment_lib._prepare(preprocess, np.float32, pixels[None])[0]
    small = Image.fromarray(pixels).resize((8, 8), Image.Resampling.BICUBIC)
    expected = (np.asarray(small) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(found, expected, atol=1.01 / 255 / 0.25)  # A grey level.


def test_it_is_said_that_a_folder_which_has_changed_is_divided_anew(tmp_path, capsys):
    folder, workdir = tmp_path / "photos", tmp_path / "run"
    for i in range(20):
        path = folder / ("cat", "dog")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((8, 8, 3), 12 * i, np.uint8))
    assert main([*RUN, f"--config.data.name=folder:{folder}", "--config.train.steps=1",
                 "--config.train.batch_size=4", f"--workdir={workdir}"]) == 0

    def said(job, *words):
        capsys.readouterr()
        assert main(["launch.py", f"--job={job}", f"--workdir={workdir}", "--dry_run", *words]) == 0
        return capsys.readouterr().err

    def said_of_weights(key):
        capsys.readouterr()
        assert main([*RUN, f"--config.data.name=folder:{folder}", "--config.train.batch_size=4",
                     f"--config.{key}={workdir}", f"--workdir={tmp_path / 'next'}", "--dry_run"
                     ]) == 0
        return capsys.readouterr().err

    moved = folder.rename(tmp_path / "moved")
    for job in ("evaluate", "predict", "visualize"):
        assert said(job, f"--config.data.name=folder:{moved}") == ""
    (moved / "cat" / "0.png").rename(moved / "cat" / "one more.png")
    for job in ("evaluate", "predict", "visualize"):
        assert "images to evaluate on were drawn anew" in said(
            job, f"--config.data.name=folder:{moved}")
        assert said(job, f"--config.data.name=folder:{moved}", "--config.data.eval_split=train"
                    ) == ""
    moved.rename(folder)
    for key in ("weights.path", "distill.weights"):
        assert f"the run in {workdir} trained on. Its 4 images" in said_of_weights(key)
    (folder / "cat" / "one more.png").rename(folder / "cat" / "0.png")
    assert said_of_weights("weights.path") == said_of_weights("distill.weights") == ""


def test_it_is_said_how_classes_differ():
    names = [f"n{i:04}" for i in range(1000)]
    assert what_differs([*names[:7], "N0007", *names[8:]], names) == (
        "it lacks 'n0007'; it has besides 'N0007'. Did you mean 'n0007'?")
    assert what_differs(names[7:], names) == (
        "it lacks 'n0000', 'n0001', 'n0002', 'n0003', 'n0004' and 2 more.")
    assert what_differs(["b", "a"], ["a", "b"]) == (
        "they are ['b', 'a'], in this order, and those ['a', 'b'].")
