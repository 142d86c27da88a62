"""A sweep of fake trials: all of the sweep is real, and the trials take no time."""

import errno
import fcntl
import itertools
import json
import os
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
from dev_folder import Dev
from results import summary

from cnnjax import config as config_lib
from cnnjax import files, sweeps
from cnnjax.command_line import main
from cnnjax.cores import cores
from cnnjax.jobs import launches, report
from cnnjax.jobs import sweep as sweep_job
from cnnjax.jobs.lock import Lock, held
from cnnjax.jobs.sweeping import executors, local, outcome, table, trial
from cnnjax.jobs.sweeping.engine import Engine, Run
from cnnjax.jobs.sweeping.halving import Halving
from cnnjax.sweeps import Trial
from cnnjax.types import Failure, UserError

FAKE = Path(__file__).with_name("fake_launch.py")


class Here:
    """An executor that runs a trial where it is submitted: no processes of submitit's."""

    detached = False

    def __init__(self, *_):
        self.order = []

    def free(self, active):
        return 1

    def find(self, job_id):
        return None

    def submit(self, tasks):
        for task in tasks:
            self.order.append(task.folder.parent.name)
            task()
        return [Ended() for _ in tasks]


class Ended:
    id = "0"

    def ended(self):
        return True


@pytest.fixture
def here(monkeypatch):
    """Sweeps run fake trials in this process's own children, one at a time."""
    executor = Here()
    monkeypatch.setattr(executors, "Local", lambda *_: executor)
    monkeypatch.setattr(sweep_job, "_LAUNCH", FAKE)
    monkeypatch.setattr("cnnjax.jobs.sweeping.engine.Engine.poll", 0.0)
    return executor


def run(experiment, folder, *words, job="sweep"):
    return main(["launch.py", f"--config={experiment}", f"--job={job}", f"--workdir={folder}",
                 *words])


def lines(folder, name):
    return [len(path.read_text().split()) for path in sorted(folder.glob(f"**/{name}"))]


def test_one_trial_that_fails_is_retried_and_reported_and_the_other_seven_finish(
        experiment, here, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_FAILS", "lr_3")
    assert run(experiment, tmp_path / "s", "--config.sweep.retries=2") == 1
    state = trial.read(tmp_path / "s" / "lr_3" / "seed_0")
    assert state["state"] == "failed" and state["attempts"] == 3
    assert state["message"] == "the disk is full"
    assert lines(tmp_path / "s", "ended.txt") == [1] * 7
    assert summary(tmp_path / "s")["done"] == 7 and summary(tmp_path / "s")["failed"] == 1
    assert "lr_3/seed_0 failed (exit code 1, 3 attempts):\nthe disk is full" in (
        capsys.readouterr().err)

    monkeypatch.delenv("FAKE_FAILS")  # Its cause is gone: the same command tries it again, alone.
    assert run(experiment, tmp_path / "s", "--config.sweep.retries=2") == 0
    assert lines(tmp_path / "s", "ended.txt") == [1] * 8 and summary(tmp_path / "s")["done"] == 8


def test_a_trial_that_vanishes_with_its_process_counts_as_failed_and_is_tried_again(
        experiment, here, tmp_path, monkeypatch):
    submit, lost = here.submit, []

    def lose(tasks):
        if len(lost) < 2:
            lost.extend(tasks)
            trial.update(tasks[0].folder, state="running", attempts=1)
            return [Ended()]
        return submit(tasks)

    monkeypatch.setattr(here, "submit", lose)
    assert run(f"{experiment}:1", tmp_path / "s", "--config.sweep.retries=1") == 1
    state = trial.read(tmp_path / "s" / "lr_0" / "seed_0")
    assert state["failures"] == 2 and "its process was killed" in state["message"]
    assert run(f"{experiment}:1", tmp_path / "s", "--config.sweep.retries=1") == 0


def full_for(monkeypatch, name, writes):
    """Makes the disk full for one file: at those of its writes, counted from 0."""
    write, seen = files.write_json, itertools.count()

    def full(path, values):
        if path.name == name and next(seen) in writes:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, values)

    monkeypatch.setattr(files, "write_json", full)


@pytest.mark.parametrize("first", range(3))
def test_a_trial_waits_for_room_to_note_how_it_is(first, here, experiment, tmp_path, monkeypatch):
    full_for(monkeypatch, "trial.json", (first,))
    assert run(f"{experiment}:1", tmp_path / "s") == 0
    state = trial.read(tmp_path / "s" / "lr_0" / "seed_0")
    assert state["state"] == "done" and state["attempts"] == 1 and state["failures"] == 0
    assert lines(tmp_path / "s", "ended.txt") == [1]


def test_a_trial_that_is_told_to_stop_does_not_wait_for_room(tmp_path, monkeypatch):
    full_for(monkeypatch, "trial.json", range(1, 9))
    threading.Timer(0.5, lambda: trial._Runner.current._ask()).start()
    assert trial.Task(("sleep", "60"), tmp_path / "t", tmp_path)() == "waiting"
    assert trial.read(tmp_path / "t")["state"] == "running"  # As after a kill: it is tried again.


def test_a_clock_that_is_set_back_makes_no_time_negative(tmp_path, monkeypatch):
    hours = itertools.count(100, -1)
    monkeypatch.setattr(trial.time, "time", lambda: 3600.0 * next(hours))
    task = trial.Task((sys.executable, "-c", ""), tmp_path, tmp_path)
    assert task() == "done" and 0 < trial.read(tmp_path)["seconds"] < 600
    trial.update(tmp_path, state="running", seconds=2.0)
    assert table.read_row(Run(Trial("a"), 0, tmp_path, ())).elapsed == 2


