"""--job=evaluate: the accuracy of a checkpoint, each example counted once."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from cnnjax.checkpoint import Checkpoints
from cnnjax.jobs import console, workdir
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.evaluation import evaluator
from cnnjax.train import step as step_lib
from cnnjax.types import Preprocess, UserError


def run(config: ConfigDict, folder: Path, dry_run: bool = False) -> int:
    """Evaluates `config.eval.checkpoint` of a workdir and prints a table; changes nothing."""
    if not workdir.has_checkpoints(folder):
        workdir.load_config(folder)  # Says so if there is no run at all.
        raise UserError(f"The run in {folder} has no checkpoint yet.")
    checkpoints = Checkpoints(folder / workdir.CHECKPOINTS, read_only=True,
                              metric=config.checkpoint.metric)
    step = checkpoints.find(config.eval.checkpoint)
    record = checkpoints.record(step)
    workdir.check_same_experiment(record["config"], config, folder, besides=("data.eval_split",))
    experiment = experiment_lib.build(config, Preprocess.from_dict(record["preprocess"]))
    if list(experiment.dataset.class_names) != record["class_names"]:
        raise UserError(f"The classes of {experiment.dataset.name} are not those that the model "
                        f"in {folder} was trained for: {record['class_names']}.")
    if dry_run:
        print(f"Would evaluate step {step} of {folder} on "
              f"{len(experiment.dataset.eval.source):,} examples of {experiment.dataset.name}.")
        return 0
    state = checkpoints.restore(step, experiment.abstract_state_at(step),
                                step_lib.replicated(experiment.mesh))
    values = evaluator(experiment)(state.eval_variables)
    console.print_table(f"{folder} at step {step:,}", {
        "model": config.model.name,
        "data": f"{experiment.dataset.name}, {experiment.dataset.eval.name}",
        "examples": f"{values['eval_examples']:,}",
        "loss": f"{values['eval_loss']:.4f}",
        "top-1": f"{values['eval_top1']:.4%}",
        **({"top-5": f"{values['eval_top5']:.4%}"} if "eval_top5" in values else {}),
    })
    return 0
