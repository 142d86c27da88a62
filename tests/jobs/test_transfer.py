"""Runs that start from weights: phases, what stays frozen, features, and resuming in either."""

import contextlib
import csv
import dataclasses
import json
import shutil
import types

import jax
import numpy as np
import pytest
from PIL import Image
from results import lines, summary

import cnnjax
from cnnjax import config as config_lib
from cnnjax import trees
from cnnjax import weights as weights_lib
from cnnjax.checkpoint import Checkpoints
from cnnjax.command_line import main
from cnnjax.data import augment, open_dataset
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs import initial_weights, record, workdir
from cnnjax.jobs import train as train_job
from cnnjax.types import Preprocess, UserError

# 12 steps of the head alone and 10 of everything, calls of one step.
RUN = ["launch.py", "--config=experiments/transfer.py", "--config.model.name=simple_cnn",
       "--config.model.widths=(4, 8)", "--config.model.dropout_rate=0.1",
       "--config.head.steps=12", "--config.train.steps=10", "--config.log.every_steps=5",
       "--config.eval.every_steps=7", "--config.log.progress=none", "--config.log.plot=False",
       "--config.log.tensorboard=False", "--config.data.image_size=0"]
PREPROCESS = Preprocess(size=(8, 8), mean=(0.25,), std=(0.5,), crop=1.0, interpolation="bicubic")


def weights(seed=7):
    """What `cnnjax.load_weights` would give: a net for 10 classes, unlike a fresh one."""
    module = cnnjax.create_model("simple_cnn", 10, widths=(4, 8))
    variables = jax.jit(module.init)(jax.random.key(seed), np.zeros((1, 8, 8, 1), np.float32))
    return module, jax.tree.map(lambda a: np.asarray(a) + 0.125, variables), PREPROCESS


def opened(module, variables, preprocess):
    """The same as `weights.load` gives it, of classes that have no names."""
    return weights_lib.Pretrained(module, variables, preprocess, None, "simple_cnn", {}, "there")


@pytest.fixture
def pretrained(monkeypatch):
    """Makes "a.safetensors" readable; calls are counted."""
    calls = []

    def load_weights(name, path_or_id, num_classes=None, **overrides):
        calls.append((name, path_or_id, num_classes, overrides))
        return opened(*weights())

    monkeypatch.setattr(weights_lib, "load", load_weights)
    return calls


def train(folder, *overrides, path="a.safetensors"):
    return main([*RUN, f"--config.weights.path={path}", f"--workdir={folder}", *overrides])


def digests(folder):
    return [summary(folder)[key] for key in ("params_sha256", "state_sha256", "top1")]


def restored(folder, step):
    """Returns the state after a step, and the record beside it."""
    config = workdir.load_config(folder)
    checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
    record = checkpoints.record(step)
    experiment = experiment_lib.build(config, Preprocess.from_dict(record["preprocess"]))
    return checkpoints.restore(step, experiment.abstract_state_at(step),
                               jax.sharding.SingleDeviceSharding(jax.devices()[0])), record