def test_the_time_left_of_a_trial_is_without_the_compilation_before_its_first_line(
        tmp_path, monkeypatch):
    # A minute to compile, then half a second a step.
    monkeypatch.setattr(table.time, "time", lambda: 1070.0)
    runs = [Run(Trial(name), 0, tmp_path / name, ()) for name in "ab"]
    for run, lines in zip(runs, (2, 1), strict=True):
        trial.update(run.folder, state="running", attempts=1, started=1000.0)
        (run.folder / "stdout.txt").write_text("step 20/100  loss 1.0000\n")
        (run.folder / "metrics.jsonl").write_text("".join(
            json.dumps({"step": 10 * i, "train_loss": 1.0, "seconds": 60 + 5.0 * i}) + "\n"
            for i in range(1, lines + 1)))
    both = [table.read_row(run) for run in runs]
    assert both[0].eta == 40 and both[1].eta is None
    display = table.Display(plain=True)
    display._rows = dict(zip([*runs, "waits"], [*both, table.Row()], strict=True))
    assert display.eta(2) == (40 + 40 + 110) / 2


def test_a_sweep_whose_disk_is_full_when_a_trial_is_lost_says_so_and_goes_on_with_room(
        experiment, here, tmp_path, monkeypatch, capsys):
    submit, lost = here.submit, []

    def lose(tasks):
        if lost:
            return submit(tasks)
        lost.extend(tasks)
        trial.update(tasks[0].folder, state="running", attempts=1)
        return [Ended()]

    monkeypatch.setattr(here, "submit", lose)
    full_for(monkeypatch, "trial.json", range(1, 5))
    assert run(f"{experiment}:2", tmp_path / "s", "--config.sweep.retries=1") == 0
    said = capsys.readouterr().err
    assert said.count("No space left on device") == 1 and "goes on when there is room" in said
    assert trial.read(tmp_path / "s" / "lr_0" / "seed_0")["failures"] == 1
    assert summary(tmp_path / "s")["done"] == 2


def test_what_cannot_be_submitted_waits_for_room(experiment, here, tmp_path, monkeypatch):
    submit, tries = here.submit, itertools.count()

    def full(tasks):
        if next(tries) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return submit(tasks)

    monkeypatch.setattr(here, "submit", full)
    assert run(f"{experiment}:3", tmp_path / "s") == 0
    assert here.order == ["lr_0", "lr_1", "lr_2"] and summary(tmp_path / "s")["done"] == 3


