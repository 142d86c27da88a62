"""kill -9 at random moments, until the runs end: is the end that of a run that nobody killed?

    python -m benchmarks.faults --kills=200

Two architectures take turns: a small CNN with batch norm, dropout, mixup, random crops, averaged
weights and data streamed by two threads; and LeNet-5 with Adam and the data on the device. A run is
started and killed, at a moment drawn from the whole time that an uninterrupted one takes (imports,
compilation, steps, checkpoints, the summary), and started again, until it ends; then the digests of
its parameters and of its whole state, and the lines of its metrics, are compared.
"""

from __future__ import annotations

import collections
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from cnnjax.train.writers import TIMING_FIELDS, read_metrics

ROOT = Path(__file__).resolve().parents[1]
RHYTHM = ("--config.log.every_steps=7", "--config.eval.every_steps=50",
          "--config.checkpoint.every_steps=10", "--config.train.steps=150",
          "--config.log.plot=False", "--config.log.progress=plain")
RUNS = {
    "simple_cnn": (
        "--config=experiments/simple_cnn.py", "--config.model.widths=(8, 16)",
        "--config.model.dropout_rate=0.1", "--config.augment.pad_crop=1",
        "--config.augment.mixup=0.2", "--config.train.ema_decay=0.9",
        "--config.data.placement=stream", "--config.data.threads=2", *RHYTHM),
    "lenet5": ("--config=experiments/lenet5.py", "--config.optimizer.name=adam",
               "--config.schedule.lr=0.002", *RHYTHM),
}


def start(name: str, folder: Path, cache: Path, *more: str) -> subprocess.Popen:
    """Starts a run, its output going to a file beside its folder."""
    with folder.with_suffix(".log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "launch.py", *RUNS[name], f"--workdir={folder}", *more], cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1",
                              "JAX_COMPILATION_CACHE_DIR": str(cache)}, stdout=log, stderr=log)


def outcome(folder: Path) -> dict:
    """Returns what must be equal: digests, accuracy and the lines of the metrics."""
    summary = json.loads((folder / "summary.json").read_text())
    return {key: summary[key] for key in ("params_sha256", "state_sha256", "top1")} | {
        "lines": [{k: v for k, v in record.items() if k not in TIMING_FIELDS}
                  for record in read_metrics(folder)]}


def phase_at_kill(log: Path, offset: int) -> str:
    """Returns what a process was doing when it was killed, as far as its output says."""
    said = log.read_text()[offset:]
    if "Summary" in said:
        return "after the summary"
    return "training" if "\nstep " in said else ("compiling" if "workdir" in said else "starting")


def run_kills(kills: int, folder: Path, seed: int = 0) -> bool:
    """Kills until there were so many kills and the last runs have ended; prints, and compares."""
    clock, cache = random.Random(seed), folder / "cache"
    whole, seconds = {}, {}
    for name in RUNS:
        for _ in range(2):  # The second has a warm cache.
            shutil.rmtree(folder / name, ignore_errors=True)
            began = time.perf_counter()
            if start(name, folder / name, cache).wait():
                raise SystemExit((folder / f"{name}.log").read_text())
            seconds[name] = time.perf_counter() - began
        whole[name] = outcome(folder / name)
        print(f"{name}, not killed: {seconds[name]:.1f} s, "
              f"params {whole[name]['params_sha256'][:12]}", flush=True)
    done, runs, equal, phases = 0, 0, 0, collections.Counter()
    while done < kills:
        name = list(RUNS)[runs % len(RUNS)]
        run, own = folder / f"killed-{name}", 0
        shutil.rmtree(run, ignore_errors=True)
        run.with_suffix(".log").unlink(missing_ok=True)
        while True:
            log = run.with_suffix(".log")
            offset = log.stat().st_size if log.exists() else 0
            process = start(name, run, cache)
            try:
                if code := process.wait(timeout=clock.uniform(0, 1.05 * seconds[name])):
                    raise SystemExit(f"exit code {code}:\n{log.read_text()[offset:]}")
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                own, done = own + 1, done + 1
                phases[phase_at_kill(log, offset)] += 1
        runs, same = runs + 1, outcome(run) == whole[name]
        equal += same
        print(f"{name}: {own} kills, then {'equal' if same else 'DIFFERENT'} "
              f"({done} kills so far, {equal} of {runs} runs equal)", flush=True)
        if not same:
            shutil.copytree(run, folder / f"different-{runs}")
    print(f"\n{done} kills in {runs} runs ({', '.join(f'{v} {k}' for k, v in phases.items())}): "
          f"{equal} of {runs} ended with the same parameters, state and metrics as the run that "
          "was not killed.", flush=True)
    return equal == runs
