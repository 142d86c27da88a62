"""ArrayRecord files for TFDS data sets that were prepared as TFRecord."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from cnnjax.data.array_record import write_array_record
from cnnjax.files import write_whole
from cnnjax.types import UserError


def convert_to_array_record(folder: Path, log: Callable[[str], None] = print) -> None:
    """Writes ArrayRecord shards beside the TFRecord shards of a data set, and registers them.

    This is the layout that TFDS calls an alternative file format: whoever reads the TFRecord
    files goes on doing so. Shards that were converted before an interruption are kept. It needs
    TensorFlow, to read.

    Args:
      folder: DATA_DIR/name[/config]/version.
      log: called with lines for the user.

    Raises:
      UserError: if there are no shards, some are missing, or the folder cannot be written.
    """
    info_path = folder / "dataset_info.json"
    info = json.loads(info_path.read_text())
    expected = sum(len(split["shardLengths"]) for split in info["splits"])
    lengths = {f"-{split['name']}.tfrecord-{i:05d}-": int(length) for split in info["splits"]
               for i, length in enumerate(split["shardLengths"])}
    shards = sorted(p for p in folder.iterdir() if ".tfrecord-" in p.name)
    if len(shards) != expected:
        raise UserError(f"{folder} has {len(shards)} TFRecord files of {expected}: delete the "
                        "folder and prepare the data set anew.")
    log(f"Converting {expected} TFRecord files in {folder} to ArrayRecord")
    try:
        for shard in shards:
            target = shard.with_name(shard.name.replace(".tfrecord-", ".array_record-"))
            if target.exists():
                continue
            length = next((n for part, n in lengths.items() if part in shard.name), None)
            write_array_record(target, _records(shard, length))
        info["alternativeFileFormats"] = [*info.get("alternativeFileFormats", ()), "array_record"]
        write_whole(info_path, json.dumps(info, indent=2, sort_keys=True))
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"{folder} cannot be written ({why}): make room, or copy it into a "
                        "directory that can, and name that with --config.data.data_dir=DIR."
                        ) from error


def _records(shard: Path, length: int | None) -> Iterator[bytes]:
    """Yields the records of a TFRecord file, which should be that many if it is known."""
    import tensorflow as tf

    found = 0
    try:
        for record in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator():
            found += 1
            yield record
    except tf.errors.OpError as error:
        raise UserError(f"{shard} cannot be read: {error.message}. Delete {shard.parent} and "
                        "prepare the data set anew.") from None
    if length not in (None, found):
        raise UserError(f"{shard} has {found} records of {length}: it is not whole. Delete "
                        f"{shard.parent} and prepare the data set anew.")