@pytest.mark.parametrize("name", ["sweep.json", "summary.json"])
def test_no_room_for_a_file_of_the_sweep_is_a_message_and_the_same_command_goes_on(
        name, experiment, here, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        full_for(patch, name, (0,))
        assert run(f"{experiment}:1", tmp_path / "s") == 1
    said = capsys.readouterr().err
    assert "could not be written: No space left on device" in said and "same command" in said
    assert run(f"{experiment}:1", tmp_path / "s") == 0
    assert summary(tmp_path / "s")["done"] == 1 and lines(tmp_path / "s", "ended.txt") == [1]


def run_on_for_a_while(folder):
    """Lets a trial that is done look as if another process ran it, which ends half a second later.
    """
    done = trial.read(folder)
    trial.update(folder, state="running")
    lock = Lock(folder / trial.LOCK)
    assert lock.take() and held(folder / trial.LOCK)

    def end():
        trial.update(folder, **done)
        lock.release()

    threading.Timer(0.5, end).start()


def test_a_trial_that_an_earlier_session_still_runs_is_waited_for_and_not_run_again(
        experiment, here, tmp_path):
    folder = tmp_path / "s" / "lr_0" / "seed_0"
    assert run(f"{experiment}:1", tmp_path / "s") == 0
    run_on_for_a_while(folder)
    assert run(f"{experiment}:1", tmp_path / "s") == 0
    assert here.order == ["lr_0"] and lines(tmp_path / "s", "begun.txt") == [1]


def test_a_trial_that_ends_as_an_earlier_session_asked_for_it_has_not_failed(
        experiment, here, tmp_path):
    folder = tmp_path / "s" / "lr_0" / "seed_0"
    assert run(f"{experiment}:1", tmp_path / "s") == 0
    run_on_for_a_while(folder)
    words = ("--config.train.steps=80", "--config.sweep.retries=0")
    assert run(f"{experiment}:1", tmp_path / "s", *words) == 0
    assert here.order == ["lr_0"] * 2 and trial.read(folder)["failures"] == 0
    assert words[0] in trial.read(folder)["command"]


def test_a_trial_that_was_stopped_once_and_never_begins_again_is_not_submitted_for_ever(
        experiment, here, tmp_path, monkeypatch):
    trial.update(tmp_path / "s" / "lr_0" / "seed_0", state="waiting", attempts=1)
    submitted = []

    def lose(tasks):
        submitted.extend(tasks)
        assert len(submitted) < 5
        return [Ended()]

    monkeypatch.setattr(here, "submit", lose)
    assert run(f"{experiment}:1", tmp_path / "s", "--config.sweep.retries=1") == 1
    assert len(submitted) == 2


def test_two_sweeps_do_not_run_in_one_folder(experiment, here, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep_job, "_PATIENCE", 0.0)
    lock = Lock(tmp_path / "s" / ".lock")
    lock.take()
    assert run(experiment, tmp_path / "s") == 2 and not here.order
    assert "Another process runs the sweep" in capsys.readouterr().err
    lock.release()


def test_seeds_of_a_run_are_workdirs_in_its_folder_with_mean_std_and_interval(
        experiment, here, tmp_path):
    assert run(experiment, tmp_path / "s", "--config.seeds=5", "--config.schedule.lr=0.5",
               job="train") == 0
    assert sorted(p.name for p in (tmp_path / "s").glob("seed_*")) == [
        f"seed_{i}" for i in range(5)]
    found = summary(tmp_path / "s")
    # 0.50 … 0.54; t with 4 degrees of freedom is 2.776445, the standard error 0.00707107.
    assert found["n"] == 5 and found["top1_mean"] == pytest.approx(0.52)
    assert found["top1_std"] == pytest.approx(0.0158114, abs=1e-7)
    assert found["top1_ci95"] == pytest.approx(2.776445 * 0.00707107, rel=1e-5)


def test_overrides_reach_every_trial_and_win_over_its_own_whatever_the_unit(
        experiment, here, tmp_path):
    experiment.write_text(experiment.read_text().replace(
        '{"schedule.lr": i / 10}', '{"train.epochs": 3.0, "model.dtype": "bfloat16"}'))
    run(f"{experiment}:1", tmp_path / "s", "--config.train.steps=4", "--config.seed=7",
        "--config.sweep.retries=0")
    command = trial.read(tmp_path / "s" / "lr_0" / "seed_7")["command"]
    assert [w for w in command if w.startswith("--config.")] == [
        "--config.model.dtype='bfloat16'", "--config.train.steps=4", "--config.seed=7",
        "--config.seeds=0"]


def test_what_the_command_line_replaces_is_said_and_reported(experiment, here, tmp_path, capsys):
    assert run(f"{experiment}:2", tmp_path / "s", "--config.schedule.lr=0.5",
               "--config.seeds=2") == 0
    assert "instead of what trials say of schedule.lr" in capsys.readouterr().out
    assert {r.trial.overrides["schedule.lr"] for r in sweeps.read(tmp_path / "s")[1]} == {0.5}
    about, _ = report.read_runs(tmp_path / "s")
    words = "--config.schedule.lr=0.5 --config.seeds=2 --workdir="
    assert f"--job=sweep {words}" in report._about(about, {}, tmp_path / "s", named=True)
    assert "--job=sweep" not in report._about(about, {}, tmp_path / "s", named=False)


def test_a_sweep_that_asks_for_the_config_has_the_last_word(experiment, here, tmp_path, capsys):
    experiment.write_text(experiment.read_text().partition("def sweep")[0] + """
def sweep(preset, config):
    yield Trial("twice", {"schedule.lr": 2 * config.schedule.lr})
""")
    assert run(experiment, tmp_path / "s", "--config.schedule.lr=0.25") == 0
    result, = sweeps.read(tmp_path / "s")[1]
    assert result.trial.overrides == {"schedule.lr": 0.5}
    assert "--config.schedule.lr=0.5" in trial.read(result.folder)["command"]
    assert "Note" not in capsys.readouterr().out


def test_a_search_gets_its_trials_back_as_it_asked_for_them(experiment, here, tmp_path):
    experiment.write_text(experiment.read_text().partition("def sweep")[0] + """
def sweep(preset=None):
    first = Trial("first", {"schedule.lr": 0.1, "train.epochs": 1.0})
    results = yield [first]
    assert [r.trial for r in results] == [first]
    yield Trial("second", {**results[0].trial.overrides, "schedule.lr": 0.2})
""")
    assert run(experiment, tmp_path / "s", "--config.train.steps=4") == 0
    assert [r.trial.overrides for r in sweeps.read(tmp_path / "s")[1]] == [
        {"schedule.lr": lr, "train.steps": 4} for lr in (0.1, 0.2)]


def test_numbers_of_numpy_are_pythons_in_a_trial():
    made = sweeps.Trial("a", {"model.width": np.float64(0.5), "model.widths": (np.int64(8), 16)},
                        {"batch": np.int32(32)})
    assert repr((made.overrides, made.tags)) == (
        "({'model.width': 0.5, 'model.widths': (8, 16)}, {'batch': 32})")


def test_a_sweep_that_goes_on_has_no_summary_until_its_end(experiment, here, tmp_path, monkeypatch):
    assert run(f"{experiment}:1", tmp_path / "s") == 0
    (tmp_path / "s" / "lr_0" / "seed_0" / "summary.json").unlink()
    seen = []

    def stopped(self, runs):
        seen.append((tmp_path / "s" / "summary.json").exists())
        return False

    monkeypatch.setattr("cnnjax.jobs.sweep.Engine.run", stopped)
    assert run(f"{experiment}:1", tmp_path / "s") == 75 and seen == [False]


def test_a_finished_sweep_run_again_changes_nothing(experiment, here, tmp_path):
    def files():
        return {p: p.read_bytes() for p in (tmp_path / "s").rglob("*") if p.is_file()}

    run(f"{experiment}:2", tmp_path / "s")
    before = files()
    assert run(f"{experiment}:2", tmp_path / "s") == 0 and files() == before


def test_a_search_is_given_the_results_of_each_wave(experiment, here, tmp_path):
    experiment.write_text(experiment.read_text().partition("def sweep")[0] + """
def sweep(preset=None):
    results = yield [Trial(f"coarse_{lr}", {"schedule.lr": lr}) for lr in (0.1, 0.3, 0.2)]
    best = max((r for r in results if r.done), key=lambda r: r.summary["top1"])
    lr = best.trial.overrides["schedule.lr"]
    yield Trial("low", {"schedule.lr": lr / 2})
    yield Trial("high", {"schedule.lr": lr * 2})
""")
    for _ in range(2):  # The second time it finds all that it had asked for.
        assert run(experiment, tmp_path / "s") == 0
        assert [r.trial.name for r in sweeps.read(tmp_path / "s")[1]] == [
            "coarse_0.1", "coarse_0.3", "coarse_0.2", "low", "high"]
    assert sweeps.read(tmp_path / "s")[1][-1].trial.overrides == {"schedule.lr": 0.6}
    assert lines(tmp_path / "s", "ended.txt") == [1] * 5


def test_a_search_that_fails_later_reports_what_has_run_first(
        experiment, here, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_FAILS", "lr_0")
    experiment.write_text(experiment.read_text().partition("def sweep")[0] + """
def sweep(preset=None):
    results = yield [Trial("lr_0", {"schedule.lr": 0.1})]
    yield Trial("next", max(r for r in results if r.done).trial.overrides)
""")
    assert run(experiment, tmp_path / "s") == 2
    said = capsys.readouterr().err
    assert "lr_0/seed_0 failed (exit code 1" in said and "the disk is full" in said
    assert "experiment.py:16: ValueError: max()" in said and "Traceback" not in said
    assert summary(tmp_path / "s")["failed"] == 1


def test_a_trial_whose_folder_holds_another_experiment_is_one_message_and_its_run_stays(
        experiment, here, tmp_path, capsys):
    assert run(f"{experiment}:1", tmp_path / "s") == 0
    folder = tmp_path / "s" / "lr_0" / "seed_0"
    config = sweep_job.workdir.to_json(get_config(experiment))
    (folder / "config.json").write_text(json.dumps(config))
    before = (folder / "summary.json").read_bytes()
    assert run(f"{experiment}:1", tmp_path / "s") == 0  # lr is 0 there as well.
    experiment.write_text(experiment.read_text().replace("lenet5", "simple_cnn"))
    assert run(f"{experiment}:1", tmp_path / "s") == 2
    assert "model.name: 'lenet5' there, 'simple_cnn' here" in capsys.readouterr().err
    assert here.order == ["lr_0"] and (folder / "summary.json").read_bytes() == before


def test_trials_may_find_their_weights_at_another_path(experiment, here, tmp_path):
    words = [f"{experiment}:1", tmp_path / "s"]
    assert run(*words, "--config.weights.path=there") == 0
    config = get_config(experiment)
    config.weights.path = "there"
    (tmp_path / "s" / "lr_0" / "seed_0" / "config.json").write_text(
        json.dumps(sweep_job.workdir.to_json(config)))
    assert run(*words, "--config.weights.path=random") == run(*words) == 2
    assert run(*words, "--config.weights.path=here") == 0  # The trial compares them.
    assert here.order == ["lr_0"] * 2


@pytest.mark.parametrize(("words", "message"), [
    (["--config.train.steps=89"], "step 90, past the end of a run of 89 steps: train longer"),
    (["--config.sweep.asha=True", "--config.sweep.asha_rungs=2", "--config.sweep.asha_reduction=3"],
     "step 90, past the first comparison of successive halving at step 10: give another")])
def test_a_shorter_sweep_does_not_put_failures_in_place_of_results(
        words, message, experiment, here, tmp_path, capsys):
    assert run(f"{experiment}:1", tmp_path / "s") == 0
    folder = tmp_path / "s" / "lr_0" / "seed_0"
    config = sweep_job.workdir.to_json(get_config(experiment))
    (folder / "config.json").write_text(json.dumps(config))
    before = [path.read_bytes() for path in (tmp_path / "s" / "summary.json",
                                             tmp_path / "s" / "sweep.json", folder / "trial.json")]
    assert run(f"{experiment}:1", tmp_path / "s", *words) == 2
    assert message in capsys.readouterr().err and here.order == ["lr_0"]
    assert before == [path.read_bytes() for path in (
        tmp_path / "s" / "summary.json", tmp_path / "s" / "sweep.json", folder / "trial.json")]
    assert run(f"{experiment}:1", tmp_path / "s", "--config.train.steps=91") == 0


def get_config(path):
    names = {}
    exec(path.read_text(), names)
    config = names["get_config"]()
    config.schedule.lr = 0.0
    return config


def test_a_summary_of_a_trial_that_failed_later_does_not_count(experiment, here, tmp_path):
    assert run(f"{experiment}:1", tmp_path / "s") == 0
    trial.update(tmp_path / "s" / "lr_0" / "seed_0", state="failed")
    result, = sweeps.read(tmp_path / "s")[1]
    assert result.summary["status"] == "done" and not result.done
    assert outcome.summarize("e", [result])["trials"][0]["n"] == 0
    assert report.row_of(result).state == "failed"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """An executor of a SLURM that takes jobs; what squeue says and does is a shell script."""
    bin = tmp_path / "bin"
    bin.mkdir()

    def says(command, script):
        (bin / command).write_text(f"#!/bin/sh\n{script}\n")
        (bin / command).chmod(0o755)

    says("srun", "")
    says("sbatch", "echo Submitted batch job 7")
    monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")
    monkeypatch.setattr("cnnjax.jobs.sweeping.slurm._LOOKS", 2)
    return executors.Slurm(tmp_path / "s", {}, poll=0.0), says


def test_a_queue_that_does_not_answer_has_lost_no_job(slurm, tmp_path):
    executor, says = slurm
    says("squeue", "echo Socket timed out >&2; exit 1")
    jobs = executor.submit([trial.Task(("true",), tmp_path / str(i), tmp_path) for i in range(2)])
    assert [job.id for job in jobs] == ["7_0", "7_1"]
    assert not any(job.ended() for job in jobs)
    says("squeue", "echo 7_1")
    assert [job.ended() for job in jobs] == [True, False]
    says("squeue", "exit 1")
    assert [job.ended() for job in jobs] == [True, False]


def test_a_job_that_slurm_will_never_start_is_told_of_once(slurm, tmp_path, capsys):
    executor, says = slurm
    says("squeue", "echo 6 BadConstraints; echo 7_0 PartitionConfig; echo 7_1 Resources")
    jobs = executor.submit([trial.Task(("true",), tmp_path / str(i), tmp_path) for i in range(2)])
    assert not any(job.ended() for job in [*jobs, *jobs])
    said = capsys.readouterr().err
    assert said.count("Warning") == 1 and "PartitionConfig" in said and "show job 7_0" in said


def test_a_sweep_that_cannot_see_the_queue_submits_nothing_twice(slurm):
    executor, says = slurm
    assert executor.find("") is None
    says("squeue", "echo Socket timed out >&2; exit 1")
    with pytest.raises(Failure, match="Socket timed out"):
        executor.find("3_0")
    says("squeue", "echo 3_0")
    assert executor.find("3_0").id == "3_0" and executor.find("3_1") is None


def test_a_trial_starts_in_whatever_folder_the_sweep_was_started(
        root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # There is no cnnjax.
    monkeypatch.setenv("PYTHONPATH", "mine")
    say = (sys.executable, "-c", "import os; print(os.environ['PYTHONPATH'])")
    job, = local.Local(tmp_path, 1, 1).submit([trial.Task(say, tmp_path / "t", tmp_path)])
    until = time.monotonic() + 60
    while not job.ended() and time.monotonic() < until:
        time.sleep(0.05)
    assert trial.read(tmp_path / "t")["state"] == "done"
    assert (tmp_path / "t" / trial.STDOUT).read_text() == f"{root}{os.pathsep}mine\n"
    assert os.environ["PYTHONPATH"] == "mine"


def test_a_job_of_slurm_finds_cnnjax_in_whatever_folder_it_starts(
        root, slurm, tmp_path, monkeypatch):
    executor, says = slurm
    monkeypatch.delenv("PYTHONPATH", raising=False)
    says("sbatch", f'echo "$PYTHONPATH" > {tmp_path}/path; echo Submitted batch job 7')
    executor.submit([trial.Task(("true",), tmp_path / "t", tmp_path)])
    assert (tmp_path / "path").read_text() == f"{root}\n" and "PYTHONPATH" not in os.environ


def test_a_job_of_slurm_has_its_cores_and_may_be_requeued_whatever_the_cluster_says(
        slurm, tmp_path):
    _, says = slurm
    says("sbatch", f'cp "$1" {tmp_path}/script; echo Submitted batch job 7')
    config = config_lib.default()
    config.sweep.executor, config.sweep.cpus = "slurm", 8
    executors.make(config.sweep, tmp_path / "s", 1).submit(
        [trial.Task(("true",), tmp_path / "t", tmp_path)])
    script = (tmp_path / "script").read_text().splitlines()
    assert {"#SBATCH --requeue", "#SBATCH --cpus-per-task=8"} <= set(script)
    srun, = (line.split() for line in script if line.startswith("srun "))
    assert "--cpus-per-task=8" in srun


@pytest.mark.parametrize("content", ["[]", '{"state": "do'])
def test_a_trial_whose_state_is_damaged_runs_as_one_that_has_none(content, tmp_path):
    (tmp_path / "trial.json").write_text(content)
    assert trial.Task(("true",), tmp_path, tmp_path)() == "done"
    assert trial.read(tmp_path)["attempts"] == 1


@pytest.fixture
def preempted(tmp_path, monkeypatch):
    """A trial that is run in a job of SLURM's, which signals the task and the trial, which saves.
    """
    for key, value in (("SUBMITIT_EXECUTOR", "slurm"), ("SLURM_JOB_ID", "7"),
                       ("SLURM_ARRAY_JOB_ID", "7"), ("SLURM_ARRAY_TASK_ID", "1")):
        monkeypatch.setenv(key, value)
    stopped = "import os, signal, sys; os.kill(os.getppid(), signal.SIGTERM); sys.exit(75)"
    return trial.Task((sys.executable, "-c", stopped), tmp_path / "t", tmp_path)


@pytest.mark.parametrize(("executor", "queue", "again"), [
    ("slurm", "RUNNING", True), ("slurm", "COMPLETING", False), ("slurm", "PENDING", False),
    ("local", "RUNNING", False)])
def test_a_job_of_slurm_that_is_preempted_is_put_back_into_the_queue_and_a_cancelled_one_is_not(
        executor, queue, again, slurm, preempted, tmp_path, monkeypatch):
    _, says = slurm
    monkeypatch.setenv("SUBMITIT_EXECUTOR", executor)
    says("squeue", f'case "$*" in *--job=7_1*) echo {queue} ;; esac')
    says("scontrol", f'echo "$*" > {tmp_path}/scontrol')
    assert preempted() == "waiting" and (tmp_path / "scontrol").exists() == again
    if again:
        assert (tmp_path / "scontrol").read_text() == "requeue 7_1\n"


@pytest.mark.parametrize("deaf", ["squeue", "scontrol"])
def test_a_slurm_that_does_not_answer_a_trial_that_was_preempted_is_asked_again(
        deaf, slurm, preempted, tmp_path, monkeypatch):
    _, says = slurm
    monkeypatch.setattr(trial, "_ASKED_AGAIN", (0, 0))
    for command, answer in (("squeue", "echo RUNNING"), ("scontrol", "true")):
        once = f"[ $(grep -c {deaf} {tmp_path}/calls) -gt 1 ] || exit 1" * (command == deaf)
        says(command, f"echo {command} >> {tmp_path}/calls\n{once}\n{answer}")
    assert preempted() == "waiting"
    calls = (tmp_path / "calls").read_text().split()
    assert calls[-1] == "scontrol" and calls.count(deaf) == 2


def test_ray_runs_no_more_at_a_time_than_was_asked_for():
    pytest.importorskip("ray")
    executor = executors.Ray(1, 0, at_a_time=2)
    assert [executor.free(active) for active in (0, 1, 2, 3)] == [2, 1, 0, 0]


@pytest.fixture
def ray(monkeypatch):
    """A stand-in for Ray, of one node of 2 cores, whose tasks come to nothing."""
    def init(address, **_):
        if address == "nowhere:1":
            raise ConnectionError("Failed to connect to Ray cluster at nowhere:1")

    def get(reference):
        raise RuntimeError(reference.hex())

    said = types.SimpleNamespace(hex=lambda: "1 worker(s) were killed.\nMemory: 9 GB")
    fake = types.SimpleNamespace(
        init=init, get=get, wait=lambda references, timeout: (references, []),
        nodes=lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}],
        remote=lambda **_: lambda call: types.SimpleNamespace(remote=lambda task: said))
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return fake


def test_a_ray_that_cannot_be_reached_or_has_no_room_for_a_trial_is_one_message(
        ray, monkeypatch, capsys):
    for cpus, gpus in ((3, 0), (0, 1)):
        with pytest.raises(UserError, match=r"at most 2 cores and 0 GPUs"):
            executors.Ray(cpus, gpus)
    executors.Ray(2, 0)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    executors.Ray(0, 1)  # A cluster may grow.
    assert "sweep.cpus=1 and sweep.gpus=1" in capsys.readouterr().err
    monkeypatch.setenv("RAY_ADDRESS", "nowhere:1")
    with pytest.raises(UserError, match=r"Failed to connect .* or unset RAY_ADDRESS"):
        executors.Ray(1, 0)


def test_trials_that_leave_rays_gpus_undivided_are_warned_of(ray, monkeypatch, capsys):
    executors.Ray(1, 0)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(ray, "nodes", lambda: [
        {"Alive": True, "Resources": {"CPU": 2.0, "GPU": 2.0}}])
    executors.Ray(1, 0)
    assert "--config.sweep.gpus=1" in capsys.readouterr().err
    executors.Ray(1, 1)
    assert capsys.readouterr().err == ""


def test_what_ray_says_of_a_trial_that_never_began_is_its_message(
        ray, experiment, tmp_path, capsys):
    assert run(f"{experiment}:1", tmp_path / "s", "--executor=ray") == 1
    state = trial.read(tmp_path / "s" / "lr_0" / "seed_0")
    assert state["message"] == "Ray says: 1 worker(s) were killed"
    assert local.SUBMITIT not in capsys.readouterr().err


def test_successive_halving_goes_on_with_the_better_trials_and_remembers_what_it_decided(
        experiment, here, tmp_path):
    pytest.importorskip("optuna")
    words = ("--config.sweep.asha=True", "--config.sweep.asha_rungs=1")
    experiment.write_text(experiment.read_text().replace("i / 10", "(9 - i) / 10"))
    for _ in range(2):
        assert run(f"{experiment}:6", tmp_path / "s", *words) == 0
        # Of lr 0.9, 0.8, … the first is the best that has come, and each later one is worse than
        # the best third of those before it.
        ended = [len((tmp_path / "s" / f"lr_{i}" / "seed_0" / "ended.txt").read_text().split())
                 for i in range(6)]
        assert ended == [2, 1, 1, 1, 1, 1]
    stops = [json.loads((tmp_path / "s" / f"lr_{i}" / "seed_0" / "summary.json").read_text())
             for i in range(6)]
    assert [s["steps"] for s in stops] == [90, 30, 30, 30, 30, 30]
    assert [row["stopped_early"] for row in summary(tmp_path / "s")["trials"]] == (
        [False] + [True] * 5)
    # Every trial has come to the first rung before one goes on.
    assert here.order == [f"lr_{i}" for i in range(6)] + ["lr_0"]


def test_the_command_of_a_report_has_what_halved_the_trials(experiment, here, tmp_path):
    pytest.importorskip("optuna")
    words = ("--config.sweep.asha=True", "--config.sweep.asha_rungs=1")
    assert run(f"{experiment}:2", tmp_path / "s", *words, "--config.sweep.retries=0") == 0
    command = report._command(sweeps.read(tmp_path / "s")[0], tmp_path / "s", True).split()
    assert set(words) < set(command) and "--config.sweep.retries=0" not in command


@pytest.mark.parametrize("fails_at", range(8))
def test_a_rung_is_the_same_when_there_was_no_room_to_note_it(fails_at, tmp_path, monkeypatch):
    optuna = pytest.importorskip("optuna")
    backend = optuna.storages.journal.JournalFileBackend
    append, writes = backend.append_logs, itertools.count()
    halving = Halving(tmp_path, 2, 2, lambda run: 80)
    good = Run(Trial("good"), 0, tmp_path / "good", ("train",))
    good.folder.mkdir()
    halving.start(good)

    def full(self, logs):
        if next(writes) == fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return append(self, logs)

    monkeypatch.setattr(backend, "append_logs", full)
    trained, goes_on = [], True
    while goes_on:
        trained.append(good.command[1:])
        (good.folder / "summary.json").write_text(json.dumps({"top1": len(trained) / 10}))
        for _ in range(2):
            try:
                goes_on = halving.advance(good)
                break
            except OSError:
                pass
    stop = "--config.train.stop_after_steps="
    assert trained == [(f"{stop}20",), (f"{stop}40",), ()]
    frozen = halving._frozen(good)
    assert (frozen.value, frozen.intermediate_values) == (0.3, {1: 0.1, 2: 0.2})


def test_a_sweep_stops_though_there_is_no_room_to_note_how_a_trial_ended(tmp_path, monkeypatch):
    def advance(run):
        raise OSError(errno.ENOSPC, "No space left on device")

    executor, looks = Here(), itertools.count()
    monkeypatch.setattr(Ended, "stop", lambda self: None, raising=False)
    executor.submit = lambda tasks: [Ended() for _ in tasks]
    finished = itertools.count()
    monkeypatch.setattr(trial, "finished", lambda *_: next(finished) > 0)
    engine = Engine(executor, tmp_path, advance=advance, poll=0.0,
                    should_stop=lambda: next(looks) > 6)
    assert not engine.run([Run(Trial("a"), 0, tmp_path / "a", ("train",))])


@pytest.mark.parametrize(("change", "says"), [
    (("schedule.lr", "schedule.lrr"), "Trial 'lr_0': There is no config key 'schedule.lrr'"),
    (('f"lr_{i}"', '"same"'), "two trials of the name 'same'"),
    (("def sweep", "def swoop"), "defines no sweep(preset)"),
    (('f"lr_{i}"', 'f"lr/{i}"'), "'lr/0' is no name of a trial"),
    (("schedule.lr", "seed"), "Trial 'lr_0' sets seed, which is the whole sweep's"),
    (("schedule.lr", "sweep.cpus"), "Trial 'lr_0' sets sweep.cpus"),
    (("from cnnjax.sweeps import Trial", "Trial = lambda *_: {1: 2}"), "yields {1: 2}; it yields"),
    (("range(int(preset or 8))", "range(1 // 0)"), "experiment.py:14: ZeroDivisionError"),
    (("def sweep(preset=None)", "def sweep()"), "takes 0 positional arguments"),
])
def test_a_sweep_that_cannot_be_is_one_message_before_anything_runs(
        change, says, experiment, here, tmp_path, capsys):
    experiment.write_text(experiment.read_text().replace(*change))
    assert run(experiment, tmp_path / "s") == 2
    assert says in capsys.readouterr().err and not here.order


def test_a_folder_that_holds_a_run_or_another_sweep_is_left_alone(
        experiment, here, tmp_path, capsys):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "config.json").write_text("{}")
    assert run(experiment, tmp_path / "s") == 2
    assert "holds a run" in capsys.readouterr().err
    run(f"{experiment}:1", tmp_path / "t")
    assert run(f"{experiment}:2", tmp_path / "t") == 2
    assert "holds a sweep of" in capsys.readouterr().err
    assert run(experiment, tmp_path / "t", job="train") == 2
    assert "holds a sweep, or several seeds" in capsys.readouterr().err
    assert run(f"{experiment}:1", tmp_path / "t", "--config.seeds=2", job="train") == 2
    assert "holds a sweep, not several seeds of a run" in capsys.readouterr().err
    assert run(f"{experiment}:1", tmp_path / "u", "--config.seeds=2", job="train") == 0
    before = summary(tmp_path / "u")
    assert run(f"{experiment}:1", tmp_path / "u", "--config.seeds=2") == 2
    assert "holds several seeds of a run, not a sweep" in capsys.readouterr().err
    assert summary(tmp_path / "u") == before


