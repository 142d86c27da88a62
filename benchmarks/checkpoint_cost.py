"""What not losing a run costs: waiting for checkpoints, ending on a signal, and starting again.

    python -m benchmarks.checkpoint_cost --config=experiments/resnet50.py

With the embedded digits, and a warm compilation cache. "waiting"
is how long the training thread stands in `Checkpoints.save`, the first save of a process (which
starts threads) apart, and its share of an epoch with one save. "SIGTERM to exit" is from the
signal, sent amid training, to the end of the process: the rest of the step, and the save.
"restart to first step" is from the start of the same command to the line of its first step.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cnnjax import exit_codes

ROOT = Path(__file__).resolve().parents[1]


def waiting(config: str, folder: Path, steps: int) -> None:
    """Prints how long the training thread waits for saves, a save every quarter of the steps."""
    from cnnjax.checkpoint import Checkpoints
    from cnnjax.command_line import main as launch
    from cnnjax.train.writers import read_metrics

    times, save = [], Checkpoints.save

    def timed(self, *arguments):
        began = time.perf_counter()
        save(self, *arguments)
        times.append(time.perf_counter() - began)

    Checkpoints.save = timed
    code = launch(["launch.py", f"--config={config}", f"--workdir={folder}",
                   f"--config.train.steps={steps}", "--config.log.every_steps=1",
                   f"--config.checkpoint.every_steps={max(1, steps // 4)}",
                   "--config.eval.every_steps=1000000", "--config.log.progress=none",
                   "--config.log.plot=False"])
    Checkpoints.save = save
    if code:
        raise SystemExit(code)
    records = read_metrics(folder)[1:]
    from cnnjax.jobs import workdir

    batch = workdir.load_config(folder).train.batch_size
    step = batch / statistics.median(r["images_per_second"] for r in records
                                     if "images_per_second" in r)
    one, epoch = statistics.median(times[1:]), 1437 / batch * step
    size = sum(p.stat().st_size for p in (folder / "checkpoints" / str(steps)).rglob("*")
               if p.is_file())
    print(f"| checkpoint | {size / 1e6:.1f} MB |")
    print(f"| waiting, a save (median of {len(times) - 1}) | {one * 1e3:.1f} ms |")
    print(f"| of an epoch of the digits ({epoch:.1f} s) with one save | "
          f"{one / (one + epoch):.2%} |", flush=True)


def stopping(config: str, folder: Path, rounds: int) -> None:
    """Prints the time from SIGTERM to the end, and from the start to the first step."""
    command = [sys.executable, "launch.py", f"--config={config}", f"--workdir={folder}",
               "--config.log.every_steps=1", "--config.log.progress=plain",
               "--config.eval.every_steps=1000000"]
    ends, starts = [], []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True,
                              env=os.environ | {"PYTHONUNBUFFERED": "1"}) as process:
            seen = 0
            for line in process.stdout:
                seen += line.startswith("step ")
                if seen == 1 and line.startswith("step "):
                    starts.append(time.perf_counter() - began)
                if seen == 3:
                    break
            began = time.perf_counter()
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
        if process.returncode != exit_codes.PREEMPTED:
            raise SystemExit(f"exit code {process.returncode}")
        ends.append(time.perf_counter() - began)
    for name, times in (("SIGTERM to exit", ends[1:]), ("restart to first step", starts[1:])):
        print(f"| {name} (median of {rounds}) | {statistics.median(times):.2f} s "
              f"({min(times):.2f} to {max(times):.2f}) |", flush=True)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="experiments/resnet50.py")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{folder}/cache")
        print(f"| {arguments.config} | |\n|---|---|")
        stopping(arguments.config, Path(folder) / "stopped", arguments.rounds)
        waiting(arguments.config, Path(folder) / "run", arguments.steps)


if __name__ == "__main__":
    main()
