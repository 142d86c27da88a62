"""What `launch.py --job=…` can do. Each job is a module with `run(config, folder, dry_run)`."""

from __future__ import annotations

import importlib
from pathlib import Path

from ml_collections import ConfigDict

from cnnjax import exit_codes

JOBS = {
    "train": "train, or go on where the last run of the same command stopped",
    "sweep": "run the trials that sweep() of the experiment yields, or go on with them",
    "evaluate": "measure a checkpoint of a workdir, or pretrained weights",
    "predict": "label images with a trained workdir or with pretrained weights",
    "visualize": "write a page of what a model sees, looks for and gets wrong",
    "export": "write a model as StableHLO and safetensors, checked by reloading both",
    "lr_finder": "raise the learning rate until the loss breaks, and suggest one",
    "benchmark": "time a step, its input and both together, and say which is the slower",
    "summarize": "print the model layer by layer, or what the data set holds",
    "report": "tables, figures and a page of a sweep, or of a folder of runs",
    "prepare": "make a smaller copy of photographs that reads faster, or download a TFDS data set",
}
# Of a job that several processes were started for, all take part in these; of the others the first.
ON_MANY_HOSTS = ("train", "evaluate")


def run(job: str, config: ConfigDict, folder: Path, dry_run: bool = False) -> int:
    """Runs one job and returns its exit code; where its files have no room, that is a message."""
    # Imported here: `--job=prepare` should not wait for what training needs, nor `--help` for any.
    from cnnjax.jobs import workdir

    with workdir.report_no_room(folder):
        return importlib.import_module(f"cnnjax.jobs.{job}").run(config, folder, dry_run)
    return exit_codes.FAILED
