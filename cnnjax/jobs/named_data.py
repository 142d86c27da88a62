"""The data set that a config names. Imports nothing that trains: --job=prepare needs none of it."""

from __future__ import annotations

from ml_collections import ConfigDict

from cnnjax import data
from cnnjax.types import UserError


def open_dataset(config: ConfigDict) -> data.Dataset:
    """Opens the data set that the config names.

    Raises:
      UserError: as `data.open_dataset`; the message has the splits that were asked for.
    """
    splits = {key: config.data[key] for key in ("train_split", "eval_split")}
    try:
        return data.open_dataset(
            config.data.name, data_dir=config.data.data_dir,
            val_fraction=config.data.val_fraction, split_seed=config.data.split_seed, **splits)
    except UserError as error:
        if type(error) is not UserError or not any(splits.values()):
            raise
        given = ", ".join(f"data.{key}={value}" for key, value in splits.items() if value)
        raise UserError(f"{error} ({given})") from error
