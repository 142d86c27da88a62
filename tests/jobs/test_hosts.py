"""Several processes as one run: who they are, what they compute, and how they end."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from dev_folder import Dev
from results import summary

from cnnjax.command_line import main
from cnnjax.jobs import hosts, launches
from cnnjax.train.writers import read_metrics
from cnnjax.types import Failure, UserError

# 360 examples to evaluate in batches of 50: the last one is padded.
RUN = ["launch.py", "--config=experiments/simple_cnn.py", "--config.model.widths=(4, 8)",
       "--config.data.image_size=8", "--config.train.batch_size=48", "--config.eval.batch_size=50",
       "--config.train.steps=4", "--config.log.every_steps=1", "--config.eval.every_steps=2",
       "--config.augment.pad_crop=1", "--config.augment.flip=True", "--config.log.plot=False",
       "--config.log.tensorboard=False"]
LONG = ["--config.train.steps=200", "--config.log.every_steps=20", "--config.eval.every_steps=100",
        "--config.checkpoint.every_steps=50"]

DIVERGING = ["--config.schedule.lr=1e6", "--config.model.batch_norm=False",
             "--config.train.steps=20", "--config.optimizer.weight_decay=1"]
ROLLING_BACK = ["--config.train.on_non_finite=rollback", "--config.train.rollback_lr_factor=0.05",
                "--config.train.max_rollbacks=9", "--config.checkpoint.every_steps=1",
                "--config.schedule.warmup_steps=5"]


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


class Processes:
    """The processes of one run, of as many devices each, or of a number for each."""

    def __init__(self, folder, root, *words, count=2, devices=1, start=None, last=(), home=None,
                 **variables):
        port = free_port()
        several = {} if count == 1 else {launches.COUNT: str(count),
                                         launches.ADDRESS: f"localhost:{port}"}
        devices = devices if isinstance(devices, list) else [devices] * count
        folders = folder if isinstance(folder, list) else [folder] * count
        own = {"HOME": str(home)} if home else {}  # Of the last one, as `last` are its words.
        self.all = [subprocess.Popen(
            [sys.executable, *RUN, f"--workdir={folders[i]}", *words,
             *(last if i == count - 1 else ())], cwd=root, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=os.environ | several | variables | ({launches.INDEX: str(i)} if several else {}) | (
                own if i == count - 1 else {}) | {
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices[i]}"})
            for i in (range(count) if start is None else start)]

    def wait_for(self, text):
        for line in self.all[0].stdout:
            if text in line:
                return
        raise AssertionError(f"{text!r} never came: {self.all[0].stderr.read()}")

    def end(self, timeout=300):
        """Returns the exit codes, and what each said to stdout and to stderr."""
        said = [process.communicate(timeout=timeout) for process in self.all]
        return [process.returncode for process in self.all], *zip(*said, strict=True)


def train(folder, root, *words, **options):
    codes, said, errors = Processes(folder, root, *words, **options).end()
    assert set(codes) == {0}, errors
    assert not any(said[1:])  # The first speaks for all.
    return summary(folder), [r["train_loss"] for r in read_metrics(folder) if "train_loss" in r]


@pytest.mark.parametrize(("environment", "by", "process"), [
    ({}, None, None),
    ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, None, None),  # sbatch -n 2
    ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1",
      "SLURM_STEP_NODELIST": "a"}, None, None),  # salloc -n 2, and submitit's trials of one task
    ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, "srun", 1),
    ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"}, "mpirun", 3),
    ({"JAX_NUM_PROCESSES": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}, None, None),
    ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0", "JAX_COORDINATOR_ADDRESS": "a:1"},
     "JAX_NUM_PROCESSES", 0),
    ({"TPU_WORKER_HOSTNAMES": "localhost"}, None, None),
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, "the TPU pod", None),
    ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "0"}, "the TPU pod", 0),
    ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}, "the TPU pod", 1),
    ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "0", "MEGASCALE_NUM_SLICES": "2",
      "MEGASCALE_SLICE_ID": "1"}, "the TPU pod", 2),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None, None)])
def test_processes_are_peers_only_where_they_were_started_together(environment, by, process):
    found = launches.find_launch(environment)
    assert (found and found.by, found and found.process) == (by, process)


@pytest.mark.parametrize(("environment", "named"), [
    ({"JAX_NUM_PROCESSES": "2"}, "JAX_PROCESS_ID is ''"),
    ({"JAX_PROCESS_ID": "2"}, "JAX_NUM_PROCESSES is ''"),
    ({"JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "0"}, "JAX_NUM_PROCESSES is 'two'"),
    ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"}, "numbered from 0 to 1"),
    ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, "JAX_COORDINATOR_ADDRESS is ''"),
    ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0", "JAX_COORDINATOR_ADDRESS": "node1"},
     "node1:29500"),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, "jax[k8s]")])
def test_a_variable_that_is_missing_or_wrong_is_named(environment, named, monkeypatch):
    monkeypatch.setattr(launches.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=named.replace("[", r"\[")):
        launches.find_launch(environment)


@pytest.mark.parametrize(("environment", "ids"), [
    ({"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_NODEID": "1", "SLURM_LOCALID": "0",
      "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [0, 1, 2, 3]),  # a task a node has all of its GPUs
    ({"SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_NODEID": "1", "SLURM_LOCALID": "3",
      "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [3]),  # a task a GPU
    ({"SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_NODEID": "0", "SLURM_LOCALID": "1",
      "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [2, 3]),
    ({"SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_NODEID": "0", "SLURM_LOCALID": "3",
      "SLURM_GPUS_ON_NODE": "4", "CUDA_VISIBLE_DEVICES": "0"}, [0]),  # --gpus-per-task=1
    ({"SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "SLURM_NODEID": "2", "SLURM_LOCALID": "0",
      "CUDA_VISIBLE_DEVICES": "0,1"}, [0, 1])])
def test_the_gpus_of_a_node_are_divided_among_its_tasks(environment, ids, monkeypatch):
    monkeypatch.setattr(launches, "Path", Dev("nvidia0"))
    assert launches._local_devices(environment) == {"local_device_ids": ids}


@pytest.mark.parametrize(("process", "whom"), [(0, "the others"), (1, "process 0")])
def test_a_process_that_waits_for_another_says_so(process, whom, monkeypatch, capsys):
    monkeypatch.setattr(hosts, "_SILENCE", 0.01)
    monkeypatch.setattr(hosts.jax.config, "update", lambda *_: None)
    monkeypatch.setattr(hosts.jax.distributed, "initialize", lambda **_: time.sleep(0.3))
    hosts.join(launches.Launch("srun", process, {"coordinator_address": "a:1"}), False)
    assert capsys.readouterr().err.startswith(
        f"launch.py: Process {process}, started by srun, waits for {whom} (coordinator: a:1), for "
        "at most 300 s.")


def test_a_failure_of_one_of_several_is_its_message_alone(monkeypatch, capsys):
    codes = []
    monkeypatch.setattr(hosts, "several", lambda: True)
    monkeypatch.setattr(hosts, "leave", codes.append)
    with hosts.or_all_end():
        raise Failure("Worker process 7 of the loader was killed.")
    assert codes == [1]
    said = capsys.readouterr().err
    assert said == "launch.py: process 0 of 1: Worker process 7 of the loader was killed.\n"


def test_processes_that_do_not_agree_are_told_on_what_and_who_has_what(monkeypatch):
    had = [{"a": 1, "b": [2, 3]}, {"a": 1, "b": [2]}, {"a": 1, "b": [2, 3], "c": "x"}]
    monkeypatch.setattr(hosts, "gather", lambda mine: had if mine in had else ["1", "2", "1"])
    with pytest.raises(UserError, match="do not agree") as caught:
        hosts.agree(had[1])
    assert [line for line in str(caught.value).splitlines() if line.startswith(" ")] == [
        "  b: [2, 3] in process 0, 2; [2] in process 1",
        "  c: nothing in process 0, 1; 'x' in process 2"]
    monkeypatch.setattr(hosts, "gather", lambda mine: [mine] * 3)
    hosts.agree(had[1])


@pytest.mark.slow
@pytest.mark.parametrize(("words", "said"), [
    (["--config.schedule.lr=0.5"], "schedule.lr: 0.1 in process 0; 0.5 in process 1"),
    (["--config.seed=5"], "seed: 0 in process 0; 5 in process 1"),
    (["--config.train.steps=8"], "train.steps: 4 in process 0; 8 in process 1"),
    (["--config.model.dropout_rate=0.5"], "model.dropout_rate: nothing in process 0; 0.5"),
    (["--job=evaluate"], "--job: 'train' in process 0; 'evaluate' in process 1")])
def test_processes_of_different_commands_end_before_the_first_step(words, said, root, tmp_path):
    codes, out, errors = Processes(tmp_path / "run", root, last=words).end()
    assert codes == [2, 2] and all(said in e and "Traceback" not in e for e in errors), errors
    assert not any("step 1/" in text for text in out) and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_processes_that_read_different_files_behind_one_path_end_before_the_first_step(
        root, tmp_path):
    for home in ("first", "last"):
        (tmp_path / home).mkdir()
        images = np.full((96, 8, 8), len(home), np.uint8)
        np.savez(tmp_path / home / "d.npz", x_train=images, y_train=np.arange(96) % 2,
                 x_test=images, y_test=np.arange(96) % 2)
    words = ["--config.data.name=npz:~/d.npz", "--config.data.mean=(0.5,)",
             "--config.data.std=(0.5,)"]
    codes, out, errors = Processes(tmp_path / "run", root, *words, HOME=str(tmp_path / "first"),
                                   home=tmp_path / "last").end()
    assert codes == [2, 2] and all("data.fingerprint: " in e for e in errors), errors
    assert not any("step 1/" in text for text in out)


@pytest.mark.slow
def test_hosts_may_have_paths_and_processors_of_their_own(root, tmp_path):
    train(tmp_path / "run", root, last=[
        "--config.data.data_dir=/of/the/last", "--config.data.threads=2",
        "--config.log.progress=none"])


@pytest.mark.slow
def test_two_processes_train_as_one_does(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    assert main([*RUN, f"--workdir={tmp_path / 'one'}"]) == 0
    one = [r["train_loss"] for r in read_metrics(tmp_path / "one")]
    found, losses = train(tmp_path / "two", root)
    assert losses == pytest.approx(one, rel=2e-4)
    assert found["examples_evaluated"] == 360
    assert found["top1"] == pytest.approx(summary(tmp_path / "one")["top1"], abs=2 / 360)


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    """An uninterrupted run of two processes, with all that draws and remembers."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder, root, *LONG)
    return folder


