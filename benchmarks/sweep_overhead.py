"""What a sweep costs besides its trials: python -m benchmarks.sweep_overhead

Dry trials, which do nothing (`true`), through the executor of --job=sweep on this machine: the
seconds that each takes beyond its own, for sweeps of several sizes, and the CPU seconds of all the
processes of the sweep, which depend less on what else the machine does. Then trials that train for
one step, and what of their time is the sweep's, the start of a process, and the run's own. Prints
Markdown.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from cnnjax.jobs.sweeping import trial
from cnnjax.jobs.sweeping.engine import Engine, Run
from cnnjax.jobs.sweeping.local import Local
from cnnjax.sweeps import Trial

ROOT = Path(__file__).resolve().parents[1]
TINY = ("--config=experiments/simple_cnn.py", "--config.model.widths=(4,)",
        "--config.train.steps=1", "--config.log.plot=False", "--config.log.tensorboard=False")


def measure(command, count, at_a_time):
    """Runs a sweep; returns its wall and CPU seconds, and those of its trials and their steps."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        runs = [Run(Trial(f"trial_{i}"), 0, folder / f"trial_{i}" / "seed_0",
                    (*command, *((f"--workdir={folder}/trial_{i}/seed_0",) if count and
                                 command[0] == sys.executable else ()))) for i in range(count)]
        began, cpu = time.perf_counter(), cpu_seconds()
        Engine(Local(folder, at_a_time, count), ROOT).run(runs)
        wall, cpu = time.perf_counter() - began, cpu_seconds() - cpu
        states = [trial.read(run.folder) for run in runs]
        assert all(state["state"] == "done" for state in states), states
        inner = [json.loads((run.folder / "summary.json").read_text())["seconds"]
                 for run in runs if (run.folder / "summary.json").exists()]
    return wall, cpu, [state["seconds"] for state in states], inner


def cpu_seconds():
    """Returns those of this process and of its children that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF,
                                                            resource.RUSAGE_CHILDREN))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--at_a_time", type=int, default=2)
    parser.add_argument("--real", type=int, default=4, help="trials that train for one step")
    options = parser.parse_args()
    print(f"Dry trials, {options.at_a_time} at a time:\n")
    print("| trials | seconds | seconds a trial beyond its own | CPU seconds a trial |\n"
          "|---|---|---|---|")
    for count in options.counts:
        wall, cpu, own, _ = measure(("true",), count, options.at_a_time)
        # With n at a time each of n processes has the whole wall time for its share.
        each = wall * options.at_a_time / count - sum(own) / count
        print(f"| {count:,} | {wall:.1f} | {each:.2f} | {cpu / count:.2f} |", flush=True)
    if not options.real:
        return
    wall, _, own, inner = measure((sys.executable, "launch.py", *TINY), options.real, 1)
    n = options.real
    print(f"\n{n} trials of one training step, one at a time, seconds a trial:\n")
    print("| the sweep's | process, imports, building the model | step, evaluation, checkpoint |"
          "\n|---|---|---|")
    print(f"| {(wall - sum(own)) / n:.2f} | {(sum(own) - sum(inner)) / n:.2f} | "
          f"{sum(inner) / n:.2f} |")


if __name__ == "__main__":
    main()
