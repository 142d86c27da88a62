"""What the training loop costs over its bare jitted step.

    python -m benchmarks.loop_overhead

Both sides run the same compiled step in one process. "bare" calls it on one batch that lies on the
device. "loop" is `train.loop.fit` with everything on: batches from the feed, metrics.jsonl,
TensorBoard events, a line printed for every log, and an asynchronous checkpoint at the end of every
epoch, unless `--without_checkpoints`. Evaluation is work of its own and is off.

The speed of a shared machine changes within seconds by more than the overhead. So the loop is
halted every few dozen steps, until what it has begun is done, its checkpoint too, and as many bare
steps are run there: the two sides of a ratio are sums of pieces that lie side by side. Halting
costs the loop what it would have done meanwhile, a checkpoint above all; that counts against it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from cnnjax import config as config_lib
from cnnjax.checkpoint import Checkpoints
from cnnjax.jobs import backend, console
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.evaluation import make_inputs
from cnnjax.jobs.new_state import new_state
from cnnjax.jobs.record import describe
from cnnjax.train import loop
from cnnjax.train import step as step_lib
from cnnjax.train.writers import MetricsWriter
from cnnjax.validation import validate

# Model, image size, steps a round, steps between checkpoints (an epoch of MNIST, and of CIFAR-10),
# steps a piece.
CASES = {"lenet5": (28, 938, 469, 67), "resnet18": (32, 391, 391, 23)}
CLOCKS = {"wall clock": time.perf_counter, "processor time": time.process_time}


def make_experiment(model: str, size: int, steps: int, epoch: int):
    """Returns the experiment on the embedded digits at batch 128."""
    config = config_lib.default()
    config.model.name, config.data.image_size = model, size
    config.train.batch_size, config.train.steps = 128, steps
    config.log.every_percent, config.eval.every_epochs = 2.0, None
    config.checkpoint.every_steps = epoch
    validate(config)
    return experiment_lib.build(config)


class Sides:
    """The seconds of both sides so far, by each of `CLOCKS`."""

    def __init__(self):
        self.bare, self.loop = np.zeros(len(CLOCKS)), np.zeros(len(CLOCKS))
        self._since = None

    def lap(self, side: np.ndarray | None) -> None:
        """Adds the time since the last lap to a side, unless that is None."""
        now = np.array([clock() for clock in CLOCKS.values()])
        if side is not None:
            side += now - self._since
        self._since = now


def alternate(call, states, inputs, experiment, folder: Path, steps: int, piece: int,
              saves: bool) -> Sides:
    """Runs so many steps by the loop, as many bare ones in between, and returns their seconds.

    Args:
      call: the compiled step.
      states: of the loop and of the bare steps, at step 0.
      inputs: of the phase that is trained.
      experiment: what is trained.
      folder: for what the loop writes.
      steps: of each side.
      piece: how many at a time.
      saves: whether there are checkpoints.
    """
    config, sides = experiment.config, Sides()
    checkpoints, record = Checkpoints(folder), describe(experiment)
    writer = MetricsWriter(folder, 0)
    state, bare_state = states
    _, batch = next(iter(inputs.feed.batches(0, 1)))
    latest = None

    def followed(state, constants, batch):
        nonlocal latest
        state, latest = call(state, constants, batch)
        return state, latest

    def halt(step):
        nonlocal bare_state
        display.step(step)
        if step % piece:
            return
        jax.block_until_ready(latest)
        checkpoints.wait()
        sides.lap(sides.loop)
        for _ in range(piece):
            bare_state, losses = call(bare_state, inputs.constants, batch)
        jax.block_until_ready(losses)
        sides.lap(sides.bare)

    def save(step, state, values):
        if saves:
            checkpoints.save(step, state, record | {"metrics": values})

    def on_record(step, values):
        writer.write(step, values)
        display.record(step, values)

    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
        display = console.Display("plain", steps, 0, config.train.batch_size)
        hooks = loop.Hooks(
            on_step=halt, on_record=on_record, evaluate=lambda state, should_stop: {}, save=save,
            should_stop=lambda: False)
        sides.lap(None)
        loop.fit(followed, state, inputs.constants, inputs.feed.batches(0, steps),
                 experiment.schedule, hooks, start_step=0, batch_size=config.train.batch_size)
        checkpoints.wait()
        sides.lap(sides.loop)
    writer.close()
    checkpoints.close()
    return sides


def measure(model: str, rounds: int, saves: bool) -> None:
    """Prints a row for each clock."""
    size, steps, epoch, piece = CASES[model]
    experiment = make_experiment(model, size, steps, epoch)
    inputs = make_inputs(experiment, experiment.phases[-1])
    call = step_lib.make_train_call(experiment.phases[0].task, inputs.fetch, experiment.mesh)
    times = {"bare": [], "loop": []}
    for number in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            sides = alternate(call, (new_state(experiment), new_state(experiment)), inputs,
                              experiment, Path(folder), steps, piece, saves)
        if number:  # The first compiles.
            for side, row in times.items():
                row.append(getattr(sides, side) / steps * 1e3)
    for i, clock in enumerate(CLOCKS):
        bare, whole = (np.array(row)[:, i] for row in times.values())
        print(f"| {model} {size} px b128 | {clock} | {_spread(bare, 2)} | {_spread(whole, 2)} | "
              f"{_spread(whole / bare, 3)} |", flush=True)


def _spread(values, digits: int) -> str:
    median, least, most = (f"{v:.{digits}f}" for v in (
        statistics.median(values), min(values), max(values)))
    return f"{median} ({least} to {most})"


def main() -> None:
    """Prints a Markdown table: milliseconds a step, medians with the least and the most."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without_checkpoints", action="store_true")
    parser.add_argument("--models", nargs="*", default=list(CASES), choices=list(CASES))
    arguments = parser.parse_args()
    versions = backend.versions()
    print(f"jax {versions['jax']}, {backend.describe_devices(jax.devices())}, "
          f"{os.cpu_count()} CPU cores, {arguments.rounds} rounds\n")
    print("| case | clock | bare, ms a step | loop, ms a step | ratio |\n|---|---|---|---|---|")
    for model in arguments.models:
        measure(model, arguments.rounds, not arguments.without_checkpoints)


if __name__ == "__main__":
    main()
