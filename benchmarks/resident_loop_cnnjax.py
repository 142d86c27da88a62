"""One side of `benchmarks.resident_loop`: the trainer's steps. Prints a line of JSON.

    python -m benchmarks.resident_loop_cnnjax fashion_mnist_wide --steps=400
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from cnnjax.jobs import course
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.evaluation import make_inputs
from cnnjax.jobs.new_state import new_state
from cnnjax.train import step as step_lib
from cnnjax.validation import validate
from experiments import resnet_cifar


def make_experiment(preset: str, images: int, steps: int, folder: Path):
    """Returns the preset's experiment, at its full size, over noise that is saved in `folder`."""
    rng = np.random.default_rng(0)
    splits = {"train": images, "test": 256}
    path = folder / "noise.npz"
    np.savez(path, **{f"x_{split}": rng.integers(0, 256, (n, 28, 28, 1), np.uint8)
                      for split, n in splits.items()},
             **{f"y_{split}": np.arange(n) % 10 for split, n in splits.items()})
    config = resnet_cifar.get_config(preset)
    config.data.name = f"npz:{path}"
    config.train.progressive, config.train.epochs, config.train.steps = (), None, steps
    validate(config)
    return experiment_lib.build(config)


def main() -> None:
    """Times the second half of the steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--images", type=int, default=60_000)
    arguments = parser.parse_args()
    half = arguments.steps // 2
    with tempfile.TemporaryDirectory() as folder:
        experiment = make_experiment(arguments.preset, arguments.images, 2 * half, Path(folder))
        inputs = make_inputs(experiment, experiment.phases[0])
    call = step_lib.make_train_call(experiment.phases[0].task, inputs.fetch, experiment.mesh)
    state = new_state(experiment)
    each = min(half, course.steps_per_call(experiment.config))
    for begin in (0, half):  # The first half compiles.
        start = time.perf_counter()
        for _, batches in inputs.feed.batches(begin, begin + half // each * each, each):
            state, losses = call(state, inputs.constants, batches)
        jax.block_until_ready(losses)
    print(json.dumps({"steps_per_second": half // each * each / (time.perf_counter() - start),
                      "version": f"jax {jax.__version__}",
                      "device": jax.devices()[0].device_kind}))


if __name__ == "__main__":
    main()
