"""One device against eight: the same losses, every example evaluated once, any restore."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from cnnjax import config as config_lib
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs import recipe
from cnnjax.train.writers import read_metrics
from cnnjax.types import UserError

# 360 examples to evaluate in batches of 50, which 8 devices round up to 56: neither divides.
RUN = ["launch.py", "--config=experiments/simple_cnn.py", "--config.model.widths=(4, 8)",
       "--config.train.batch_size=48", "--config.eval.batch_size=50", "--config.train.steps=12",
       "--config.log.every_steps=1", "--config.eval.every_steps=6",
       "--config.augment.pad_crop=1", "--config.augment.flip=True", "--config.log.plot=False"]


def train(folder, root, devices, *overrides):
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    done = subprocess.run([sys.executable, *RUN, f"--workdir={folder}", *overrides], cwd=root,
                          env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{devices} x cpu" in done.stdout
    return (json.loads((folder / "summary.json").read_text()),
            [r["train_loss"] for r in read_metrics(folder)])


@pytest.fixture(scope="module")
def one(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp("one") / "run"
    return *train(folder, root, 1), folder


def test_eight_devices_give_the_losses_of_one(one, root, tmp_path):
    summary, losses = train(tmp_path / "run", root, 8)
    assert losses == pytest.approx(one[1], rel=2e-4)
    assert summary["examples_evaluated"] == one[0]["examples_evaluated"] == 360
    assert summary["top1"] == pytest.approx(one[0]["top1"], abs=2 / 360)


def test_a_run_is_evaluated_on_devices_that_do_not_divide_its_batch(one, root):
    summary, _, folder = one
    five = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=5"}

    def launch(*words):
        return subprocess.run([sys.executable, *words, f"--workdir={folder}"], cwd=root, env=five,
                              capture_output=True, text=True)

    done = launch("launch.py", "--job=evaluate")
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "evaluate.json").read_text())
    assert found["eval_examples"] == 360
    assert found["eval_top1"] == pytest.approx(summary["top1"], abs=2 / 360)
    done = launch(*RUN)  # It could go on on four, with the batch that it has.
    assert done.returncode == 2 and "--config.devices=4" in done.stderr


def test_the_parts_of_a_batch_divide_the_rows_of_each_device_where_there_are_steps():
    config = config_lib.default()
    config.model.name, config.train.steps = "simple_cnn", 2
    config.train.batch_size, config.train.accumulate = 12, 5
    experiment_lib.build(config, trains=False)
    with pytest.raises(UserError, match="to a divisor of 12[.]"):
        experiment_lib.build(config)

    class Mesh:
        size = 4

    recipe.check_accumulate(3, 12, Mesh)
    with pytest.raises(UserError, match="to a divisor of 3, or --config.devices=2"):
        recipe.check_accumulate(6, 12, Mesh)


def test_divided_parameters_are_put_together_by_one_program_in_all_evaluations():
    config = config_lib.default()
    config.model.name, config.train.steps, config.sharding.fsdp_min_size = "simple_cnn", 2, 64
    experiment, compiled = experiment_lib.build(config), []
    params = {"kernel": jnp.ones((3, 5))}
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None)
    counts = [(experiment.gather(params), len(compiled))[1] for _ in range(3)]
    assert counts == [1, 1, 1]


@pytest.mark.slow
def test_a_checkpoint_of_eight_devices_goes_on_on_two(one, root, tmp_path):
    folder = tmp_path / "run"
    train(folder, root, 8, "--config.train.stop_after_steps=6")
    _, losses = train(folder, root, 2)
    assert losses == pytest.approx(one[1], rel=2e-4)


@pytest.mark.slow
def test_streaming_feeds_eight_devices_the_same_batches(one, root, tmp_path):
    _, losses = train(tmp_path / "run", root, 8, "--config.data.placement=stream")
    assert losses == pytest.approx(one[1], rel=2e-4)


@pytest.mark.slow
def test_eight_devices_augment_mix_and_accumulate_as_one_does(root, tmp_path):
    recipe = ["--config.augment.policy=rand_augment", "--config.augment.jitter=(0.2,0.2,0.2,0.0)",
              "--config.augment.random_resized_crop=(0.5,1.0)", "--config.augment.erase=0.3",
              "--config.augment.mixup=0.2", "--config.augment.cutmix=1.0",
              "--config.train.accumulate=3", "--config.train.ema_decay=0.5"]
    (one, losses), (eight, same) = (train(tmp_path / f"{n}", root, n, *recipe) for n in (1, 8))
    assert same == pytest.approx(losses, rel=2e-4)
    assert eight["top1"] == pytest.approx(one["top1"], abs=2 / 360)


@pytest.mark.slow
def test_divided_parameters_give_the_losses_of_one_device_and_move_between_both(
        one, root, tmp_path):
    folder, divide = tmp_path / "run", "--config.sharding.fsdp_min_size=64"
    train(folder, root, 8, divide, "--config.train.stop_after_steps=4")
    train(folder, root, 1, "--config.train.stop_after_steps=8")
    summary, losses = train(folder, root, 8, divide)
    assert losses == pytest.approx(one[1], rel=2e-4)
    assert summary["top1"] == pytest.approx(one[0]["top1"], abs=2 / 360)