@pytest.mark.slow
def test_two_processes_end_with_the_bits_of_one_with_two_devices(whole, root, tmp_path):
    one, losses = train(tmp_path / "run", root, *LONG, count=1, devices=2)
    assert [r["train_loss"] for r in read_metrics(whole) if "train_loss" in r] == losses
    for key in ("params_sha256", "state_sha256", "top1", "examples_evaluated"):
        assert one[key] == summary(whole)[key]


@pytest.mark.slow
@pytest.mark.parametrize("count, devices", [(1, 1), (1, 4), (2, 2), (4, 1)])
def test_streamed_slices_make_the_same_batches_in_any_division(count, devices, root, tmp_path):
    words = ["--config.data.placement=stream", "--config.train.steps=12"]
    found, losses = train(tmp_path / "run", root, *words, count=count, devices=devices)
    _, one = train(tmp_path / "one", root, "--config.train.steps=12", count=1)
    assert losses == pytest.approx(one, rel=2e-4) and found["examples_evaluated"] == 360


@pytest.mark.slow
@pytest.mark.parametrize(("number", "to"), [(signal.SIGTERM, (1,)), (signal.SIGUSR1, (0,)),
                                            (signal.SIGTERM, (0, 1)), (signal.SIGINT, (1,)),
                                            (signal.SIGHUP, (0,))])
