"""The data set that a config names. Imports nothing that trains: --job=prepare needs none of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from cnnjax import data
from cnnjax.checkpoint import warn
from cnnjax.types import UserError


def open_dataset(config: ConfigDict) -> data.Dataset:
    """Opens the data set that the config names, and warns of what was taken for granted of it.

    Raises:
      UserError: as `data.open_dataset`; the message has the splits that were asked for.
    """
    splits = {key: config.data[key] for key in ("train_split", "eval_split")}
    try:
        dataset = data.open_dataset(
            config.data.name, data_dir=config.data.data_dir,
            val_fraction=config.data.val_fraction, split_seed=config.data.split_seed, **splits)
    except UserError as error:
        if type(error) is not UserError or not any(splits.values()):
            raise
        given = ", ".join(f"data.{key}={value}" for key, value in splits.items() if value)
        raise UserError(f"{error} ({given})") from error
    for note in dataset.notes:
        warn(note)
    return dataset


def warn_of_another_division(dataset: data.Dataset, config: ConfigDict,
                             saved: Mapping[str, Any] | None, run: str = "") -> None:
    """Warns where images that a run trained on may be among those to evaluate on.

    Args:
      dataset: to evaluate on.
      config: that names it. Splits that it asks for, and the run did not, are meant.
      saved: what stands beside the arrays in the run's checkpoint; None if there is no run.
      run: that only gives its weights. It may have trained on any data, and is known to have
        trained on these by their name.
    """
    if not (saved and dataset.divided) or dataset.fingerprint == saved["data"]["fingerprint"]:
        return
    kind, before = dataset.name.partition(":")[0], saved["data"]["name"]
    splits = ("train_split", "eval_split")
    # A copy, records:PATH, and its originals are divided alike.
    if (before == dataset.name or not run and before.partition(":")[0] == kind) and all(
            config.data[key] == saved["config"]["data"].get(key) for key in splits):
        whose = f"the run in {run}" if run else "this run"
        advice = ("Keep those to evaluate on in a split of their own, such as a folder val/."
                  if run else "Put new images into a folder or file of their own, all of which "
                  "--config.data.name=NAME --config.data.eval_split=train evaluates.")
        warn(f"{dataset.name} is not, or no longer, the data set that {whose} trained "
             f"on. Its {len(dataset.eval):,} images to evaluate on were drawn anew: some that "
             "the run trained on may be among them, and then the accuracy says too much. "
             + advice)
