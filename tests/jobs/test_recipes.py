"""Recipes of the config in whole runs: progressive resizing, distillation, sharding, remat."""

import contextlib
import dataclasses
import json
import re
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import cnnjax
from cnnjax import config as config_lib
from cnnjax import weights as weights_lib
from cnnjax.analysis.lr_range import plot_range_test, read_range_test
from cnnjax.command_line import main
from cnnjax.data import open_dataset
from cnnjax.jobs import course, evaluation, lr_finder, pretrained, recipe, record, robustness
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.teacher import _prepare, load_teacher
from cnnjax.train import losses
from cnnjax.train.writers import read_metrics
from cnnjax.types import Preprocess, UserError
from cnnjax.weights import imagenet

RUN = ["launch.py", "--config=experiments/simple_cnn.py", "--config.model.widths=(4,8)",
       "--config.train.batch_size=48", "--config.train.steps=6", "--config.log.every_steps=1",
       "--config.eval.every_steps=6", "--config.log.plot=False", "--config.log.tensorboard=False",
       "--config.log.progress=none", "--config.data.image_size=8"]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch, root):
    monkeypatch.chdir(root)


def train(folder, *overrides):
    assert main([*RUN, f"--workdir={folder}", *overrides]) == 0
    return (json.loads((folder / "summary.json").read_text()),
            [r["train_loss"] for r in read_metrics(folder)])


@pytest.fixture(scope="module")
def plain(tmp_path_factory, root):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        folder = tmp_path_factory.mktemp("plain") / "run"
        return folder, *train(folder)


@pytest.mark.slow  # Behind a head, below, is the harder case.
def test_progressive_resizing_resumes_bit_for_bit(tmp_path):
    sizes = "--config.train.progressive=((0,8),(50,12))"
    whole, losses = train(tmp_path / "whole", sizes)
    for stop in (2, 3, 5):
        train(tmp_path / "parts", sizes, f"--config.train.stop_after_steps={stop}")
    parts, again = train(tmp_path / "parts", sizes)
    assert again == losses
    assert parts["state_sha256"] == whole["state_sha256"]


@pytest.mark.slow
def test_progressive_resizing_behind_a_head_resumes_bit_for_bit(tmp_path):
    """The sizes go on with the state of the phase that the head's ended before."""
    recipe = ["--config.train.progressive=((0,8),(50,12))", "--config.head.steps=2",
              "--config.weights.path=random"]
    whole, losses = train(tmp_path / "whole", *recipe)
    for stop in (5, 7):  # Between the sizes and within the second.
        train(tmp_path / "parts", *recipe, f"--config.train.stop_after_steps={stop}")
    parts, again = train(tmp_path / "parts", *recipe)
    assert again == losses
    assert parts["state_sha256"] == whole["state_sha256"]


def test_progressive_resizing_trains_on_the_first_size_until_the_second(plain, tmp_path):
    _, losses = train(tmp_path / "run", "--config.train.progressive=((0,8),(50,12))")
    assert losses[:3] == pytest.approx(plain[2][:3], rel=1e-5)
    assert losses[3] != pytest.approx(plain[2][3], rel=1e-3)


def test_remat_gives_the_losses_of_the_plain_run(plain, tmp_path):
    _, losses = train(tmp_path / "run", "--config.train.remat=('.*',)")
    assert losses == pytest.approx(plain[2], rel=1e-4)


def test_a_run_learns_from_another_run(plain, tmp_path, capsys):
    _, alone = train(tmp_path / "labels", f"--config.distill.weights={plain[0]}",
                     "--config.distill.weight=0.0")
    assert alone == pytest.approx(plain[2], rel=1e-5)
    teacher = shutil.copytree(plain[0], tmp_path / "teacher")
    _, losses = train(tmp_path / "both", f"--config.distill.weights={teacher}",
                      "--config.distill.weight=1.0", "--config.distill.temperature=4.0")
    # The teacher, six steps old, hardly has an opinion, so that there is little to learn.
    assert losses[0] < 0.5 * alone[0]
    shutil.rmtree(teacher)  # What was learnt does not need it.
    evaluated(tmp_path / "both")
    capsys.readouterr()
    train(tmp_path / "both", f"--config.distill.weights={teacher}",
          "--config.distill.weight=1.0", "--config.distill.temperature=4.0")
    assert "is finished; nothing" in " ".join(capsys.readouterr().out.split())