def test_a_signal_at_one_stops_all_at_one_step_and_the_end_is_the_same(number, to, whole, root,
                                                                      tmp_path):
    folder = tmp_path / "run"
    running = Processes(folder, root, *LONG)
    running.wait_for("step 40/")
    for i in to:
        running.all[i].send_signal(number)
    codes, said, errors = running.end()
    assert codes == [75, 75], errors
    assert "Stopped and saved at step" in said[0] and not said[1]
    assert not (folder / "summary.json").exists()
    found, _ = train(folder, root, *LONG)
    assert found["state_sha256"] == summary(whole)["state_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("first, then", [(dict(count=2), dict(count=1, devices=1)),
                                         (dict(count=1, devices=8), dict(count=2)),
                                         (dict(count=2, devices=2), dict(count=2))])
def test_a_checkpoint_of_any_division_goes_on_in_any_other(first, then, root, tmp_path):
    words = ["--config.train.steps=12"]
    _, losses = train(tmp_path / "whole", root, *words, count=1)
    folder = tmp_path / "run"
    train(folder, root, *words, "--config.train.stop_after_steps=6", **first)
    _, found = train(folder, root, *words, **then)
    assert found == pytest.approx(losses, rel=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("dead", [0, 1])
def test_the_others_end_with_a_message_when_one_is_killed(dead, root, tmp_path):
    running = Processes(tmp_path / "run", root, *LONG)
    running.wait_for("step 60/")
    running.all[dead].kill()
    began = time.monotonic()
    codes, _, errors = running.end()
    assert time.monotonic() - began < 20
    assert codes[1 - dead] == 1 and "another process has died or failed" in errors[1 - dead]
    assert "Traceback" not in errors[1 - dead]


@pytest.mark.slow
@pytest.mark.parametrize("alone", [0, 1])
def test_a_process_that_finds_no_other_says_so_and_ends(alone, root, tmp_path):
    codes, _, errors = Processes(tmp_path / "run", root, start=[alone],
                                 **{hosts.PATIENCE: "3"}).end()
    assert codes == [1] and "did not find the others within 3 s" in errors[0]
    assert "Traceback" not in errors[0] and "Check failure" not in errors[0]


@pytest.mark.slow
@pytest.mark.parametrize(("words", "code", "message"), [
    (DIVERGING, 1, "not finite"),
    (["--config.data.name=folder:nowhere"], 2, "nowhere"),
    (["--config.devices=1"], 2, "--config.devices=0")])
def test_what_ends_one_ends_all_with_its_code(words, code, message, root, tmp_path):
    codes, _, errors = Processes(tmp_path / "run", root, *words).end()
    assert codes == [code, code] and message in errors[0], errors


@pytest.mark.slow
def test_two_processes_roll_back_to_the_same_checkpoint(root, tmp_path):
    folder = tmp_path / "run"
    codes, _, errors = Processes(folder, root, *DIVERGING, *ROLLING_BACK).end()
    assert codes == [0, 0], errors
    assert 0 < summary(folder)["rollbacks"] <= 9 and summary(folder)["steps"] == 20
    assert list((folder / "checkpoints").glob("diverged-*"))


@pytest.mark.slow
def test_a_signal_to_an_evaluation_of_two_processes_ends_it(whole, root):
    processes = Processes(whole, root, "--job=evaluate", **{hosts.PATIENCE: "20"})
    first, second = processes.all
    time.sleep(2)
    first.send_signal(signal.SIGSTOP)  # Now the second waits for it.
    time.sleep(4)
    second.send_signal(signal.SIGTERM)
    assert second.wait(timeout=10) == 75
    first.send_signal(signal.SIGCONT)
    codes, _, errors = processes.end(timeout=90)
    # Who finds the other gone first, we or JAX, which aborts, is for the clock to say.
    assert codes[0] in (1, -signal.SIGABRT) and codes[1] == 75, errors
    assert "Traceback" not in errors[0] + errors[1]


@pytest.mark.slow
def test_a_workdir_that_the_hosts_do_not_share_is_an_error(root, tmp_path):
    codes, _, errors = Processes([tmp_path / "a", tmp_path / "b"], root).end()
    assert codes == [2, 2] and all("not the same folder on all hosts" in e for e in errors), errors


@pytest.mark.slow
def test_two_processes_evaluate_each_example_once(whole, root):
    codes, said, errors = Processes(whole, root, "--job=evaluate").end()
    assert codes == [0, 0], errors
    assert "360" in said[0] and f"{summary(whole)['top1']:.4%}" in said[0] and not said[1]


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--job=summarize"], ["--job=summarize", "--models=lenet*"]])
def test_only_the_first_of_several_does_a_job_for_one(words, whole, root, tmp_path):
    codes, said, errors = Processes(whole, root, *words).end()
    assert codes == [0, 0], errors
    assert "head" in said[0] or "lenet5" in said[0]
    assert not said[1]


@pytest.mark.slow
def test_processes_of_different_numbers_of_devices_end_with_a_message(root, tmp_path):
    codes, _, errors = Processes(tmp_path / "run", root, devices=[1, 2]).end()
    assert codes == [2, 2] and all("1 in process 0, 2 in process 1" in e for e in errors), errors


@pytest.mark.slow
def test_what_takes_one_process_is_said_before_an_evaluation_by_two(whole, root):
    codes, said, errors = Processes(whole, root, "--job=evaluate", "--dry_run",
                                    "--config.eval.corruptions=('fog',)").end()
    assert codes == [2, 2] and "takes one process" in errors[0], errors


@pytest.mark.slow
def test_that_no_checkpoint_is_whole_ends_both_with_a_message(whole, root, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    for file in folder.glob("checkpoints/*/state/**/*"):
        if file.is_file():
            os.truncate(file, min(3, file.stat().st_size))
    (folder / "summary.json").unlink()
    codes, _, errors = Processes(folder, root).end()
    assert codes == [2, 2] and "is damaged" in errors[0] and "no checkpoint in" in errors[1], errors
