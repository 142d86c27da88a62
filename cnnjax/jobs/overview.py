"""The tables before and after a run, and the dry run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from cnnjax import data, trees
from cnnjax.analysis import text
from cnnjax.jobs import ahead, backend, console, course, initial_weights
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.evaluation import Inputs
from cnnjax.jobs.experiment import Experiment


def rows(experiment: Experiment, feed: data.Feed) -> dict[str, str]:
    """Returns the table before training."""
    config, dataset = experiment.config, experiment.dataset
    size = experiment.preprocess.size
    native = dataset.train.image_shape
    resident = bool(jax.tree.leaves(feed.constants))
    examples, batch = len(dataset.train.source), config.train.batch_size
    return {
        "model": config.model.name,
        "parameters": f"{trees.count(experiment.abstract_state.params):,}",
        "multiply-adds": f"{text.size(experiment.multiply_adds, '')} an image of "
                         f"{size[0]}x{size[1]}x{experiment.preprocess.channels}",
        "data": f"{dataset.name}: {examples:,} to train, {len(dataset.eval.source):,} to evaluate, "
                f"{dataset.num_classes} classes, "
                + (f"{native[0]}x{native[1]} px" if native else "of different sizes"),
        "input": ("features of the images, computed once" if feed.image_shape[1:] == ()
                  else "on the device, whole" if resident else "streamed from the host"),
        "steps": f"{experiment.total_steps:,} of batch {batch:,}: "
                 f"{experiment.total_steps * batch / examples:.4g} epochs",
        **({"weights": _weights(experiment)} if config.weights.path else {}),
        **_phases(experiment),
        "devices": backend.describe_devices(list(experiment.mesh.devices.flat)),
        "precision": experiment.precision,
    }


def _weights(experiment: Experiment) -> str:
    config, weights = experiment.config, experiment.weights
    if weights is None:  # A random trunk, or a run that has begun.
        return config.weights.path
    return weights.what + (", with their head" if initial_weights.keep_head(
        weights, config, experiment.abstract_state.params) else ", with a new head")


def _phases(experiment: Experiment) -> dict[str, str]:
    config = experiment.config
    if all(phase.task.trainable is None for phase in experiment.phases):
        return {"optimizer": f"{config.optimizer.name}, lr {course.peak_lr(config):.3g} "
                f"({config.schedule.name}), weight decay {config.optimizer.weight_decay:g}"}
    return {f"phase {i}": phase.summary for i, phase in enumerate(experiment.phases, 1)}


def summary_rows(summary: Mapping[str, Any]) -> dict[str, str]:
    """Returns the table after training."""
    top5 = summary["top5"]
    return {
        "model": summary["model"],
        "data": summary["data"],
        "top-1": f"{summary['top1']:.2%} of {summary['examples_evaluated']:,} examples",
        **({"top-5": f"{top5:.2%}"} if top5 is not None else {}),
        **bad_files_row(summary),
        "steps": f"{summary['steps']:,}",
        "time": console.duration(summary["seconds"]),
        "images/s": f"{summary['images_per_second']:,.0f}" if summary["images_per_second"] else "-",
        "params sha256": summary["params_sha256"],
    }


def bad_files_row(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns how many examples were left out, for a table, if any were."""
    found = values["bad_files"]
    if not found["count"]:
        return {}
    return {"bad files": f"{found['count']:,} left out, the first: {found['files'][0]}"}


def dry_run(experiment: Experiment) -> None:
    """Does everything up to the first step, writes nothing, and prints what there is to know."""
    feed, lowered = lower(experiment)
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    console.print_table("Dry run: nothing is trained and nothing is written", rows(
        experiment, feed) | {
        "learning rate": console.sparkline(experiment.learning_rate, experiment.total_steps),
        "compilation": console.duration(seconds),
        "memory of a step": f"{text.size(memory.argument_size_in_bytes)} of arguments "
                            "(state, resident data, batch), "
                            f"{text.size(memory.temp_size_in_bytes)} of temporaries"
        if memory else "unknown on this backend",
    })


def lower(experiment: Experiment) -> tuple[data.Feed, jax.stages.Lowered]:
    """Returns the batches of the last phase and its step, traced and not compiled."""
    phase, inputs = experiment.phases[-1], last_inputs(experiment)
    k = course.steps_per_call(experiment.config)
    _, batch = next(iter(inputs.feed.batches(phase.start, phase.stop, k)))
    call = ahead.jitted_call(experiment, phase, inputs.fetch)
    return inputs.feed, call.lower(experiment.placed_state_at(phase.stop), inputs.constants, batch)


def last_inputs(experiment: Experiment) -> Inputs:
    """Returns what the last phase trains on, without its evaluation.

    Where it trains on features these are zeros, which take no time to compute.
    """
    phase = experiment.phases[-1]
    feed = (experiment_lib.make_train_feed(experiment, phase) if phase.cached_trunk is None
            else _blank_features(experiment))
    return Inputs.of(experiment, phase, feed, None)


def _blank_features(experiment: Experiment) -> data.Feed:
    config, count = experiment.config, len(experiment.dataset.train.source)
    width = experiment.abstract_state.params["head"]["kernel"].shape[0]
    return data.make_array_feed(
        {"image": np.zeros((count, width), np.float32), "label": np.zeros(count, np.int32)},
        batch_size=config.train.batch_size, seed=config.seed, mesh=experiment.mesh)