def test_a_run_goes_on_with_its_teacher_elsewhere_and_with_no_other(tmp_path, capsys):
    module = cnnjax.create_model("simple_cnn", 10, widths=(4,))
    path, preprocess = tmp_path / "t.safetensors", Preprocess((8, 8), (0.5,), (0.5,))

    def write(seed):
        cnnjax.save_weights(path, module, module.init(jax.random.key(seed), np.zeros((1, 8, 8, 1))),
                            preprocess=preprocess)

    run = [*RUN, f"--workdir={tmp_path / 'run'}", f"--config.distill.weights={path}"]
    write(0)
    assert main([*run, "--config.train.stop_after_steps=2"]) == 0
    moved = path.rename(tmp_path / "moved.safetensors")
    there = [*run[:-1], f"--config.distill.weights={moved}"]
    assert main([*there, "--config.train.stop_after_steps=4"]) == 0
    assert re.search(r"resumed at step\W+2 ", capsys.readouterr().out)
    write(1)
    assert main(run) == 2
    assert "is not the one that this run has learned from" in capsys.readouterr().err
    assert main(there) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 6
    assert main(run) == 2  # Not even a run that is finished is one of another teacher.
    assert "is not the one that this run has learned from" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert main(run) == 2
    assert f"holds a run with distill.weights={moved}, and no" in capsys.readouterr().err


def test_a_checkpoint_without_a_record_of_its_teacher_takes_none_from_elsewhere():
    config = config_lib.default()
    config.distill.weights = "new"
    teacher = types.SimpleNamespace(config=config, teacher=None)
    record.check_same_teacher(teacher, {"config": {"distill": {"weights": "new"}}})
    with pytest.raises(UserError, match="Give --config.distill.weights=old"):
        record.check_same_teacher(teacher, {"config": {"distill": {"weights": "old"}}})


@pytest.mark.parametrize(("side", "interpolation"), [(24, "bilinear"), (7, "bicubic"),
                                                     (12, "bilinear")])
