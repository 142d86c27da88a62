"""What a run does when something goes wrong: damage, a full disk, divergence, and signals."""

import contextlib
import errno
import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys

import pytest
from results import lines, summary

from cnnjax import config as config_lib
from cnnjax.checkpoint import Checkpoints
from cnnjax.command_line import main
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs import faults, workdir
from cnnjax.train.writers import read_metrics
from cnnjax.types import UserError

RUN = ["launch.py", "--config=experiments/simple_cnn.py", "--config.model.widths=(4,)",
       "--config.data.image_size=8", "--config.train.steps=12", "--config.log.every_steps=3",
       "--config.eval.every_steps=6", "--config.checkpoint.every_steps=3",
       "--config.log.progress=none", "--config.log.plot=False"]
EXPLODING = ["--config.schedule.lr=1e6", "--config.model.batch_norm=False",
             "--config.schedule.warmup_steps=5", "--config.optimizer.weight_decay=1",
             "--config.checkpoint.every_steps=20", "--config.eval.every_steps=20",
             "--config.train.on_non_finite=rollback", "--config.train.rollback_lr_factor=1e-8"]


def train(folder, *overrides):
    return main([*RUN, f"--workdir={folder}", *overrides])


@pytest.fixture(scope="module")
def runs(tmp_path_factory, root):
    """An uninterrupted run, and one that stopped at step 9."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert train(folder / "whole") == 0
        assert train(folder / "part", "--config.train.stop_after_steps=9") == 0
    return folder


@pytest.fixture
def part(runs, tmp_path):
    return shutil.copytree(runs / "part", tmp_path / "run")


def arrays(checkpoint):
    return max((p for p in checkpoint.glob("state/**/*") if p.is_file()),
               key=lambda p: p.stat().st_size)


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 16
    file.write_bytes(data)


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, truncate, lambda file: file.unlink()],
                         ids=["flipped bit", "truncated", "missing"])
def test_a_damaged_newest_checkpoint_is_told_of_and_the_one_before_is_used(
        part, runs, damage, capsys):
    damage(arrays(part / "checkpoints" / "9"))
    assert train(part) == 0
    said = capsys.readouterr()
    assert "step 9" in said.err and "is damaged" in said.err and "damaged-9" in said.err
    assert "resumed at step" in said.out and (part / "checkpoints" / "damaged-9").is_dir()
    assert summary(part)["state_sha256"] == summary(runs / "whole")["state_sha256"]
    assert lines(part) == lines(runs / "whole")


@pytest.mark.slow
def test_a_damaged_record_counts_as_damage(part, capsys):
    flip(part / "checkpoints" / "9" / "record" / "metadata")
    assert train(part) == 0
    assert "record/metadata" in capsys.readouterr().err


def test_when_no_checkpoint_is_whole_the_run_is_refused_and_nothing_is_changed(part, capsys):
    for checkpoint in (part / "checkpoints").iterdir():
        flip(arrays(checkpoint))
    before = sorted((p, p.stat().st_mtime_ns) for p in part.rglob("*"))
    assert train(part) == 2
    said = capsys.readouterr().err
    assert "None is whole" in said and "--workdir" in said and "Traceback" not in said
    assert sorted((p, p.stat().st_mtime_ns) for p in part.rglob("*")) == before


def test_evaluating_a_damaged_checkpoint_takes_the_one_before_or_refuses(part, capsys):
    flip(arrays(part / "checkpoints" / "9"))
    assert main(["launch.py", "--job=evaluate", f"--workdir={part}"]) == 0
    said = capsys.readouterr()
    assert "Using step 6 instead" in said.err and "at step 6" in said.out
    assert main(["launch.py", "--job=evaluate", f"--workdir={part}",
                 "--config.eval.checkpoint=9"]) == 2
    assert "is damaged" in capsys.readouterr().err


def test_a_checkpoint_that_a_run_replaces_while_it_is_evaluated_is_not_called_damaged(
        part, capsys, monkeypatch):
    build = experiment_lib.build

    def build_meanwhile(*arguments, **options):
        shutil.rmtree(part / "checkpoints" / "9", ignore_errors=True)
        return build(*arguments, **options)

    monkeypatch.setattr(experiment_lib, "build", build_meanwhile)
    assert main(["launch.py", "--job=evaluate", f"--workdir={part}"]) == 0
    said = capsys.readouterr()
    assert "at step 6" in said.out and said.err == ""


def test_what_a_kill_left_unfinished_is_ignored_and_removed(part, runs):
    unfinished = part / "checkpoints" / "12.orbax-checkpoint-tmp"
    shutil.copytree(part / "checkpoints" / "9", unfinished)
    truncate(arrays(unfinished))
    assert train(part) == 0
    assert not unfinished.exists()
    assert summary(part)["state_sha256"] == summary(runs / "whole")["state_sha256"]


def full_at(monkeypatch, steps):
    """Makes the disk full whenever these steps are saved, the first time."""
    probe, left = Checkpoints._probe, set(steps)

    def full(self):
        if self._saving in left:
            left.discard(self._saving)
            raise OSError(errno.ENOSPC, "No space left on device")
        probe(self)

    monkeypatch.setattr(Checkpoints, "_probe", full)


def test_a_save_that_fails_costs_that_checkpoint_and_not_the_run(tmp_path, runs, monkeypatch,
                                                                 capsys):
    full_at(monkeypatch, [6])
    assert train(tmp_path / "run") == 0
    said = capsys.readouterr().err
    assert "step 6 could not be saved: No space left on device" in said and "step 3" in said
    found = summary(tmp_path / "run")
    assert found["checkpoint_errors"] == [{"step": 6, "error": "No space left on device"}]
    assert found["state_sha256"] == summary(runs / "whole")["state_sha256"]


def test_a_lost_log_does_not_lose_the_result(runs, tmp_path):
    folder = shutil.copytree(runs / "whole", tmp_path / "run")
    for name in ("metrics.jsonl", "summary.json"):
        (folder / name).unlink()
    assert train(folder, "--config.log.plot=True") == 0
    keys = "status", "steps", "top1", "examples_evaluated", "state_sha256"
    found, before = summary(folder), summary(runs / "whole")
    assert [found[key] for key in keys] == [before[key] for key in keys]


@pytest.mark.parametrize("end", ["stop_after_steps", "steps"])
def test_a_run_that_is_to_end_where_it_was_not_evaluated_is_evaluated_there(
        end, tmp_path):
    folder, always = tmp_path / "run", ("--config.schedule.name=constant",
                                        "--config.checkpoint.keep_last=4")
    assert train(folder, *always, "--config.train.stop_after_steps=6") == 0
    shutil.rmtree(folder / "checkpoints" / "6")  # As if it had been killed at 5.
    (folder / "summary.json").unlink()
    before = lines(folder)[0]
    assert before["step"] == 3 and "eval_top1" not in before
    assert train(folder, *always, f"--config.train.{end}=3") == 0
    line, = lines(folder)
    assert line.items() >= before.items() and summary(folder)["top1"] == line["eval_top1"]
    assert main(["launch.py", "--job=evaluate", f"--workdir={folder}"]) == 0


@pytest.mark.slow
def test_the_last_step_is_tried_twice(tmp_path, monkeypatch):
    full_at(monkeypatch, [12])
    assert train(tmp_path / "run") == 0
    assert Checkpoints(tmp_path / "run" / "checkpoints", read_only=True).find("last") == 12


def test_a_run_whose_end_cannot_be_saved_fails_and_goes_on_later(tmp_path, runs, monkeypatch,
                                                                 capsys):
    def full(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_probe", full)
        assert train(folder) == 1
    said = capsys.readouterr().err
    assert "could not be saved" in said and "same command" in said and "Traceback" not in said
    assert summary(folder)["status"] == "not_saved"
    assert train(folder) == 0
    assert summary(folder)["state_sha256"] == summary(runs / "whole")["state_sha256"]


def test_a_divergence_is_rolled_back_with_a_lower_rate_and_counted(tmp_path, capsys):
    folder = tmp_path / "run"
    assert train(folder, *EXPLODING, "--config.checkpoint.every_steps=1",
                 "--config.train.max_rollbacks=9") == 0
    said = capsys.readouterr().err
    assert "Going back to step" in said and "rollback 1 of 9" in said
    found = summary(folder)
    assert found["status"] == "done" and 0 < found["rollbacks"] <= 9
    assert read_metrics(folder)[-1]["lr"] <= 0.01
    steps = [r["step"] for r in read_metrics(folder)]
    assert steps == sorted(set(steps))
    # What it went back to twice held numbers that were finite and no longer good ones.
    assert list((folder / "checkpoints").glob("diverged-*"))


def test_when_none_is_whole_to_go_back_to_it_is_said_which_was_set_aside(
        tmp_path, capsys, monkeypatch):
    set_aside = Checkpoints.set_aside

    def damage_the_others(self, steps):
        names = set_aside(self, steps)
        if "diverged" in steps.values():
            for step in self.steps():
                flip(arrays(tmp_path / "checkpoints" / str(step)))
        return names

    monkeypatch.setattr(Checkpoints, "set_aside", damage_the_others)
    assert train(tmp_path, *EXPLODING, "--config.checkpoint.every_steps=1",
                 "--config.train.max_rollbacks=9") == 2
    said = capsys.readouterr().err
    (aside,) = (tmp_path / "checkpoints").glob("diverged-*")
    assert f"kept as {aside.name}" in said and "None is whole, and none was changed" in said


def test_a_run_that_was_rolled_back_resumes_with_its_lower_rate_to_the_same_bits(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(whole, *EXPLODING) == 0
    assert train(parts, *EXPLODING, "--config.train.stop_after_steps=9") == 0
    (parts / "rollbacks.json").unlink()  # The record knows as well.
    assert train(parts, *EXPLODING) == 0
    for folder in (whole, parts):
        assert summary(folder)["rollbacks"] == 1
        assert summary(folder)["state_sha256"] == summary(whole)["state_sha256"]


def test_a_rollback_keeps_count_when_the_logging_changes_and_forgets_it_with_the_rate(tmp_path):
    config = config_lib.default()
    (tmp_path / "rollbacks.json").write_text(json.dumps(
        {"step": 4, "count": 2, "config": workdir.to_json(config)}))
    config.log.progress = "plain"
    assert faults.rolled_back_to(config, tmp_path) == (4, 2)
    config.schedule.lr = 0.05
    assert faults.rolled_back_to(config, tmp_path) == (None, 0)


def test_a_failed_save_is_counted_once_through_a_rollback(tmp_path, monkeypatch):
    full_at(monkeypatch, [1])
    folder = tmp_path / "run"
    assert train(folder, *EXPLODING, "--config.checkpoint.every_steps=1",
                 "--config.train.max_rollbacks=9") == 0
    assert summary(folder)["rollbacks"] > 0
    assert [e["step"] for e in summary(folder)["checkpoint_errors"]] == [1]


def full_for(monkeypatch, name):
    """Makes the disk full for one file of the workdir."""
    write = workdir.write_json

    def full(path, values):
        if path.name == name:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, values)

    monkeypatch.setattr(workdir, "write_json", full)


def test_a_rollback_that_cannot_be_written_down_stops_the_run(tmp_path, monkeypatch, capsys):
    full_for(monkeypatch, "rollbacks.json")
    assert train(tmp_path / "run", *EXPLODING) == 1
    said = capsys.readouterr().err
    assert "Not rolling back" in said and "Stopped: " in said


@pytest.mark.parametrize("name", ["config.json", "summary.json"])
def test_no_room_for_a_file_that_must_be_is_a_message_and_the_same_command_goes_on(
        name, tmp_path, runs, monkeypatch, capsys):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        full_for(patch, name)
        assert train(folder) == 1
    said = capsys.readouterr().err
    assert f"{name} could not be written: No space left on device" in said
    assert "same command" in said and "Traceback" not in said
    assert train(folder) == 0
    assert summary(folder)["state_sha256"] == summary(runs / "whole")["state_sha256"]


def test_a_workdir_on_a_full_disk_is_refused_at_the_start(tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(workdir.tempfile, "TemporaryFile", lambda dir: Full())
    with pytest.raises(UserError, match="No space left on device. Make room"):
        workdir.check_writable(tmp_path)


def test_a_workdir_that_cannot_be_a_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, path, what in (("file", "file", "a file"), ("file/run", "file", "a file"),
                             ("link", "link", "a link to what does not exist")):
        with pytest.raises(UserError, match=f"/{name} cannot be made: .*/{path} is {what}. Give"):
            workdir.check_writable(tmp_path / name)


@pytest.mark.slow
def test_rollbacks_end_after_their_number(tmp_path, capsys):
    folder = tmp_path / "run"
    assert train(folder, *EXPLODING, "--config.train.rollback_lr_factor=1.0",
                 "--config.train.max_rollbacks=2") == 1
    assert "2 rollbacks did not help" in capsys.readouterr().err
    assert summary(folder)["status"] == "non_finite" and summary(folder)["rollbacks"] == 2


@pytest.mark.slow
def test_two_deterministic_runs_are_equal_to_the_bit_which_on_a_cpu_all_are(tmp_path, runs):
    assert train(tmp_path / "run", "--config.deterministic=True") == 0
    assert summary(tmp_path / "run")["state_sha256"] == summary(runs / "whole")["state_sha256"]


LONG_CALL = """
import hashlib, sys
from cnnjax import interrupts
with interrupts.leave_when_asked():
    {first}
    print("ready", flush=True)
    # One call that lets no handler of Python's run, as a compilation does.
    hashlib.pbkdf2_hmac("sha512", b"", b"", {rounds})
    print("went on", flush=True)
