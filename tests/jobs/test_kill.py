"""kill -9 at random moments, and the same command again: the end is the same to the bit."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest
from results import lines

# Batch norm, dropout and augmentation: everything that draws or remembers. About 300 steps of some
# ten milliseconds, saved every 20.
RUN = ["launch.py", "--config=experiments/simple_cnn.py", "--config.model.widths=(8, 16)",
       "--config.model.dropout_rate=0.1", "--config.augment.pad_crop=1",
       "--config.augment.policy=rand_augment", "--config.augment.mixup=0.2",
       "--config.augment.repeats=2", "--config.train.ema_decay=0.9",
       "--config.train.steps=300", "--config.log.every_steps=7", "--config.eval.every_steps=50",
       "--config.checkpoint.every_steps=20", "--config.log.plot=False"]


def start(folder, root):
    return subprocess.Popen([sys.executable, *RUN, f"--workdir={folder}"], cwd=root,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(folder, root):
    process = start(folder, root)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def digests(folder):
    summary = json.loads((folder / "summary.json").read_text())
    return summary["params_sha256"], summary["state_sha256"], summary["top1"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, root):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    finish(folder, root)
    return folder


def wait_for_step(process, least):
    """Returns when the run has logged a step from `least` on."""
    for line in process.stdout:
        if line.startswith("step ") and int(line.split()[1].partition("/")[0]) >= least:
            return


def kill_while_training(folder, root, clock):
    """Kills the run at a random step, at a random moment of it or of the save that follows."""
    process = start(folder, root)
    wait_for_step(process, clock.randrange(1, 250))
    time.sleep(clock.uniform(0, 0.1))
    process.kill()
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "kills"), [
    pytest.param(0, 2, id="twice"),
    *[pytest.param(seed, 1, id=f"once-{seed}") for seed in range(1, 6)]])
def test_a_killed_run_ends_where_an_uninterrupted_one_ends(whole, seed, kills, tmp_path, root):
    folder, clock = tmp_path / "run", random.Random(seed)
    for _ in range(kills):
        kill_while_training(folder, root, clock)
        assert not (folder / "summary.json").exists()
    output = finish(folder, root)
    assert digests(folder) == digests(whole), output
    assert lines(folder) == lines(whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_exits_75_and_the_same_command_goes_on(number, whole, tmp_path, root):
    folder = tmp_path / "run"
    process = start(folder, root)
    wait_for_step(process, 1)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75 and "Run the same command" in output
    assert "resumed at step" in finish(folder, root)
    assert digests(folder) == digests(whole)
    assert lines(folder) == lines(whole)


@pytest.mark.slow
def test_ctrl_c_whose_reader_is_gone_saves_and_exits_75(whole, tmp_path, root):
    folder = tmp_path / "run"
    process = start(folder, root)
    wait_for_step(process, 1)
    process.stdout.close()  # As tee's end closes it, to which Ctrl-C goes as well.
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 75
    assert "resumed at step" in finish(folder, root)
    assert digests(folder) == digests(whole)