def test_a_teacher_sees_the_students_images_at_its_own_size_and_normalisation(side, interpolation):
    from PIL import Image

    images = np.random.default_rng(0).random((2, 12, 12, 3)).astype(np.float32)
    student = Preprocess((12, 12), (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
    teacher = Preprocess((side, side), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7),
                         interpolation=interpolation)
    seen = _prepare(student, teacher, jnp.asarray((images - student.mean) / student.std))
    method = Image.Resampling[interpolation.upper()]
    resized = [[np.asarray(Image.fromarray(channel).resize((side, side), method))
                for channel in np.moveaxis(image, -1, 0)] for image in images]
    expected = (np.moveaxis(np.asarray(resized), 1, -1) - teacher.mean) / teacher.std
    np.testing.assert_allclose(seen, expected, atol=1e-5)


def teacher_of(path):
    config = config_lib.default()
    config.distill.weights, config.distill.model = str(path), None
    preprocess = Preprocess((8, 8), (0.5,), (0.5,))
    return load_teacher(config, open_dataset("digits"), preprocess, np.float32)


@pytest.mark.parametrize("path", ["~/run", "~/run/checkpoints/best", "~/run/checkpoints/6",
                                  "~/t.safetensors"])
def test_a_teacher_is_named_as_weights_path_is_and_says_which_model_it_is(plain, tmp_path, path,
                                                                          monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run").symlink_to(plain[0])
    module, variables, preprocess = cnnjax.load_weights("simple_cnn", plain[0])
    cnnjax.save_weights(tmp_path / "t.safetensors", module, variables, preprocess=preprocess)
    assert teacher_of(path).distillation.module.widths == (4, 8)


def test_a_teacher_that_is_not_there_or_does_not_say_what_it_is_is_explained(tmp_path):
    with pytest.raises(UserError, match="distill.weights=nowhere.pth: There is no file nowhere"):
        teacher_of("nowhere.pth")
    safetensors.numpy.save_file({"a": np.zeros(3, np.float32)}, tmp_path / "t.safetensors")
    with pytest.raises(UserError, match=r"which model it is: name it\. Set --config.distill.model"):
        teacher_of(tmp_path / "t.safetensors")


@pytest.mark.parametrize(("names", "refused"), [
    (("ant", "bee"), True), (("bee", "wasp"), False), (None, False)])
def test_a_teacher_is_held_to_its_class_names_however_it_is_given(tmp_path, names, refused):
    module = cnnjax.create_model("simple_cnn", 2, widths=(4,))
    variables = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), jax.eval_shape(
        module.init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32)))
    preprocess = Preprocess((8, 8), (0.5,) * 3, (0.5,) * 3)
    cnnjax.save_weights(tmp_path / "t.safetensors", "simple_cnn", variables, widths=(4,),
                        preprocess=preprocess, class_names=names)
    config = config_lib.default()
    config.distill.weights, config.distill.model = str(tmp_path / "t.safetensors"), "simple_cnn"
    dataset = types.SimpleNamespace(name="insects", num_classes=2, class_names=("bee", "wasp"))
    with pytest.raises(UserError, match="not the 2 of insects") if refused else (
            contextlib.nullcontext()):
        assert load_teacher(config, dataset, preprocess, np.float32) is not None


def evaluated(folder, *overrides):
    assert main(["launch.py", "--job=evaluate", f"--workdir={folder}", *overrides]) == 0
    return json.loads((folder / "evaluate.json").read_text())


