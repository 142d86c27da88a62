"""--job=benchmark: what it measures is the run's own, and it leaves a run's files alone."""

import concurrent.futures
import itertools
import json
import os
import subprocess
import sys
import time

import jax
import pytest

from cnnjax.command_line import main
from cnnjax.jobs import backend, benchmark
from cnnjax.train import loop

RUN = ["launch.py", "--config=experiments/simple_cnn.py", "--config.model.widths=(4,8)",
       "--config.train.batch_size=48", "--config.train.steps=6", "--config.data.image_size=8",
       "--config.log.tensorboard=False", "--config.log.plot=False", "--config.log.progress=none",
       "--config.benchmark.rounds=2", "--config.benchmark.seconds=0.01"]


def benchmarked(folder, *overrides):
    assert main([*RUN, "--job=benchmark", f"--workdir={folder}", *overrides]) == 0
    return json.loads((folder / "benchmark.json").read_text())


def test_it_times_step_input_and_loop_and_counts_operations(tmp_path, capsys):
    found = benchmarked(tmp_path / "run")
    assert set(found["times"]) == {"step", "host", "loop"}  # The digits lie on the device.
    for times in found["times"].values():
        assert 0 < times["ms_least"] <= times["ms"] <= times["ms_most"]
        assert times["images_per_second"] == pytest.approx(48e3 / times["ms"])
    assert found["bottleneck"] == "step" and found["faster_over_slower"] < 1
    assert found["model_flops_per_step"] == 6 * 48 * found["multiply_adds_per_image"]
    assert found["xla_per_device"]["flops_per_step"] > 0
    assert found["xla_per_device"]["temp_bytes"] > 0
    assert found["config"]["train"]["batch_size"] == found["batch_size"] == 48
    assert found["precision"] == "float32" and found["versions"]["jax"] == jax.__version__
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["benchmark.json"]
    printed = capsys.readouterr().out
    assert "images/s" in printed and "bottleneck" in printed and "without a cache" in printed
    row = benchmark.rows(found | {"device_peak_bytes": 3 * 2**20})["memory"]
    assert "at the peak of the benchmark, which has the state twice" in row


def test_a_call_takes_as_long_as_the_device_though_the_host_is_far_ahead_of_it(monkeypatch):
    never = loop.Every((), sys.maxsize)
    monkeypatch.setattr(jax, "block_until_ready",
                        lambda x: x.result() if isinstance(x, concurrent.futures.Future) else x)
    with concurrent.futures.ThreadPoolExecutor(1) as device:
        seconds = benchmark._fit(
            lambda state, *_: (state, device.submit(time.sleep, 0.005)), None, {},
            itertools.repeat((1, None), benchmark.WARM_UP + 5),
            loop.Schedule(never, never, never, stop=sys.maxsize), batch_size=1)
    assert seconds > 0.6 * 5 * 0.005


@pytest.mark.slow
def test_a_streamed_input_is_timed_on_the_host_and_onto_the_device(tmp_path):
    found = benchmarked(tmp_path / "run", "--config.data.placement=stream",
                        "--config.train.steps_per_call=2")
    assert set(found["times"]) == set(benchmark.SIDES)
    assert found["steps_per_call"] == 2


@pytest.mark.slow
def test_a_run_in_the_folder_stays_as_it_is_and_goes_on(tmp_path):
    folder = tmp_path / "run"
    assert main([*RUN, f"--workdir={folder}", "--config.train.stop_after_steps=3"]) == 0

    def files():
        return {path: path.read_bytes() for path in folder.rglob("*")
                if path.is_file() and path.name != "benchmark.json"}

    before = files()
    benchmarked(folder, "--config.train.batch_size=32")
    assert main(["launch.py", "--job=benchmark", f"--workdir={folder}"]) == 0
    assert files() == before
    assert main([*RUN, f"--workdir={folder}"]) == 0


@pytest.mark.slow
def test_phases_of_features_and_of_growing_images_are_timed_in_their_last_part(tmp_path):
    found = benchmarked(tmp_path / "head", "--config.weights.path=random",
                        "--config.head.epochs=1", "--config.train.steps=None",
                        "--config.train.epochs=0")
    assert found["model_flops_per_step"] is None  # Only the head trains.
    found = benchmarked(tmp_path / "sizes", "--config.train.progressive=((0,8),(50,12))")
    assert found["image_size"] == [12, 12] and found["model_flops_per_step"] > 0


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    assert main([*RUN, "--job=benchmark", "--dry_run", f"--workdir={tmp_path}/run"]) == 0
    assert "Would time the step of simple_cnn" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("override,message", [
    ("--config.benchmark.rounds=0", "benchmark.rounds"),
    ("--config.benchmark.seconds=-1.0", "benchmark.seconds"),
    ("--config.schedule.lr=1e6", "not finite")])
def test_what_cannot_be_timed_is_one_message(override, message, tmp_path, capsys):
    assert main([*RUN, "--job=benchmark", f"--workdir={tmp_path}/run", override,
                 "--config.model.batch_norm=False", "--config.log.every_steps=1",
                 "--config.log.every_percent=None"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_eight_devices_are_timed_with_batches_put_onto_all(tmp_path, root):
    done = subprocess.run(
        [sys.executable, *RUN, "--job=benchmark", f"--workdir={tmp_path}"], cwd=root, text=True,
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
        capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "benchmark.json").read_text())
    assert found["devices"] == "8 x cpu" and set(found["times"]) == set(benchmark.SIDES)


def test_compilation_without_a_cache_reads_and_writes_none(tmp_path, monkeypatch):
    before = {name: getattr(jax.config, name) for name in (
        "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes")}
    try:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        with backend.without_compilation_cache():
            jax.jit(lambda x: x * 3 + 1).lower(1.0).compile()
        assert not list(tmp_path.iterdir())
        jax.jit(lambda x: x * 3 + 2).lower(1.0).compile()
        assert list(tmp_path.iterdir())
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