def test_a_sweep_goes_on_however_the_path_of_its_experiment_is_written(
        experiment, here, tmp_path, monkeypatch):
    assert run(f"{experiment}:1", tmp_path / "s") == 0
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    for path in ("experiment.py", "./experiment.py", "link/experiment.py"):
        assert run(f"{path}:1", tmp_path / "s") == 0
    assert here.order == ["lr_0"] and summary(tmp_path / "s")["experiment"] == f"{experiment}:1"
    assert run("experiment.py:2", tmp_path / "s") == 2


@pytest.mark.parametrize("job", ["evaluate", "train"])
def test_who_names_the_folder_of_a_sweep_for_that_of_a_run_is_told_of_its_runs(
        job, experiment, here, tmp_path, capsys):
    folder = tmp_path / "s"
    assert run(f"{experiment}:2", folder, "--config.seeds=2") == 0
    # The first to have begun.
    (folder / "lr_1" / "seed_0" / "config.json").write_text('{"seed": 0}')
    assert main(["launch.py", f"--job={job}", f"--workdir={folder}"]) == 2
    said = capsys.readouterr().err
    assert f"such as --workdir={folder / 'lr_1' / 'seed_0'};" in said
    assert f"--config={experiment}:2 as before." in said


def test_an_experiment_that_sweeps_may_define_a_dataclass(experiment, here, tmp_path):
    head = "from __future__ import annotations\nimport dataclasses\n"
    experiment.write_text(head + experiment.read_text() + (
        "\n\n@dataclasses.dataclass\nclass Point:\n    lr: float\n"))
    assert run(f"{experiment}:1", tmp_path / "s") == 0


