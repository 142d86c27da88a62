"""What is left of a run that has come to its end: summary.json and curves.png."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from cnnjax import trees
from cnnjax.analysis.curves import plot_learning_curves
from cnnjax.jobs import console, faults, hosts, overview, workdir
from cnnjax.jobs.experiment import Experiment
from cnnjax.train.state import TrainState
from cnnjax.train.writers import read_metrics


def write(run_record: dict[str, Any], folder: Path, state: TrainState, experiment: Experiment,
          measured: dict[str, Any], seconds: float, rate: float | None) -> None:
    """Writes curves.png and summary.json of a run that has come to its end, and prints the latter.

    Args:
      run_record: of `record.describe`, with rollbacks and what could not be saved.
      folder: the workdir.
      state: the last one.
      experiment: of the run.
      measured: of the last step, as its checkpoint has it.
      seconds: that it took, in all sessions.
      rate: images a second, if that was measured.
    """
    # All processes take part in these, each of which may hold a part.
    state = experiment.gather(state)
    digests = {"params_sha256": trees.sha256(state.params),
               # The window is empty at the end, and only says when the last line was logged.
               "state_sha256": trees.sha256(dataclasses.replace(state, window={}))}
    bad_files = experiment.bad_files.summary()
    if not hosts.is_first():
        return
    records = read_metrics(folder)
    step = int(state.step)
    summary = {
        "status": "done" if step >= experiment.total_steps else "stopped",
        "model": experiment.config.model.name,
        "data": experiment.dataset.name,
        "data_fingerprint": experiment.dataset.fingerprint,
        "params": trees.count(state.params),
        "multiply_adds": experiment.multiply_adds,
        "input_shape": experiment.input_shape[1:],
        "steps": step,
        "top1": measured["eval_top1"],
        "top5": measured.get("eval_top5"),
        "examples_evaluated": measured["eval_examples"],
        "bad_files": bad_files,
        "images_per_second": rate,
        "seconds": seconds,
        **digests,
        "rollbacks": run_record["rollbacks"],
        "checkpoint_errors": run_record["checkpoint_errors"],
        "versions": run_record["versions"],
        "git_commit": run_record["git_commit"],
    }
    if experiment.config.log.plot and records:
        with faults.tolerate_full_disk("curves.png"):
            plot_learning_curves(records, folder / "curves.png", f"{summary['model']} on "
                                 f"{summary['data']}: top-1 {summary['top1']:.2%}")
    # Last, because a summary says that everything else is there.
    workdir.write_json(folder / workdir.SUMMARY, summary)
    console.print_table("Summary", overview.summary_rows(summary))
