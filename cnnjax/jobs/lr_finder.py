"""--job=lr_finder: a short run whose learning rate rises until the loss breaks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from cnnjax.analysis.lr_range import plot_range_test, read_range_test, until_broken
from cnnjax.durations import UNITS, join
from cnnjax.jobs import backend, console, course, workdir
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.evaluation import make_inputs
from cnnjax.jobs.experiment import Experiment
from cnnjax.jobs.new_state import new_state
from cnnjax.train import step as step_lib
from cnnjax.types import UserError

RESULT, PICTURE = "lr_finder.json", "lr_finder.png"


def run(config: ConfigDict, folder: Path, dry_run: bool = False) -> int:
    """Runs the range test of a recipe; writes lr_finder.json and lr_finder.png.

    What trains is all that the config says but for the rate, the length and the head's phase; of
    several image sizes it is the last.

    Raises:
      UserError: if the loss breaks within ten steps, or never falls.
    """
    backend.warn_of_products(config.precision)
    experiment = experiment_lib.build(range_test(config))
    if dry_run:
        print(f"Would make up to {config.lr_finder.steps} steps of {config.model.name} with rates "
              f"from {config.lr_finder.lowest:g} to {config.lr_finder.highest:g}.")
        return 0
    workdir.check_writable(folder)
    losses = until_broken(_losses(experiment))
    rates = [experiment.learning_rate(step) for step in range(len(losses))]
    if len(losses) < 10:
        raise UserError(f"The loss broke after {len(losses)} steps: start lower, "
                        f"--config.lr_finder.lowest={config.lr_finder.lowest / 100:g}.")
    found = read_range_test(rates, losses)
    # What the config holds is for the reference batch, if it names one; all else is as it was here.
    batch, rate = config.train.batch_size, f"{found.suggestion:.3g}"
    reference = config.schedule.lr_batch_size or batch
    lr = float(f"{found.suggestion * reference / batch:.2g}")
    said, drawn = f"--config.schedule.lr={lr:g}", rate
    if reference != batch:
        said += f" (for a batch of {reference}; {rate} for {batch})"
        drawn += f" (schedule.lr={lr:g} for a batch of {reference})"
    plot_range_test(rates, losses, found, str(folder / PICTURE),
                    f"{config.model.name} on {experiment.dataset.name}, {config.optimizer.name}, "
                    f"batch {batch}", drawn)
    workdir.write_json(folder / RESULT, {
        "suggestion": lr, "suggested_rate": found.suggestion, "lowest_loss_at": found.lowest,
        "rates": rates, "losses": losses})
    console.print_table("Learning rate", {
        "steps": f"{len(losses)}, rates from {rates[0]:.3g} to {rates[-1]:.3g}",
        "lowest loss": f"at {found.lowest:.3g}",
        "suggestion": said,
        "more": f"{folder / RESULT}, {folder / PICTURE}"})
    return 0


def range_test(config: ConfigDict) -> ConfigDict:
    """Returns the config of the test.

    Raises:
      UserError: if the rates do not rise.
    """
    section = config.lr_finder
    if section.lowest >= section.highest:
        raise UserError(f"lr_finder.lowest is {section.lowest:g} and lr_finder.highest "
                        f"{section.highest:g}: the rate has to rise.")
    config = config.copy_and_resolve_references()
    for name, prefix in (("head", ""), ("train", ""), ("schedule", "warmup")):
        for unit in UNITS:
            if join(prefix, unit) in config[name]:
                config[name][join(prefix, unit)] = None
    config.train.steps = section.steps
    config.train.progressive = tuple((0, side) for _, side in config.train.progressive[-1:])
    config.train.stop_after_steps = None
    config.schedule.name = "range_test"
    config.schedule.lr = section.highest
    config.schedule.lr_batch_size = None
    config.schedule.range_start = section.lowest / section.highest
    return config


def _losses(experiment: Experiment) -> Iterator[float]:
    """Trains, and yields the loss of each step."""
    phase, state = experiment.phases[-1], new_state(experiment)
    inputs = make_inputs(experiment, phase, state)
    call = step_lib.make_train_call(phase.task, inputs.fetch, experiment.mesh,
                                    experiment.state_sharding(experiment.abstract_state))
    for _, batch in inputs.feed.batches(0, phase.stop,
                                        course.steps_per_call(experiment.config)):
        state, new = call(state, inputs.constants, batch)
        yield from np.asarray(new).tolist()