def test_a_dry_run_lists_the_trials_and_writes_nothing(experiment, here, tmp_path, capsys):
    assert run(f"{experiment}:3", tmp_path / "s", "--dry_run", "--config.seeds=2") == 0
    assert "schedule.lr=0.2" in capsys.readouterr().out
    assert not (tmp_path / "s").exists() and not here.order


def test_the_file_of_a_sweep_may_have_any_name_that_one_of_a_run_may_have(
        experiment, here, tmp_path, capsys):
    path = experiment.rename(experiment.with_name("experiment.config"))
    assert run(f"{path}:3", tmp_path / "s", "--dry_run") == 0
    assert "lr_2" in capsys.readouterr().out


@pytest.mark.parametrize("words", [(), ("--dry_run",)])
def test_a_sweep_without_a_trial_is_refused_by_a_dry_run_too(
        words, experiment, here, tmp_path, capsys):
    experiment.write_text(experiment.read_text().replace("int(preset or 8)", "0"))
    assert run(experiment, tmp_path / "s", *words) == 2
    assert "yields no trial" in capsys.readouterr().err


def test_cores_and_gpus_are_divided_among_the_trials_at_a_time():
    def cores(*args):
        return [slot["cores"] for slot in local.divide(*args)]

    def gpus(*args):
        return [slot["environment"]["CUDA_VISIBLE_DEVICES"] for slot in local.divide(*args)]

    assert cores(0, 9, [], [4, 5, 6]) == [(4,), (5,), (6,)]
    assert cores(2, 9, [], range(5)) == [(0, 1), (2, 3, 4)]
    assert cores(3, 9, [], [0, 1]) == [(0,), (1,), (0,)]
    assert cores(0, 1, [], range(4)) == [(0, 1, 2, 3)]
    assert gpus(0, 9, ["0", "1"], range(4)) == ["0", "1"]
    assert gpus(1, 9, ["0", "1"], range(4)) == ["0,1"]
    assert gpus(4, 9, ["2", "3"], range(4)) == ["2", "3", "2", "3"]