"""


def asked_to_stop(root, number, first="", rounds=200_000_000):
    process = subprocess.Popen(
        [sys.executable, "-c", LONG_CALL.format(first=first, rounds=rounds)], cwd=root, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    process.send_signal(signal.SIGUSR1)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_ends_a_process_that_has_nothing_to_save_at_once_though_it_compiles(root, number):
    code, out, err = asked_to_stop(root, number)
    assert code == 75 and out == "" and "Run the same command" in err and "Traceback" not in err


def test_a_signal_leaves_a_terminal_with_its_cursor(root):
    """Which progress bars hide until they end."""
    bar = "from rich.progress import Progress; Progress(transient=True).start()"
    terminal, inside = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", LONG_CALL.format(first=bar, rounds=200_000_000)],
                          cwd=root, stdin=inside, stdout=inside, stderr=inside,
                          env=os.environ | {"TERM": "xterm"}) as process:
        os.close(inside)
        said = b""
        while b"ready" not in said:
            said += os.read(terminal, 4096)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # Linux's, once the other end is closed.
            while more := os.read(terminal, 4096):
                said += more
    os.close(terminal)
    assert said.rfind(b"\x1b[?25h") > said.rfind(b"\x1b[?25l") >= 0


def test_a_signal_does_not_end_a_process_that_has_something_to_save(root):
    code, out, _ = asked_to_stop(root, signal.SIGTERM, "interrupts.hold()", 1_000_000)
    assert code == 0 and "went on" in out


def test_a_signal_does_not_change_the_exit_code_of_what_is_over(root):
    code = """
