"""What the training loop costs over its bare jitted step.

    python -m benchmarks.loop_overhead

Both sides run the same compiled step in one process, in alternation. "bare" calls it on one batch
that lies on the device. "loop" is `train.loop.fit` with everything on: batches from the feed,
metrics.jsonl, TensorBoard events, a line printed for every log, and an asynchronous checkpoint at
the end of every epoch, waited for at the end. Evaluation is work of its own and is off.

The wall clock says what a user waits for, and on a shared machine varies by more than the overhead.
Processor time, of all threads, varies less; where a step keeps every core busy, what the loop adds
to it is what it adds to the wall clock.
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

from cnnjax import config as config_lib
from cnnjax.checkpoint import Checkpoints
from cnnjax.jobs import backend, console
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.record import describe
from cnnjax.train import loop
from cnnjax.train import step as step_lib
from cnnjax.train.writers import MetricsWriter
from cnnjax.validation import validate

# Model, image size, steps a round, steps between checkpoints: an epoch of MNIST, and of CIFAR-10.
CASES = {"lenet5": (28, 938, 469), "resnet18": (32, 391, 391)}


def make_experiment(model: str, size: int, steps: int, epoch: int):
    """Returns the experiment on the embedded digits at batch 128."""
    config = config_lib.default()
    config.model.name, config.data.image_size = model, size
    config.train.batch_size, config.train.steps = 128, steps
    config.log.every_percent, config.eval.every_epochs = 2.0, None
    config.checkpoint.every_steps = epoch
    validate(config)
    return experiment_lib.build(config)


CLOCKS = {"wall clock": time.perf_counter, "processor time": time.process_time}


def read_clocks() -> tuple[float, ...]:
    """Returns the seconds of each of `CLOCKS`."""
    return tuple(clock() for clock in CLOCKS.values())


def bare(call, state, feed, batch, steps: int):
    """Returns the clocks before and after `steps` calls, and the state."""
    start = read_clocks()
    for _ in range(steps):
        state, losses = call(state, feed.constants, batch)
    jax.block_until_ready((state, losses))
    return start, read_clocks(), state


def looped(call, state, feed, experiment, folder: Path):
    """Returns the clocks before and after the same steps by the loop, and the state."""
    config, steps = experiment.config, experiment.total_steps
    checkpoints, record = Checkpoints(folder), describe(experiment)
    writer = MetricsWriter(folder, 0)
    state = state.replace(step=state.step * 0)
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
        display = console.Display("plain", steps, 0, config.train.batch_size)

        def on_record(step, values):
            writer.write(step, values)
            display.record(step, values)

        hooks = loop.Hooks(
            on_step=display.step, on_record=on_record, evaluate=lambda state, should_stop: {},
            save=lambda step, state, values: checkpoints.save(step, state,
                                                              record | {"metrics": values}),
            should_stop=lambda: False)
        start = read_clocks()
        state = loop.fit(call, state, feed.constants, feed.batches(0, steps), experiment.schedule,
                         hooks, start_step=0, batch_size=config.train.batch_size)
        checkpoints.wait()
        end = read_clocks()
    writer.close()
    checkpoints.close()
    return start, end, state


def measure(model: str, rounds: int) -> None:
    """Prints one row."""
    size, steps, epoch = CASES[model]
    experiment = make_experiment(model, size, steps, epoch)
    feed = experiment_lib.make_train_feed(experiment, experiment.phases[-1])
    call = step_lib.make_train_call(experiment.phases[0].task, feed.fetch, experiment.mesh)
    state = jax.jit(experiment.create_state,
                    out_shardings=step_lib.replicated(experiment.mesh))()
    _, batch = next(iter(feed.batches(0, 1)))
    *_, state = bare(call, state, feed, batch, 20)
    times = {"bare": [], "loop": []}
    for _ in range(rounds):
        for side, row in times.items():
            with tempfile.TemporaryDirectory() as folder:
                start, end, state = (
                    bare(call, state, feed, batch, steps) if side == "bare" else
                    looped(call, state, feed, experiment, Path(folder)))
            row.append([(b - a) / steps * 1e3 for a, b in zip(start, end, strict=True)])
    for clock, *sides in zip(CLOCKS, *(zip(*row, strict=True) for row in times.values()),
                             strict=True):
        ratios = [loop / bare for bare, loop in zip(*sides, strict=True)]
        print(f"| {model} {size} px b128 | {clock} | {_spread(sides[0], 2)} | "
              f"{_spread(sides[1], 2)} | {_spread(ratios, 3)} |", flush=True)


def _spread(values, digits: int) -> str:
    median, least, most = (f"{v:.{digits}f}" for v in (
        statistics.median(values), min(values), max(values)))
    return f"{median} ({least} to {most})"


def main() -> None:
    """Prints a Markdown table: milliseconds a step, medians with the least and the most."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="*", default=list(CASES), choices=list(CASES))
    arguments = parser.parse_args()
    versions = backend.versions()
    print(f"jax {versions['jax']}, {backend.describe_devices(jax.devices())}, "
          f"{os.cpu_count()} CPU cores, {arguments.rounds} rounds\n")
    print("| case | clock | bare, ms a step | loop, ms a step | ratio |\n|---|---|---|---|---|")
    for model in arguments.models:
        measure(model, arguments.rounds)


if __name__ == "__main__":
    main()
