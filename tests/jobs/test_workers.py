"""Runs whose images are read by processes: how they end, and that none of these is left."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_hosts import Processes

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
RUN = ["launch.py", "--config=experiments/simple_cnn.py", "--config.model.widths=(4,)",
       "--config.data.image_size=8", "--config.augment.random_resized_crop=(0.3, 1.0)",
       "--config.augment.repeats=2", "--config.train.batch_size=4", "--config.train.steps=400",
       "--config.log.every_steps=10", "--config.eval.every_steps=200", "--config.log.plot=False",
       "--config.log.tensorboard=False"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(24):
        path = folder / f"{'ab'[i % 2]}/{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9 + i, 40 - i, 3), np.uint8)).save(path)
    return folder


def start(photos, folder, root, workers):
    return subprocess.Popen(
        [sys.executable, *RUN, f"--config.data.name=folder:{photos}", f"--workdir={folder}",
         f"--config.data.workers={workers}"], cwd=root, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True)


def readers(process):
    """Waits until the run trains; returns the process ids of its workers."""
    for line in process.stdout:
        if line.startswith("step "):
            break
    found = []
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        with contextlib.suppress(OSError):  # A thread may just have ended.
            found += map(int, (task / "children").read_text().split())
    return [pid for pid in found
            if "cnnjax.data" in Path(f"/proc/{pid}/cmdline").read_text()]


def assert_gone(pids):
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, pids
        time.sleep(0.02)


def test_a_killed_worker_ends_the_run_with_one_message(photos, root, tmp_path):
    process = start(photos, tmp_path / "run", root, 2)
    own = readers(process)
    assert len(own) == 2
    os.kill(own[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"launch.py: Worker process {own[0]} of the loader was killed (SIGKILL)" in errors
    assert "data.workers to fewer" in errors and "Traceback" not in errors
    assert_gone(own)


@pytest.mark.slow
def test_a_killed_worker_of_one_of_several_processes_is_that_ones_message(photos, root, tmp_path):
    running = Processes(tmp_path / "run", root, *RUN[2:], f"--config.data.name=folder:{photos}",
                        "--config.data.workers=1")
    own = readers(running.all[0])
    os.kill(own[0], signal.SIGKILL)
    codes, _, errors = running.end()
    assert codes[0] == 1 and codes[1] != 0, errors
    assert f"process 0 of 2: Worker process {own[0]} of the loader was killed" in errors[0]
    assert "Traceback" not in errors[0]
    assert_gone(own)


@pytest.mark.slow
def test_a_signal_to_all_saves_and_threads_may_go_on(photos, root, tmp_path):
    process = start(photos, tmp_path / "run", root, 2)
    own = readers(process)
    for pid in [*own, process.pid]:  # As a scheduler does, which ends the whole group.
        os.kill(pid, signal.SIGTERM)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 75, output + errors
    assert_gone(own)
    digests = []
    for folder, workers in (("run", 0), ("whole", 1)):
        process = start(photos, tmp_path / folder, root, workers)
        output, errors = process.communicate(timeout=240)
        assert process.returncode == 0, output + errors
        digests.append(json.loads((tmp_path / folder / "summary.json").read_text())["state_sha256"])
    assert digests[0] == digests[1]


def test_no_worker_outlives_a_killed_run(photos, root, tmp_path):
    process = start(photos, tmp_path / "run", root, 2)
    own = readers(process)
    process.kill()
    process.communicate()
    assert len(own) == 2
    assert_gone(own)
