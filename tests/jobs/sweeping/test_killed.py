"""Sweeps that are killed, and that are told to stop, on this machine and on a real SLURM."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
from results import summary

from cnnjax.jobs.lock import held
from cnnjax.jobs.sweeping import trial


def lines(folder, name):
    return [len(path.read_text().split()) for path in sorted(folder.glob(f"**/{name}"))]


def wait_for(process, ready):
    until = time.monotonic() + 200
    while not ready() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.1)


@pytest.mark.slow
def test_eight_trials_stopped_and_killed_end_with_eight_rows_and_none_ran_twice_to_its_end(
        experiment, start, tmp_path, monkeypatch):
    folder = tmp_path / "sweep"
    words = (f"--config={experiment}", f"--workdir={folder}", "--config.sweep.at_a_time=2")
    monkeypatch.setenv("FAKE_SECONDS", "0.3")
    for number, enough in ((signal.SIGKILL, 2), (signal.SIGTERM, 4)):
        process = start(*words)
        wait_for(process, lambda enough=enough: len(lines(folder, "ended.txt")) >= enough)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
        assert not (folder / "summary.json").exists(), output
    assert process.returncode == 75 and "Run the same command to go on" in output, output
    assert not held(folder / ".lock") and not [
        path for path in folder.glob("*/*/trial.json")
        if json.loads(path.read_text())["state"] == "running"]
    process = start(*words)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert len(summary(folder)["trials"]) == 8 and summary(folder)["done"] == 8
    assert lines(folder, "ended.txt") == [1] * 8


@pytest.mark.slow
def test_eight_trials_that_train_killed_twice_end_with_eight_rows_and_none_trained_twice(
        experiment, root, tmp_path):
    folder = tmp_path / "sweep"
    command = [sys.executable, "launch.py", "--job=sweep", f"--config={experiment}",
               f"--workdir={folder}", "--config.model.name=simple_cnn",
               "--config.model.widths=(4,)", "--config.checkpoint.every_steps=10",
               "--config.log.plot=False"]
    for enough in (2, 4):
        process = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL)
        wait_for(process, lambda enough=enough: len(
            list(folder.glob("*/seed_0/summary.json"))) >= enough)
        process.kill()
        process.communicate()
        assert not (folder / "summary.json").exists()
    assert subprocess.run(command, cwd=root, timeout=300).returncode == 0
    assert len(summary(folder)["trials"]) == 8 and summary(folder)["done"] == 8
    for path in folder.glob("*/seed_0"):
        assert summary(path)["status"] == "done" and summary(path)["steps"] == 90
        # What a run prints when it has trained to its end.
        assert (path / "stdout.txt").read_text().count("params sha256") == 1


@pytest.fixture
def slurm(experiment, tmp_path):
    """The words of a sweep of 8 trials on SLURM; skips unless a controller answers."""
    if not shutil.which("sbatch") or subprocess.run(
            ["sinfo"], capture_output=True, timeout=60).returncode:
        pytest.skip("no SLURM that runs")
    return (f"--config={experiment}", f"--workdir={tmp_path / 'sweep'}", "--executor=slurm",
            "--config.sweep.at_a_time=2", "--config.sweep.retries=0")


@pytest.mark.slow
def test_eight_trials_of_an_array_whose_sweep_is_killed_twice_end_once_each(
        slurm, start, tmp_path, monkeypatch):
    folder = tmp_path / "sweep"
    monkeypatch.setenv("FAKE_SECONDS", "0.5")
    for enough in (2, 4):
        process = start(*slurm)
        wait_for(process, lambda enough=enough: len(lines(folder, "ended.txt")) >= enough)
        process.kill()
        process.communicate()
    process = start(*slurm)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert len(summary(folder)["trials"]) == 8 and summary(folder)["done"] == 8
    assert lines(folder, "ended.txt") == lines(folder, "begun.txt") == [1] * 8


@pytest.mark.slow
def test_one_trial_of_an_array_fails_and_is_reported_and_the_other_seven_finish(
        slurm, start, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_FAILS", "lr_3")
    process = start(*slurm)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1 and "the disk is full" in output, output
    assert summary(tmp_path / "sweep")["done"] == 7 and summary(tmp_path / "sweep")["failed"] == 1


@pytest.mark.slow
def test_a_job_that_is_preempted_saves_and_is_requeued_and_one_that_is_cancelled_submitted_again(
        slurm, start, tmp_path, monkeypatch):
    folder = tmp_path / "sweep"
    monkeypatch.setenv("FAKE_SECONDS", "15")
    process = start(slurm[0] + ":2", *slurm[1:])
    wait_for(process, lambda: len(lines(folder, "begun.txt")) == 2)
    jobs = [trial.job_id(folder / f"lr_{i}" / "seed_0") for i in range(2)]
    # What submitit asks SLURM to send before a job's time is over.
    subprocess.run(["scancel", "--signal=USR2", jobs[0]], check=True)
    subprocess.run(["scancel", jobs[1]], check=True)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert lines(folder, "begun.txt") == [2, 2] and lines(folder, "ended.txt") == [1, 1]
    after = [trial.job_id(folder / f"lr_{i}" / "seed_0") for i in range(2)]
    assert after[0] == jobs[0] and after[1] != jobs[1]
