"""--job=prepare: downloads a TFDS data set and writes it as ArrayRecord, in a step of its own."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from cnnjax import data


def run(config: ConfigDict, folder: Path, dry_run: bool = False) -> int:
    """Prepares `config.data.name`. The only job that imports TensorFlow."""
    del folder
    name = config.data.name
    if dry_run:
        print(f"Would prepare {name} in {config.data.data_dir or 'the default data_dir of TFDS'}.")
        return 0
    data.prepare(name, data_dir=config.data.data_dir, manual_dir=config.data.manual_dir)
    return 0
