"""--job=prepare: what is done to data once, so that training reads them fast.

Photographs (folder:, wds:, imagenet:) get a smaller copy as ArrayRecord files, which is read as
records:OUTPUT. A TFDS data set is downloaded and written as ArrayRecord.
"""

from __future__ import annotations

import os
from pathlib import Path

from ml_collections import ConfigDict

from cnnjax import data
from cnnjax.files import expanded
from cnnjax.jobs.named_data import open_dataset
from cnnjax.types import UserError

# Whose sources have the bytes of each image.
_COPIED = ("folder", "wds", "imagenet")


def run(config: ConfigDict, folder: Path, dry_run: bool = False) -> int:
    """Prepares `config.data.name`. The only job that imports TensorFlow, and only for TFDS."""
    del folder
    name = config.data.name
    kind, _, path = name.partition(":")
    if kind in _COPIED:
        return _copy(config, path, dry_run)
    if not data.is_of_tfds(name):
        open_dataset(config)  # Says what is wrong with it.
    elif dry_run:
        print(f"Would prepare {name} in {config.data.data_dir or 'the default data_dir of TFDS'}.")
        return 0
    data.prepare(name, data_dir=config.data.data_dir, manual_dir=config.data.manual_dir)
    return 0


def _copy(config: ConfigDict, path: str, dry_run: bool) -> int:
    settings = config.prepare
    dataset = open_dataset(config)
    root = expanded(path)
    if not root.is_dir():  # wds:DIR/PATTERN
        root = root.parent
    named = root if root.name not in ("", "..") else root.resolve()
    output = expanded(settings.output or f"{named}-{settings.short_side}px")
    if dataset.name.startswith("folder:") and root.resolve() in output.resolve().parents:
        raise UserError(f"prepare.output is {output}, which is in the folder of the images, where "
                        "it would be taken for a class. Name a folder outside of it.")
    what = (f"{len(dataset.train):,} and {len(dataset.eval):,} images of {dataset.name} to "
            f"{output}, with a short side of at most {settings.short_side} pixels")
    if dry_run:
        print(f"Would copy {what}.")
        return 0
    print(f"Copying {what}", flush=True)
    data.write_copy(dataset, os.path.abspath(root), output, data.CopySettings(
        settings.short_side, settings.quality, settings.shard_mb * 2**20),
        threads=config.data.threads, keep_bad=config.data.on_error == "skip", log=_say)
    print(f"Train on it with --config.data.name=records:{output}")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)