@pytest.mark.parametrize(("value", "gpus"), [
    ("0,2", ["0", "2"]), ("GPU-8a1,MIG-3b", ["GPU-8a1", "MIG-3b"]), ("", []), ("-1", []),
    ("NoDevFiles", []), ("1,-1,0", ["1"]), ("0, 2", ["0", "2"])])
def test_what_hides_the_gpus_is_no_gpu(value, gpus, monkeypatch):
    """As CUDA reads the variable, and as SLURM sets it in a job without GPUs."""
    for file in ("nvidia0", "dxg"):
        monkeypatch.setattr(launches, "Path", Dev(file))
        assert launches.visible_gpus({"CUDA_VISIBLE_DEVICES": value}) == gpus


def test_a_gpu_that_is_named_and_not_there_takes_no_core_from_the_trials(monkeypatch, tmp_path):
    monkeypatch.setattr(launches, "Path", Dev("null"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    slots = local.Local(tmp_path, 0, 99).slots
    assert slots == [{"cores": (core,), "environment": {}} for core in cores()]


def test_two_that_only_ask_whether_a_lock_is_held_do_not_see_each_other(tmp_path):
    path = tmp_path / "lock"
    path.touch()
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)  # As `held` asks.
        assert not held(path) and not Lock(path).take()


def test_where_the_file_system_knows_no_locks_nobody_holds_one(tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(number, "no")

    monkeypatch.setattr(fcntl, "flock", flock)
    number, lock = errno.ENOLCK, Lock(tmp_path / "lock")
    assert lock.take() and not held(tmp_path / "lock")
    number = errno.EIO
    for ask in (lock.take, lambda: held(tmp_path / "lock")):
        with pytest.raises(OSError, match="no"):
            ask()


def test_what_would_fail_again_is_not_tried_again(tmp_path):
    for name, code, status, attempts in (("mistake", 2, "", 1), ("crash", 1, "not_saved", 4),
                                         ("diverged", 1, "non_finite", 1), ("stale", 1, None, 4)):
        says = f"""echo '{{"status": "{status}"}}' > {tmp_path / name}/summary.json; exit {code}"""
        if status is None:  # It fails before it says anything.
            (tmp_path / name).mkdir()
            (tmp_path / name / "summary.json").write_text('{"status": "non_finite"}')
            says = f"exit {code}"
        task = trial.Task(("sh", "-c", says), tmp_path / name, tmp_path, retries=3)
        assert task() == "failed"
        assert trial.read(tmp_path / name)["attempts"] == attempts


@pytest.mark.parametrize("words", [["--job=evaluate"], ["--job=predict"], [
    "--job=export", "--config=experiments/simple_cnn.py"]], ids=" ".join)
def test_a_job_of_one_run_names_a_run_of_the_sweep_that_it_is_given(tmp_path, capsys, words):
    (tmp_path / "seed_0").mkdir()
    (tmp_path / "sweep.json").write_text("{}")
    command = ["launch.py", *words, f"--workdir={tmp_path}"]
    assert main(command) == 2
    assert "none has begun" in capsys.readouterr().err
    (tmp_path / "seed_0" / "config.json").write_text("{}")
    assert main(command) == 2
    assert f"such as --workdir={tmp_path / 'seed_0'}" in capsys.readouterr().err