@pytest.fixture(scope="module")
def whole(tmp_path_factory, root):
    """An uninterrupted run of both phases."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(weights_lib, "load", lambda *args, **more: opened(*weights()))
        assert train(folder, "--config.checkpoint.keep_last=100") == 0
    return folder


def test_the_head_trains_first_and_nothing_else_then_everything(whole):
    loaded = weights()[1]
    state, _ = restored(whole, 12)
    for name, value in trees.named_leaves(state.params).items():
        given = trees.named_leaves(loaded["params"])[name]
        assert np.array_equal(value, given) == (not name.startswith("head/")), name
    jax.tree.map(np.testing.assert_array_equal, state.batch_stats, loaded["batch_stats"])
    assert trees.count(state.opt_state) == 2 * (8 * 10 + 10) + 2  # Adam: moments, and two counts.
    state, _ = restored(whole, 22)
    for name, value in trees.named_leaves(state.params).items():
        assert not np.array_equal(value, trees.named_leaves(loaded["params"])[name]), name


def test_both_phases_are_measured_where_they_end(whole):
    ends = {r["step"]: r for r in lines(whole)}
    assert {12, 22} <= {step for step, r in ends.items() if "eval_top1" in r and "train_loss" in r}
    assert ends[12]["lr"] == pytest.approx(1e-2) and ends[22]["lr"] < 1e-3
    assert summary(whole)["steps"] == 22 and summary(whole)["examples_evaluated"] == 360


def test_the_preprocessing_is_that_of_the_weights_unless_the_config_has_its_own(
        whole, pretrained, tmp_path):
    assert restored(whole, 22)[1]["preprocess"] == {**PREPROCESS.to_dict(), "whole": True}
    folder = tmp_path / "run"
    assert train(folder, "--config.data.image_size=12", "--config.data.mean=(0.5,)",
                 "--config.head.steps=1", "--config.train.steps=0") == 0
    found = restored(folder, 1)[1]["preprocess"]
    assert found == {**PREPROCESS.to_dict(), "size": [12, 12], "mean": [0.5], "whole": True}
    assert pretrained == [("simple_cnn", "a.safetensors", 10,
                           {"widths": (4, 8), "dropout_rate": 0.1, "in_chans": 1, "tag": None})]


@pytest.mark.parametrize("stop", [5, 12, 13, 17])
def test_a_run_that_stopped_in_either_phase_or_between_goes_on_to_the_same_bits(
        whole, pretrained, tmp_path, stop):
    folder = tmp_path / "run"
    assert train(folder, f"--config.train.stop_after_steps={stop}") == 0
    assert summary(folder)["steps"] == stop and summary(folder)["status"] == "stopped"
    assert train(folder) == 0
    assert digests(folder) == digests(whole)


@pytest.mark.parametrize("call", [3, 12, 15])
def test_a_preempted_run_goes_on_without_the_weights_file_to_the_same_bits_and_lines(
        whole, pretrained, tmp_path, monkeypatch, call):
    from cnnjax.jobs import signals

    @contextlib.contextmanager
    def after_some_calls():
        calls = iter(range(1, 100))
        yield lambda: next(calls) == call

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(signals, "stop_requests", after_some_calls)
        assert train(folder) == 75
    assert pretrained.pop()
    assert train(folder) == 0
    assert pretrained == []
    assert digests(folder) == digests(whole) and lines(folder) == lines(whole)


def test_a_resumed_run_that_is_rolled_back_to_its_beginning_has_the_weights_there(
        whole, pretrained):
    config = workdir.load_config(whole)
    first, resumed = (train_job._state_at(experiment_lib.build(config, saved), None, 0)
                      for saved in (None, PREPROCESS))
    assert trees.sha256(resumed.params) == trees.sha256(first.params)


def test_a_run_that_was_evaluated_at_another_size_goes_on_with_its_training_size(whole):
    config = workdir.load_config(whole)
    config.data.image_size = 8
    saved = dataclasses.replace(PREPROCESS, size=(12, 12))  # Of eval.image_size=12.
    resumed = experiment_lib.build(config, saved)
    assert resumed.preprocess.size == resumed.parts.train_size == (8, 8)


def test_a_run_goes_on_with_its_weights_elsewhere_and_with_no_others(
        whole, tmp_path, monkeypatch, capsys):
    seeds = {"a.safetensors": 7, "moved.safetensors": 7, "other.safetensors": 8}
    monkeypatch.setattr(weights_lib, "load", lambda name, path, *args, **more: opened(
        *weights(seeds[path])))
    folder, other = tmp_path / "run", "are not those that this run has started from"
    assert train(folder, "--config.train.stop_after_steps=13") == 0
    assert train(folder, path="other.safetensors") == 2 and other in capsys.readouterr().err
    assert train(folder, "--config.train.stop_after_steps=15", path="moved.safetensors") == 0
    assert train(folder, path="a.safetensors") == 0
    assert summary(folder)["params_sha256"] == summary(whole)["params_sha256"]
    assert train(folder, path="moved.safetensors") == 0  # Finished.
    assert train(folder, path="other.safetensors") == 2 and other in capsys.readouterr().err
    assert train(folder, path="random") == 2
    assert main(["launch.py", "--job=evaluate", f"--workdir={folder}",
                 "--config.weights.path=moved.safetensors"]) == 2  # That would evaluate no file.


def test_a_checkpoint_without_a_record_of_its_weights_takes_none_from_elsewhere():
    config = config_lib.default()
    config.weights.path = "new"
    run = types.SimpleNamespace(config=config)
    record.check_same_weights(run, {"config": {"weights": {"path": "new"}}})
    with pytest.raises(UserError, match="Give --config.weights.path=old"):
        record.check_same_weights(run, {"config": {"weights": {"path": "old"}}})


def test_a_run_at_the_weights_own_size_may_be_evaluated_at_another_from_any_resume_on(
        whole, pretrained, tmp_path):
    folder = tmp_path / "run"
    assert train(folder, "--config.train.stop_after_steps=13") == 0
    evaluated_at = "--config.eval.image_size=12"
    assert train(folder, "--config.train.stop_after_steps=15", evaluated_at) == 0
    assert train(folder, evaluated_at) == 0
    assert summary(folder)["params_sha256"] == summary(whole)["params_sha256"]
    assert restored(folder, 22)[1]["preprocess"]["size"] == [12, 12]
    # Without it, all is as if it had never been.
    assert main(["launch.py", "--job=evaluate", f"--workdir={folder}",
                 "--config.eval.image_size=0"]) == 0
    found = json.loads((folder / "evaluate.json").read_text())
    assert found["eval_loss"] == pytest.approx(lines(whole)[-1]["eval_loss"], rel=1e-6)


def test_a_run_at_the_images_own_size_is_evaluated_and_labels_at_another(whole, tmp_path):
    folder = tmp_path / "moved"
    shutil.copytree(whole, folder)
    for job in ("evaluate", "predict"):
        assert main(["launch.py", f"--job={job}", f"--workdir={folder}",
                     "--config.eval.image_size=12"]) == 0
    module, variables, _ = cnnjax.load_weights("simple_cnn", folder)
    images, labels = zip(*cnnjax.data.open_dataset("digits").eval.source, strict=True)
    enlarged = augment.resize(np.stack(images), (12, 12), "bicubic")
    logits = module.apply(variables, (enlarged / 255 - 0.25) / 0.5)
    top1 = np.mean(np.argmax(logits, -1) == np.array(labels))
    assert json.loads((folder / "evaluate.json").read_text())["eval_top1"] == pytest.approx(top1)
    with open(folder / "predictions.csv") as file:
        first = next(csv.DictReader(file))
    assert float(first["probability"]) == pytest.approx(float(jax.nn.softmax(logits[0]).max()),
                                                        abs=1e-4)


def test_a_finished_run_is_evaluated_from_its_workdir_alone(whole, pretrained, tmp_path, capsys):
    folder = tmp_path / "moved"
    shutil.copytree(whole, folder)
    assert train(folder) == 0
    # A long path wraps the line.
    assert "nothing to do" in " ".join(capsys.readouterr().out.split())
    for step, top1 in ((22, summary(whole)["top1"]), (12, None)):
        top1 = top1 or next(r["eval_top1"] for r in lines(whole) if r["step"] == step)
        assert main(["launch.py", "--job=evaluate", f"--workdir={folder}",
                     f"--config.eval.checkpoint={step}"]) == 0
        # After the head's phase too: the whole model on images gives what the head on features did.
        assert f"{top1:.4%}" in capsys.readouterr().out
    assert pretrained == []


def test_features_computed_once_train_the_head_that_features_of_every_step_train(
        whole, pretrained, tmp_path):
    folder = tmp_path / "run"
    assert train(folder, "--config.head.augment=True", "--config.train.steps=0") == 0
    state, _ = restored(folder, 12)
    cached, _ = restored(whole, 12)
    for part in ("params", "opt_state"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
                     getattr(state, part), getattr(cached, part))


def test_the_trunk_sees_each_image_once_for_the_head_alone(pretrained, tmp_path, capsys):
    assert train(tmp_path / "run", "--config.train.steps=0", "--config.head.steps=200") == 0
    output = capsys.readouterr().out
    assert output.count("Features of 1,797 images") == 1 and "features computed once" in output


def test_the_head_is_trained_with_the_runs_loss(pretrained, tmp_path):
    losses = []
    for loss in ("softmax", "sigmoid"):
        assert train(tmp_path / loss, "--config.train.steps=0", "--config.head.steps=1",
                     f"--config.train.loss={loss}") == 0
        losses.append(lines(tmp_path / loss)[0]["train_loss"])
    assert losses[1] != pytest.approx(losses[0], rel=0.05)


def test_the_head_trains_at_the_training_size_whatever_the_size_of_the_evaluation(
        whole, pretrained, tmp_path, monkeypatch):
    found = []
    for side in (0, 12):
        folder = tmp_path / str(side)
        assert train(folder, "--config.data.image_size=8", f"--config.eval.image_size={side}",
                     "--config.train.steps=0") == 0
        found.append((summary(folder)["params_sha256"], lines(folder)[-1]["train_loss"]))
    assert found[0] == found[1]

    config = workdir.load_config(whole)
    config.data.image_size, config.eval.image_size = 8, 12
    monkeypatch.setattr(cnnjax.data, "resident_limit", lambda mesh: 0)
    experiment = experiment_lib.build(config, PREPROCESS)
    phase, images = experiment.phases[0], np.full((4, 8, 8, 1), 51, np.uint8)
    assert phase.cached_trunk is None and experiment.preprocess.size == (12, 12)
    np.testing.assert_allclose(phase.task.augment(jax.random.key(0), images),
                               np.full((4, 8, 8, 1), (51 / 255 - 0.25) / 0.5), rtol=1e-6)


def test_a_head_on_features_is_evaluated_over_the_views_that_its_model_is(pretrained, tmp_path):
    folder = tmp_path / "run"
    assert train(folder, "--config.train.steps=0", "--config.eval.tta=five_crop") == 0
    assert main(["launch.py", "--job=evaluate", f"--workdir={folder}"]) == 0
    found, measured = json.loads((folder / "evaluate.json").read_text()), lines(folder)[-1]
    assert found["eval_loss"] == pytest.approx(measured["eval_loss"], rel=1e-5)
    assert found["eval_top1"] == measured["eval_top1"] == summary(folder)["top1"]


def test_augmented_images_have_their_features_computed_at_every_step(pretrained, tmp_path, capsys):
    assert train(tmp_path / "run", "--config.train.steps=0", "--config.head.augment=True",
                 "--config.augment.flip=True") == 0
    output = capsys.readouterr().out
    assert "Features of" not in output and "computed at every step" in output


def test_a_run_of_the_head_alone_can_go_on_to_the_rest(whole, pretrained, tmp_path):
    folder = tmp_path / "run"
    assert train(folder, "--config.train.steps=0") == 0
    assert summary(folder)["steps"] == 12 and summary(folder)["status"] == "done"
    assert train(folder) == 0
    assert summary(folder)["params_sha256"] == summary(whole)["params_sha256"]


def test_fine_tuning_from_a_stage_on_leaves_what_is_before_it(pretrained, tmp_path):
    folder = tmp_path / "run"
    assert train(folder, "--config.train.from_stage=conv2", "--config.optimizer.layer_decay=0.5",
                 "--config.optimizer.lr_multipliers=(('head/.*', 2.0),)") == 0
    state, _ = restored(folder, 22)
    loaded = trees.named_leaves(weights()[1])
    found = trees.named_leaves(state.variables)
    same = {name for name, value in found.items() if np.array_equal(value, loaded[name])}
    assert same == {name for name in found if "/conv1/" in name or "/norm1/" in name}


@pytest.mark.slow
def test_several_steps_in_a_call_and_an_early_stop_meet_the_boundary(pretrained, tmp_path):
    folder, other = tmp_path / "run", tmp_path / "other"
    assert train(folder, "--config.train.steps_per_call=5") == 0
    assert train(other, "--config.train.steps_per_call=5",
                 "--config.train.stop_after_steps=13") == 0
    assert summary(other)["steps"] == 17
    assert train(other, "--config.train.steps_per_call=5") == 0
    assert digests(folder) == digests(other)


def test_a_dry_run_writes_nothing(pretrained, tmp_path, capsys):
    for overrides in ([], ["--config.train.steps=0"], ["--config.train.trainable=('.*norm.*',)"]):
        assert train(tmp_path / "run", "--dry_run", *overrides) == 0
        assert "head alone" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("overrides", "message"), [
    (["--config.weights.path=None"], "--config.weights.path=FILE"),
    (["--config.train.from_stage=stage9"], "Did you mean 'stage"),
    (["--config.train.trainable=('stage/.*',)"], "head/kernel"),
    (["--config.train.trainable=()"], "no parameter to train"),
    (["--config.optimizer.lr_multipliers=(('head/.*', -1.0),)"], "lr_multipliers has"),
    (["--config.head.schedule=step"], "constant, cosine, linear"),
    (["--config.model.widths=(4, 6)"], "conv2/bias: (8,) there, (6,) here"),
])
def test_a_mistake_is_one_message_with_what_to_type(pretrained, tmp_path, capsys, overrides,
                                                    message):
    assert train(tmp_path / "run", *overrides) == 2
    assert message in capsys.readouterr().err


def test_the_summary_is_of_the_images_that_the_weights_take(monkeypatch, tmp_path, capsys):
    rgb = dataclasses.replace(PREPROCESS, size=(12, 12), mean=(0.5,) * 3, std=(0.25,) * 3)

    def load_weights(name, path, classes, tag, in_chans, **overrides):
        return opened(cnnjax.create_model(name, classes, **overrides), {}, rgb)

    monkeypatch.setattr(weights_lib, "load", load_weights)
    command = [*RUN, "--job=summarize", "--config.weights.path=a.pth", f"--workdir={tmp_path}"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "input (12, 12, 3)" in said  # Of digits of 8x8x1.
    assert str(3 * 3 * 3 * 4 + 4) in next(line for line in said.splitlines() if "conv1" in line)
    assert main([*command, "--config.data.image_size=8", "--config.eval.image_size=16"]) == 0
    assert "input (16, 16, 3)" in capsys.readouterr().out  # As in the run's own summary.


def test_a_run_is_summarised_without_the_weights_that_it_has_started_from(whole, capsys):
    capsys.readouterr()
    command = ["launch.py", "--job=summarize"]
    assert main([*command, f"--workdir={whole}"]) == 0  # There is no a.safetensors.
    assert "input (8, 8, 1)" in capsys.readouterr().out
    assert main([*RUN, *command[1:], "--config.weights.path=a.safetensors",
                 f"--workdir={whole / 'none'}"]) == 2
    assert "There is no file a.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize(("crops", "message"), [
    ("(0.8, 0.2)", "random_resized_crop is (0.8, 0.2)"),
    ("(0.2, 0.8)", "--config.data.placement=auto")])
def test_what_the_second_phase_cannot_do_is_said_before_the_first(tmp_path, capsys, crops, message):
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(4):
                Image.new("RGB", (8 + i, 9)).save(tmp_path / split / name / f"{i}.png")
    folder = tmp_path / "run"
    assert train(folder, f"--config.data.name=folder:{tmp_path}", "--config.data.image_size=8",
                 "--config.train.batch_size=4", "--config.data.placement=device",
                 f"--config.augment.random_resized_crop={crops}", path="random") == 2
    assert message in capsys.readouterr().err
    assert not (folder / "checkpoints").exists()


def test_weights_that_compute_otherwise_than_the_config_says_are_refused(monkeypatch):
    def load_weights(name, path, classes, tag, in_chans, **overrides):
        theirs = {"bn_epsilon": 1e-5} | overrides
        return opened(cnnjax.create_model(name, classes, **theirs), {}, PREPROCESS)

    monkeypatch.setattr(weights_lib, "load", load_weights)
    config = config_lib.default()
    config.model.name, config.weights.path = "mobilenet_v3_small", "timm.safetensors"
    with pytest.raises(UserError, match="set --config.model.bn_epsilon=1e-05"):
        initial_weights.load(config, open_dataset("digits"))
    config.model.bn_epsilon = 1e-5
    assert initial_weights.load(config, open_dataset("digits")).preprocess == PREPROCESS


@pytest.mark.parametrize(("name", "key", "value"), [
    ("efficientnet_b0", "activation", "relu6"), ("alexnet", "response_norm", True),
    ("googlenet", "last_pool", 3), ("efficientnet_b0", "padding", "same")])
def test_what_a_model_computes_beyond_its_parameters_must_agree(monkeypatch, name, key, value):
    def load_weights(name, path, classes, tag, in_chans, **overrides):
        theirs = {key: value} | overrides
        return opened(cnnjax.create_model(name, classes, **theirs), {}, PREPROCESS)

    monkeypatch.setattr(weights_lib, "load", load_weights)
    config = config_lib.default()
    config.model.name, config.weights.path = name, "other.safetensors"
    with pytest.raises(UserError, match=f"set --config.model.{key}={value}"):
        initial_weights.load(config, open_dataset("digits"))


@pytest.mark.slow
def test_grey_images_become_what_weights_for_rgb_take(monkeypatch, tmp_path):
    rgb = Preprocess(size=(8, 8), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    module = cnnjax.create_model("simple_cnn", 10, widths=(4, 8))
    variables = jax.jit(module.init)(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    monkeypatch.setattr(weights_lib, "load", lambda *args, **more: opened(module, variables, rgb))
    folder = tmp_path / "run"
    assert train(folder) == 0
    assert restored(folder, 22)[1]["preprocess"]["mean"] == [0.4, 0.5, 0.6]
    assert main(["launch.py", "--job=evaluate", f"--workdir={folder}"]) == 0


@pytest.mark.parametrize(("name", "zero"), [("simple_cnn", True), ("squeezenet1_1", False)])
def test_a_new_head_starts_at_zero_where_zero_has_a_gradient(name, zero):
    from cnnjax.jobs import initial_weights
    from cnnjax.models import variable_shapes
    from cnnjax.train.state import TrainState

    shapes = {"batch_stats": {}} | variable_shapes(cnnjax.create_model(name, 3), (1, 32, 32, 3))
    variables = jax.tree.map(lambda a: np.ones(a.shape, a.dtype), shapes)
    state = TrainState(step=0, opt_state=(), window={}, **variables)
    loaded = initial_weights.InitialWeights("a.pth", variables, PREPROCESS)
    new = initial_weights.put_into(state, loaded, jax.sharding.SingleDeviceSharding(
        jax.devices()[0])).params
    assert np.any(new["head"]["kernel"]) != zero
    trunk, expected = ({k: v for k, v in p.items() if k != "head"} for p in (new, state.params))
    jax.tree.map(np.testing.assert_array_equal, trunk, expected)


def unfolded(table):
    """What stands in the cells of a table, which are folded where a path is long."""
    return " ".join(table.replace("│", " ").split())


def test_a_run_goes_on_from_anothers_head_if_their_classes_are_the_same(tmp_path, capsys):
    module, variables, _ = weights()
    classes = {"same": tuple("0123456789"), "other": tuple("abcdefghij")}
    for name, names in classes.items():
        cnnjax.save_weights(tmp_path / f"{name}.safetensors", module, variables,
                            preprocess=PREPROCESS, class_names=names)

    def head(name, *overrides):
        folder = tmp_path / f"{name}{len(overrides)}"
        assert train(folder, "--config.schedule.name=constant", "--config.schedule.lr=1e-30",
                     "--config.schedule.warmup_percent=0", "--config.train.steps=1", *overrides,
                     path=tmp_path / f"{name}.safetensors") == 0
        state, _ = restored(folder, summary(folder)["steps"])
        return np.asarray(state.params["head"]["kernel"]), unfolded(capsys.readouterr().out)

    kept, said = head("same", "--config.head.steps=0")
    np.testing.assert_allclose(kept, variables["params"]["head"]["kernel"], rtol=1e-6)
    assert "with their head" in said
    new, said = head("other", "--config.head.steps=0")
    assert np.all(np.abs(new) < 1e-6) and "with a new head" in said
    trained, said = head("same", "--config.head.steps=1", "--config.head.lr=1e-30")
    assert np.all(np.abs(trained) < 1e-6) and "with a new head" in said


def test_a_head_on_flattened_maps_is_new_for_images_of_another_size(tmp_path, capsys):
    module = cnnjax.create_model("simple_cnn", 10, widths=(4, 8), global_pool=False)
    variables = jax.jit(module.init)(jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32))
    cnnjax.save_weights(tmp_path / "flat.safetensors", module, variables, preprocess=PREPROCESS)
    assert train(tmp_path / "run", "--config.model.global_pool=False", "--config.head.steps=0",
                 "--config.data.image_size=16", "--config.schedule.name=constant",
                 "--config.schedule.lr=1e-30", "--config.schedule.warmup_percent=0",
                 "--config.train.steps=1", path=tmp_path / "flat.safetensors") == 0
    state, _ = restored(tmp_path / "run", 1)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(state.params["head"])) < 1e-6
    assert "with a new head" in unfolded(capsys.readouterr().out)


@pytest.mark.slow
def test_a_run_starts_from_another_runs_workdir_and_can_be_evaluated_labelled_with_and_exported(
        tmp_path, capsys):
    source, folder = tmp_path / "source", tmp_path / "run"
    assert main(["launch.py", "--config=experiments/simple_cnn.py", f"--workdir={source}",
                 "--config.model.widths=(4, 8)", "--config.train.steps=3",
                 "--config.data.mean=(0.25,)", "--config.log.progress=none"]) == 0
    assert train(folder, path=source) == 0
    shutil.rmtree(source)
    for job in ("evaluate", "predict", "export"):
        capsys.readouterr()
        assert main(["launch.py", f"--job={job}", f"--workdir={folder}"]) == 0, job
        if job != "export":
            assert f"{summary(folder)['top1']:.4%}"[:4] in capsys.readouterr().out
    preprocess = json.loads((folder / "export" / "model.json").read_text())["preprocess"]
    assert preprocess["mean"] == [0.25] and preprocess["size"] == [16, 16]
