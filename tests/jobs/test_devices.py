"""One device against eight: the same losses, every example evaluated once, any restore."""

import json
import os
import subprocess
import sys

import pytest

from cnnjax.train.writers import read_metrics

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
    return train(folder, root, 1)


def test_eight_devices_give_the_losses_of_one(one, root, tmp_path):
    summary, losses = train(tmp_path / "run", root, 8)
    assert losses == pytest.approx(one[1], rel=2e-4)
    assert summary["examples_evaluated"] == one[0]["examples_evaluated"] == 360
    assert summary["top1"] == pytest.approx(one[0]["top1"], abs=2 / 360)


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