import atexit, signal, sys
from cnnjax import interrupts

def tear_down():  # Which takes JAX a second.
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
        signal.raise_signal(number)

atexit.register(tear_down)
with interrupts.leave_when_asked():
    sys.exit(3)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True)
    assert (done.returncode, done.stderr) == (3, b"")


def test_the_end_does_not_wait_for_what_compiles_ahead(root):
    code = """
import time
from cnnjax import interrupts
from cnnjax.jobs import ahead
class Slow:
    def lower(self):
        return self
    def compile(self):
        time.sleep(60)
ahead.Call(Slow()).prepare()
print("Stopped and saved")
interrupts.end(75)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (75, b"Stopped and saved\n", b"")


def test_a_lost_terminal_stops_a_run_but_under_nohup(root):
    code = """
import signal
from cnnjax import interrupts
from cnnjax.jobs import signals
with interrupts.leave_when_asked(), signals.stop_requests() as should_stop:
    signal.raise_signal(signal.SIGHUP)
    print(should_stop())
"""
    for before, asked in (("", "True\n"), ("trap '' HUP; ", "False\n")):
        done = subprocess.run(["sh", "-c", before + 'exec "$@"', "sh", sys.executable, "-c", code],
                              cwd=root, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, asked), done.stderr


def test_a_lower_rate_after_a_rollback_is_that_of_every_phase():
    config = config_lib.default()
    config.model.name, config.data.image_size, config.weights.path = "simple_cnn", 8, "random"
    config.head.steps = config.train.steps = 2
    whole = experiment_lib.build(config)
    lower = experiment_lib.at_rate(whole, 0.1)
    for step in range(4):
        assert lower.learning_rate(step) == pytest.approx(0.1 * whole.learning_rate(step)) != 0