def test_an_evaluation_writes_calibration_classes_robustness_and_probes(plain, capsys):
    folder, summary, _ = plain
    capsys.readouterr()
    found = evaluated(folder, "--config.eval.corruptions=('contrast','jpeg_compression')",
                      "--config.eval.probe=all")
    assert found["eval_top1"] == summary["top1"]
    assert found["nll"] == pytest.approx(found["eval_loss"], rel=1e-4)
    confusion = found["confusion"]
    assert sum(map(sum, confusion)) == found["eval_examples"] == 360
    assert sum(confusion[i][i] for i in range(10)) == round(360 * found["eval_top1"])
    assert found["class_names"] == [str(digit) for digit in range(10)]
    recalls = [row[i] / sum(row) for i, row in enumerate(confusion)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    worst = min((recall, str(i)) for i, recall in enumerate(recalls))
    assert "from {:.2%} ({}) to".format(*worst) in capsys.readouterr().out
    assert (folder / "evaluate.png").stat().st_size > 10_000
    assert {kind: len(a) for kind, a in found["corruptions"].items()} == {
        "contrast": 5, "jpeg_compression": 5}
    # Features of a few steps are about random, and tell digits apart nevertheless.
    assert summary["top1"] < 0.3 < 0.5 < min(found["probe_knn"], found["probe_linear"])


def test_an_evaluation_reads_each_image_once(plain, monkeypatch):
    feeds, make = [], experiment_lib.make_eval_feed
    monkeypatch.setattr(experiment_lib, "make_eval_feed",
                        lambda *of: feeds.append(make(*of)) or feeds[-1])
    assert evaluated(plain[0])["eval_examples"] == 360
    assert len(feeds) == 1


def test_an_evaluation_keeps_no_logits_on_the_devices(plain, monkeypatch):
    feeds, make = [], evaluation.data.make_array_eval_feed
    monkeypatch.setattr(evaluation.data, "make_array_eval_feed",
                        lambda found, **of: feeds.append(make(found, **of)) or feeds[-1])
    assert evaluated(plain[0])["eval_examples"] == 360
    assert [feed.constants for feed in feeds] == [{}]


def test_an_evaluation_over_views_has_another_answer(plain):
    folder, summary, _ = plain
    assert evaluated(folder, "--config.eval.tta=ten_crop")["eval_loss"] != pytest.approx(
        evaluated(folder)["eval_loss"], rel=1e-3)


def test_the_range_test_breaks_and_suggests_a_rate_below(tmp_path, capsys, monkeypatch):
    folder, words = tmp_path / "run", []
    monkeypatch.setattr(lr_finder, "plot_range_test",
                        lambda *given: words.append(given[-1]) or plot_range_test(*given))
    assert main([*RUN, f"--workdir={folder}", "--job=lr_finder",
                 "--config.lr_finder.highest=1000.0", "--config.lr_finder.steps=60",
                 "--config.schedule.lr_batch_size=24"]) == 0
    found = json.loads((folder / "lr_finder.json").read_text())
    assert len(found["losses"]) < 60 and found["rates"] == sorted(found["rates"])
    assert found["rates"][0] == pytest.approx(1e-5, rel=1e-3)
    assert 1e-5 <= found["suggestion"] <= found["lowest_loss_at"] / 10 * 1.05  # Two digits.
    # What the config says is for batches of 24, and the test's are of 48.
    of_the_test = read_range_test(found["rates"], found["losses"]).suggestion
    assert found["suggestion"] == pytest.approx(of_the_test / 2, rel=0.05)
    assert found["suggested_rate"] == of_the_test
    assert words == [f"{of_the_test:.3g} (schedule.lr={found['suggestion']:g} for a batch of 24)"]
    assert (f"--config.schedule.lr={found['suggestion']:g} (for a batch of 24; {of_the_test:.3g} "
            "for 48)") in capsys.readouterr().out


def test_the_range_test_rises_from_the_first_step_whatever_the_schedule_of_the_recipe():
    config = config_lib.default()
    config.model.name, config.train.epochs, config.head.epochs = "simple_cnn", 90.0, 3.0
    config.schedule.warmup_epochs, config.schedule.lr_batch_size = 5.0, 1024
    config.lr_finder.lowest, config.lr_finder.highest, config.lr_finder.steps = 1e-4, 10.0, 40
    found = lr_finder.range_test(config)
    assert config_lib.phase_steps(found, 1000) == (0, 40)
    rate = course.make_learning_rate(found, 1000, 40)
    assert [float(rate(step)) for step in (0, 20, 40)] == pytest.approx([1e-4, 10**-1.5, 10.0])


def test_the_sizes_to_train_on_leave_that_of_the_evaluation_free():
    config = config_lib.default()
    config.model.name, config.train.steps, config.eval.image_size = "simple_cnn", 4, 16
    config.train.progressive = ((0, 8), (50, 12))
    new = experiment_lib.build(config)
    resumed = experiment_lib.build(config, new.preprocess)
    for experiment in (new, resumed):
        assert experiment.preprocess.size == (16, 16)
        assert [phase.image_size for phase in experiment.phases] == [(8, 8), (12, 12)]


@pytest.mark.parametrize(("settings", "advice"), [
    (dict(image_size=16), "set --config.data.image_size=17 or more"),
    (dict(image_size=64, eval_size=16), "set --config.eval.image_size=17 or more"),
    (dict(image_size=16, eval_size=64), "set --config.data.image_size=17 or more"),
    (dict(image_size=64, progressive=((0, 16), (50, 32))),
     "give --config.train.progressive no size below 17")])
def test_where_images_are_too_small_the_key_is_named_that_says_their_size(settings, advice):
    config = config_lib.default()
    config.model.name, config.data.image_size = "squeezenet1_1", settings["image_size"]
    config.eval.image_size = settings.get("eval_size", 0)
    config.train.progressive = settings.get("progressive", ())
    config.train.steps = 4
    with pytest.raises(UserError, match=f"16x16 are too small for squeezenet1_1: {advice}"):
        experiment_lib.build(config)


def test_the_range_test_of_a_run_of_several_image_sizes_trains_on_the_last():
    config = config_lib.default()
    config.model.name, config.train.steps = "simple_cnn", 4
    config.train.progressive = ((0, 16), (50, 12))  # Of digits of 8x8.
    phase, = experiment_lib.build(lr_finder.range_test(config)).phases
    assert phase.image_size == (12, 12) and phase.stop == config.lr_finder.steps


def test_the_features_of_weights_are_probed_without_a_run(plain, tmp_path):
    folder = tmp_path / "probe"
    assert main([*RUN, f"--workdir={folder}", "--job=evaluate", "--config.eval.probe=knn",
                 f"--config.weights.path={plain[0]}"]) == 0
    assert 0.5 < json.loads((folder / "evaluate.json").read_text())["probe_knn"] <= 1


def test_weights_are_evaluated_without_a_run_on_data_of_their_classes(plain, tmp_path, capsys):
    run, summary, _ = plain
    weights = [f"--weights={run}", f"--workdir={tmp_path / 'file'}"]  # Which says its widths.
    assert main(["launch.py", "--job=evaluate", "--model=simple_cnn", *weights]) == 0
    found = json.loads((tmp_path / "file" / "evaluate.json").read_text())
    assert found["eval_top1"] == summary["top1"] and found["weights"] == str(run)
    assert sum(map(sum, found["confusion"])) == 360
    capsys.readouterr()
    other = tmp_path / "other.npz"
    np.savez(other, images=np.zeros((8, 8, 8), np.uint8), labels=np.arange(8) % 2)
    assert main(["launch.py", "--job=evaluate", "--model=simple_cnn", *weights,
                 f"--config.data.name=npz:{other}"]) == 2
    assert "are not the 2 of npz:" in capsys.readouterr().err
    assert main(["launch.py", "--job=evaluate", "--model=simple_cnn", weights[1]]) == 2
    assert "--model=NAME --weights=FILE" in capsys.readouterr().err


@pytest.mark.parametrize(("names", "theirs", "knows"), [
    (imagenet.class_names(), [f"n{i:08}" for i in range(1000)], True),  # Its folders are synsets.
    (None, "abc", True), (("a", "b", "c"), "abc", True), (("a", "b", "c"), "acb", False),
    (("a", "b"), "abc", False)])
def test_weights_know_the_classes_of_data_by_their_names_where_they_are_known(names, theirs, knows):
    module = cnnjax.create_model("simple_cnn", len(names or theirs))
    model = weights_lib.Pretrained(module, {}, None, names, "simple_cnn", {}, "there")
    data = dataclasses.replace(open_dataset("digits"), class_names=tuple(theirs))
    assert pretrained.knows_classes(model, data) == knows
    assert not pretrained.knows_classes(model._replace(new_head=True), data)


def test_alexnets_own_errors_are_a_mean_corruption_error_of_1(monkeypatch):
    errors = robustness.ALEXNET_ERRORS
    monkeypatch.setattr(robustness, "_evaluator",
                        lambda *_: lambda kind, strength: 1 - errors[kind])
    experiment = types.SimpleNamespace(dataset=types.SimpleNamespace(num_classes=1000))
    found = robustness.measure(experiment, {}, robustness.KINDS, error=0.4)
    assert found["mce_without_frost"] == pytest.approx(1)
    assert found["corruption_error"] == pytest.approx(np.mean(list(errors.values())))
    assert found["corruption_error_over_clean"] == pytest.approx(found["corruption_error"] - 0.4)


def test_the_rate_goes_on_through_the_sizes_of_progressive_resizing():
    rates = []
    for sizes in ((), ((0, 8), (50, 12))):
        config = config_lib.default()
        config.model.name, config.data.image_size, config.train.steps = "simple_cnn", 8, 6
        config.schedule.name, config.train.progressive = "linear", sizes
        config.head.steps, config.weights.path = 2, "random"
        experiment = experiment_lib.build(config)
        rates.append([experiment.learning_rate(step) for step in range(8)])
        assert [(phase.start, phase.stop) for phase in experiment.phases] == (
            [(0, 2), (2, 5), (5, 8)] if sizes else [(0, 2), (2, 8)])
    assert rates[0] == pytest.approx(rates[1]) and rates[0][7] < rates[0][5] < rates[0][2]


@pytest.mark.parametrize(("threshold", "smoothing", "fits"), [
    (0.2, 0.1, True), (0.95, 0.1, False), (0.905, 0.1, True), (0.92, 0.1, False),
    (0.02, 0.1, True), (0.005, 0.1, False), (0.0, 0.0, True), (1.0, 0.0, False), (None, 0.1, True)])
def test_the_threshold_lies_between_the_targets(threshold, smoothing, fits):
    config = config_lib.default()
    config.train.loss, config.train.label_smoothing = "sigmoid", smoothing
    config.train.target_threshold = threshold
    targets = losses.soft_targets(losses.Targets(jnp.array([3])), 10, smoothing)
    assert fits == (threshold is None or len(np.unique(targets > threshold)) == 2)
    if fits:
        return recipe.check_target_threshold(config, 10)
    with pytest.raises(UserError, match="train.target_threshold is .* own class is"):
        recipe.check_target_threshold(config, 10)
    config.train.loss = "softmax"
    recipe.check_target_threshold(config, 10)


def test_each_phase_has_its_own_rate_and_decay_and_both_have_the_runs_loss():
    config = config_lib.default()
    config.model.name, config.data.image_size, config.weights.path = "simple_cnn", 8, "random"
    config.head.steps, config.train.steps = 3, 4
    config.head.optimizer, config.head.lr, config.head.weight_decay = "sgd", 0.25, 0.5
    config.schedule.name, config.schedule.lr = "step", 0.1
    config.schedule.drop_steps, config.schedule.drop_factor = (2,), 0.2
    config.train.label_smoothing, config.train.ema_decay = 0.1, 0.9
    config.train.loss, config.train.target_threshold, config.train.aux_weight = "sigmoid", 0.2, 0.7
    config.train.ghost_batch_size, config.train.norm_statistics = 16, "running"
    config.train.remat = ("conv1", "norm1")
    experiment = experiment_lib.build(config)
    assert [experiment.learning_rate(step) for step in range(7)] == pytest.approx(
        [0.25] * 3 + [0.1] * 2 + [0.02] * 2)
    head, rest = (phase.task for phase in experiment.phases)
    assert head.label_smoothing == rest.label_smoothing == 0.1
    assert (head.average_decay, rest.average_decay, rest.average_start) == (0, 0.9, 3)
    assert (rest.aux_weight, rest.target_threshold, rest.ghost_batch_size) == (0.7, 0.2, 16)
    assert rest.running_statistics and rest.remat == {"conv1", "norm1"}
    params = {"head": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    zeros = {"head": {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}}
    updates, _ = head.optimizer.update(zeros, head.optimizer.init(params), params)
    np.testing.assert_allclose(updates["head"]["kernel"], -0.25 * 0.5)
    np.testing.assert_array_equal(updates["head"]["bias"], 0)


@pytest.mark.parametrize(("size", "accumulate", "fits"), [
    (5, 1, 4), (3, 1, 2), (12, 1, 8), (16, 2, 8), (100, 1, 16), (7, 16, 1)])
def test_a_ghost_batch_that_does_not_fit_is_told_the_nearest_that_does(size, accumulate, fits):
    """A batch norm that is given one row alone would give zeros, at the end of a network."""
    config = config_lib.default()
    config.train.batch_size, config.train.accumulate = 16, accumulate
    config.train.ghost_batch_size = size
    with pytest.raises(UserError, match=rf"set --config.train.ghost_batch_size={fits}\.$"):
        recipe.check_ghost_batch_size(config)
