"""Recipes of the config in whole runs: progressive resizing, distillation, sharding, remat."""

import json
import shutil
import types

import numpy as np
import pytest

from cnnjax import config as config_lib
from cnnjax.command_line import main
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs import robustness
from cnnjax.train.writers import read_metrics

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


def test_a_run_learns_from_another_run(plain, tmp_path):
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


def test_a_teacher_of_other_classes_is_refused(tmp_path, capsys):
    assert main([*RUN, f"--workdir={tmp_path}/run", "--config.distill.weights=nowhere.pth"]) == 2
    assert "distill.model" in capsys.readouterr().err


def evaluated(folder, *overrides):
    assert main(["launch.py", "--job=evaluate", f"--workdir={folder}", *overrides]) == 0
    return json.loads((folder / "evaluate.json").read_text())


def test_an_evaluation_writes_calibration_classes_robustness_and_probes(plain):
    folder, summary, _ = plain
    found = evaluated(folder, "--config.eval.corruptions=('contrast','jpeg_compression')",
                      "--config.eval.probe=all")
    assert found["eval_top1"] == summary["top1"]
    assert found["nll"] == pytest.approx(found["eval_loss"], rel=1e-4)
    confusion = found["confusion"]
    assert sum(map(sum, confusion)) == found["eval_examples"] == 360
    assert sum(confusion[i][i] for i in range(10)) == round(360 * found["eval_top1"])
    assert (folder / "evaluate.png").stat().st_size > 10_000
    assert {kind: len(a) for kind, a in found["corruptions"].items()} == {
        "contrast": 5, "jpeg_compression": 5}
    # Features of a few steps are about random, and tell digits apart nevertheless.
    assert summary["top1"] < 0.3 < 0.5 < min(found["probe_knn"], found["probe_linear"])


def test_an_evaluation_over_views_has_another_answer(plain):
    folder, summary, _ = plain
    assert evaluated(folder, "--config.eval.tta=ten_crop")["eval_loss"] != pytest.approx(
        evaluated(folder)["eval_loss"], rel=1e-3)


def test_the_range_test_breaks_and_suggests_a_rate_below(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main([*RUN, f"--workdir={folder}", "--job=lr_finder",
                 "--config.lr_finder.highest=1000.0", "--config.lr_finder.steps=60"]) == 0
    found = json.loads((folder / "lr_finder.json").read_text())
    assert len(found["losses"]) < 60 and found["rates"] == sorted(found["rates"])
    assert found["rates"][0] == pytest.approx(1e-5, rel=1e-3)
    assert 1e-5 <= found["suggestion"] <= found["lowest_loss_at"] / 10 * 1.05  # Two digits.
    assert f"--config.schedule.lr={found['suggestion']:g}" in capsys.readouterr().out


def test_the_features_of_weights_are_probed_without_a_run(plain, tmp_path):
    folder = tmp_path / "probe"
    assert main([*RUN, f"--workdir={folder}", "--job=evaluate", "--config.eval.probe=knn",
                 f"--config.weights.path={plain[0]}"]) == 0
    assert 0.5 < json.loads((folder / "evaluate.json").read_text())["probe_knn"] <= 1


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
        experiment = experiment_lib.build(config)
        rates.append([experiment.learning_rate(step) for step in range(6)])
        assert len(experiment.phases) == max(1, len(sizes))
    assert rates[0] == pytest.approx(rates[1]) and rates[0][5] < rates[0][3] < rates[0][0]
