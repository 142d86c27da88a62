"""--job=evaluate: what a checkpoint or weights are worth: accuracy, calibration, robustness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from cnnjax.analysis.calibration import calibration_report, most_confused, plot_calibration
from cnnjax.checkpoint import Checkpoints
from cnnjax.checkpoint_folder import GoneCheckpoint
from cnnjax.jobs import console, hosts, overview, pretrained, probing, robustness, workdir
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.evaluation import evaluated
from cnnjax.jobs.experiment import Experiment
from cnnjax.jobs.model_input import preprocess_of, takes_images
from cnnjax.jobs.named_data import warn_of_another_division
from cnnjax.jobs.record import agree
from cnnjax.train import step as step_lib
from cnnjax.train.state import TrainState
from cnnjax.types import UserError

PyTree = Any
RESULT, PICTURE = "evaluate.json", "evaluate.png"
# A matrix of more classes would be a file of megabytes; its largest entries stand for it.
_WHOLE_MATRIX = 200


def run(config: ConfigDict, folder: Path, dry_run: bool = False) -> int:
    """Evaluates `config.eval.checkpoint` of a workdir; writes evaluate.json and evaluate.png.

    Where there is no run, but weights to start from, those are evaluated.
    """
    if not (folder / workdir.CONFIG).exists():
        if config.weights.path is not None:
            return _run_of_weights(config, folder, dry_run)
        workdir.check_one_run(folder)
        raise UserError(f"There is no run in {folder}. Give a workdir that has trained, "
                        "--workdir=DIR, or weights, --model=NAME --weights=FILE.")
    if not workdir.has_checkpoints(folder):
        raise UserError(f"The run in {folder} has no checkpoint yet.")
    checkpoints = Checkpoints(folder / workdir.CHECKPOINTS, read_only=True,
                              metric=config.checkpoint.metric)
    step = checkpoints.find(config.eval.checkpoint)
    record = checkpoints.record(step)
    workdir.check_same_experiment(record["config"], config, folder,
                                  besides=("data.name", "data.eval_split"))
    kinds = robustness.kinds_of(config)
    experiment = experiment_lib.build(config, preprocess_of(record), trains=False)
    if list(names := experiment.dataset.class_names) != record["class_names"]:
        raise UserError(f"The classes of {experiment.dataset.name} are not those that the model "
                        f"in {folder} was trained for: "
                        f"{pretrained.what_differs(names, record['class_names'])}")
    if not takes_images(experiment.preprocess.channels, experiment.dataset):
        raise UserError(f"The images of {experiment.dataset.name} have "
                        f"{experiment.dataset.channels} channels, and the model in {folder} takes "
                        f"{experiment.preprocess.channels}: name other data with "
                        "--config.data.name=NAME.")
    robustness.check_colors(kinds, experiment.dataset)
    warn_of_another_division(experiment.dataset, config, record)
    if dry_run:
        print(f"Would evaluate step {step} of {folder} on "
              f"{len(experiment.dataset.eval.source):,} examples of {experiment.dataset.name}.")
        return 0
    agree(experiment, checkpoint=record["metrics"])
    workdir.check_writable(folder)
    step, state = _restored(experiment, checkpoints, step)
    values = {"step": step, **_measured(experiment, state.eval_variables, folder, kinds,
                                        f"step {step:,}")}
    _report(experiment, values, folder, f"{folder} at step {step:,}")
    return 0


def _restored(experiment: Experiment, checkpoints: Checkpoints, step: int
              ) -> tuple[int, TrainState]:
    """Returns the step and its state; if it went while the data were read, those there are now."""
    try:
        return step, checkpoints.restore(step, experiment.abstract_state_at(step),
                                         step_lib.replicated(experiment.mesh))
    except GoneCheckpoint:
        if hosts.several():  # They could find different ones.
            raise
        found = checkpoints.find(experiment.config.eval.checkpoint)
        return _restored(experiment, checkpoints, found)


def _run_of_weights(config: ConfigDict, folder: Path, dry_run: bool) -> int:
    """Evaluates pretrained weights; of those of other classes it can but probe the features."""
    kinds = robustness.kinds_of(config)
    experiment = experiment_lib.build(config, trains=False)
    weights, dataset = experiment.weights, experiment.dataset
    if weights is None:
        raise UserError(f"weights.path is {config.weights.path}: there is nothing to evaluate.")
    if not weights.knows_classes and config.eval.probe == "none":
        raise UserError(
            f"The classes of {config.weights.path} are not the {dataset.num_classes} of "
            f"{dataset.name}. Name other data with --config.data.name=NAME; or measure what the "
            "features are worth for these, with --config.eval.probe=all.")
    robustness.check_colors(kinds, dataset)
    if dry_run:
        print(f"Would {'evaluate' if weights.knows_classes else 'probe'} {config.weights.path} on "
              f"{len(dataset.eval.source):,} examples of {dataset.name}.")
        return 0
    agree(experiment)
    workdir.check_writable(folder)
    source = {"weights": config.weights.path, **(
        {"adapted_from_channels": weights.adapted_from} if weights.adapted_from else {})}
    if weights.knows_classes:
        variables = jax.device_put(weights.variables, step_lib.replicated(experiment.mesh))
        values = source | _measured(experiment, variables, folder, kinds, config.weights.path)
        _report(experiment, values, folder, weights.what)
        return 0
    values = source | {"data": dataset.name, **probing.measure(experiment, weights.variables)}
    workdir.write_json(folder / RESULT, values)
    console.print_table(f"Features of {weights.what}", {
        name.replace("_", " "): f"{value:.4%}" if isinstance(value, float) else value
        for name, value in values.items()})
    return 0


def _measured(experiment: Experiment, variables: PyTree, folder: Path, kinds: tuple[str, ...],
              whose: str) -> dict[str, Any]:
    """Returns all that the config asks for of a model that knows the classes of the data."""
    found, logits, labels = evaluated(experiment, variables)
    values = {"data": f"{experiment.dataset.name}, {experiment.dataset.eval.name}", **found,
              **_calibration(experiment, logits, labels, folder, whose)}
    if kinds:
        values |= robustness.measure(experiment, variables, kinds, error=1 - values["eval_top1"])
    if experiment.config.eval.probe != "none":
        values |= probing.measure(experiment, variables)
    return {**values, "bad_files": experiment.bad_files.summary()}


def _report(experiment: Experiment, values: dict[str, Any], folder: Path, title: str) -> None:
    workdir.write_json(folder / RESULT, values)
    console.print_table(title, {
        "model": experiment.config.model.name, "data": values["data"],
        "examples": f"{values['eval_examples']:,}",
        "loss": f"{values['eval_loss']:.4f}",
        "top-1": f"{values['eval_top1']:.4%}",
        **({"top-5": f"{values['eval_top5']:.4%}"} if "eval_top5" in values else {}),
        **overview.bad_files_row(values), **_rows(values),
        "more": f"{folder / RESULT}, {folder / PICTURE}",
    })


def _calibration(experiment: Experiment, logits: np.ndarray, labels: np.ndarray, folder: Path,
                 whose: str) -> dict[str, Any]:
    """Returns `calibration_report` of the evaluation split, having drawn it."""
    report = calibration_report(logits, labels)
    plot_calibration(report, experiment.dataset.class_names, str(folder / PICTURE),
                     f"{experiment.config.model.name} on {experiment.dataset.name}, {whose}")
    if experiment.dataset.num_classes > _WHOLE_MATRIX:
        del report["confusion"]
        report["confusions"] = most_confused(logits, labels, experiment.dataset.class_names,
                                             _WHOLE_MATRIX)
    return report | {"class_names": list(experiment.dataset.class_names)}


def _rows(values: dict[str, Any]) -> dict[str, str]:
    """Returns what there is beside the accuracy, for the table."""
    named = [(accuracy, name) for accuracy, name in zip(
        values["per_class_accuracy"], values["class_names"], strict=True) if accuracy is not None]
    (least, worst), (most, best) = min(named), max(named)
    rows = {
        "calibration": f"ECE {values['ece']:.2%}, NLL {values['nll']:.4f}; scaled by temperatures "
                       f"fitted on other examples: ECE {values['ece_scaled']:.2%}, NLL "
                       f"{values['nll_scaled']:.4f}",
        "temperature": f"{values['temperature']:.3f}, fitted on all examples",
        "classes": f"from {least:.2%} ({worst}) to {most:.2%} ({best}); their mean, the balanced "
                   f"accuracy: {values['balanced_accuracy']:.2%}",
    }
    for kind, accuracies in values.get("corruptions", {}).items():
        rows[kind.replace("_", " ")] = " ".join(f"{a:.1%}" for a in accuracies)
    for name, value in values.items():
        if name.startswith(("corruption_", "mce", "probe_")) and isinstance(value, float):
            rows[name.replace("_", " ")] = f"{value:.2%}"
    return rows
