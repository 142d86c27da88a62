"""Whether a run that goes on and on grows: memory, open files and threads, by the hour.

    python -m benchmarks.soak                 one run of 30 minutes
    python -m benchmarks.soak --runs=100      small runs one after the other in one process

The long run streams augmented images through threads, evaluates every 100 steps, saves every 50 and
logs every 10, so that half an hour holds what weeks of training do. It is watched from outside,
through /proc (Linux). The slope is that of a least-squares line through what was seen after the
first tenth of the time, in which caches fill; its 95 % interval takes neighbouring measurements for
independent, which is generous to small slopes, so the means of ten blocks of time are what the line
goes through.
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

ROOT = Path(__file__).resolve().parents[1]
RUN = ("--config=experiments/simple_cnn.py", "--config.model.widths=(8, 16)",
       "--config.model.dropout_rate=0.1", "--config.augment.pad_crop=1",
       "--config.augment.mixup=0.2", "--config.train.ema_decay=0.9",
       "--config.data.placement=stream", "--config.data.threads=2", "--config.log.plot=False")
LONG = ("--config.train.steps=100000000", "--config.eval.every_steps=100",
        "--config.checkpoint.every_steps=50", "--config.log.every_steps=10")
SHORT = ("--config.train.steps=40", "--config.eval.every_steps=20", "--config.log.every_steps=5",
         "--config.log.progress=none")
_T = 2.306  # Student's t for 95 % with 8 degrees of freedom: ten blocks, two parameters.


def measure(pid: int | str) -> tuple[float, int, int]:
    """Returns resident memory in MB, open files, and threads of a process."""
    status = dict(line.split(":\t", 1) for line in
                  Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return (int(status["VmRSS"].split()[0]) / 1000, len(os.listdir(f"/proc/{pid}/fd")),
            int(status["Threads"]))


def slope(times: list[float], values: list[float]) -> tuple[float, float]:
    """Returns the slope of the line through ten block means, and half its 95 % interval."""
    size = len(times) // 10
    x, y = ([statistics.fmean(a[i * size:(i + 1) * size]) for i in range(10)]
            for a in (times, values))
    fit = statistics.linear_regression(x, y)
    spread = sum((a - statistics.fmean(x)) ** 2 for a in x)
    rest = sum((b - fit.intercept - fit.slope * a) ** 2 for a, b in zip(x, y, strict=True))
    return fit.slope, _T * (rest / 8 / spread) ** 0.5


def report(samples: list[tuple[float, float, int, int]], unit: str, per: float) -> None:
    """Prints a table of first, last and slope, without the first tenth of the samples."""
    kept = samples[len(samples) // 10:]
    times = [s[0] for s in kept]
    print(f"| what | first | last | slope a {unit} (95 %) |\n|---|---|---|---|")
    for column, name in enumerate(("resident memory, MB", "open files", "threads"), 1):
        values = [float(s[column]) for s in kept]
        found, half = slope(times, values)
        print(f"| {name} | {values[0]:.1f} | {values[-1]:.1f} | {per * found:+.2f} "
              f"± {per * half:.2f} |", flush=True)


def long_run(minutes: float, folder: Path) -> None:
    """Watches one run."""
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen([sys.executable, "launch.py", *RUN, *LONG,
                                    f"--workdir={folder / 'run'}"], cwd=ROOT, stdout=output,
                                   stderr=subprocess.STDOUT,
                                   env=os.environ | {"PYTHONUNBUFFERED": "1"})
    while "\nstep " not in log.read_text():
        if process.poll() is not None:
            raise SystemExit(log.read_text())
        time.sleep(1)
    began, samples = time.monotonic(), []
    while (now := time.monotonic() - began) < 60 * minutes:
        if process.poll() is not None:
            raise SystemExit(log.read_text()[-2000:])
        samples.append((now, *measure(process.pid)))
        time.sleep(2)
    process.send_signal(signal.SIGTERM)
    code, last = process.wait(), log.read_text().rstrip().splitlines()[-1]
    print(f"{minutes:g} minutes, {len(samples)} measurements; exit code {code}: {last}")
    report(samples, "hour", 3600)


def many_runs(runs: int, folder: Path) -> None:
    """Runs in this process, measured after each."""
    import gc

    import jax

    from cnnjax.command_line import main as launch

    os.chdir(ROOT)
    samples = []
    for number in range(runs):
        if code := launch(["launch.py", *RUN, *SHORT, f"--workdir={folder / str(number)}"]):
            raise SystemExit(code)
        # Compiled functions stay in JAX's caches on purpose; here they would hide the rest.
        jax.clear_caches()
        gc.collect()
        samples.append((float(number), *measure("self")))
    print(f"{runs} runs in one process, JAX's caches cleared after each")
    report(samples, "run", 1)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--runs", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.runs:
            many_runs(arguments.runs, Path(folder))
        else:
            long_run(arguments.minutes, Path(folder))


if __name__ == "__main__":
    main()
