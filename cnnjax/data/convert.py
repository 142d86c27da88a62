"""ArrayRecord files for TFDS data sets that were prepared as TFRecord."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

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
            # Under its own name only when it is whole.
            unfinished = target.with_name(f"incomplete.{target.name}")
            found = _convert(shard, unfinished)
            length = next((n for part, n in lengths.items() if part in shard.name), found)
            if found != length:
                raise UserError(f"{shard} has {found} records of {length}: it is not whole, or the "
                                f"disk is full. Delete {folder} and prepare the data set anew, or "
                                "make room.")
            unfinished.rename(target)
        info["alternativeFileFormats"] = [*info.get("alternativeFileFormats", ()), "array_record"]
        unfinished = info_path.with_name("incomplete.dataset_info.json")
        unfinished.write_text(json.dumps(info, indent=2, sort_keys=True))
        unfinished.replace(info_path)
    except (OSError, RuntimeError) as error:  # The latter by ArrayRecord, for a full disk too.
        why = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"{folder} cannot be written ({why}): make room, or copy it into a "
                        "directory that can, and name that with --config.data.data_dir=DIR."
                        ) from error


def _convert(shard: Path, target: Path) -> int:
    """Writes the records of a TFRecord file as an ArrayRecord file; returns how many are there."""
    import tensorflow as tf
    from array_record.python import array_record_module

    # One record a group, as TFDS writes them: reading is at random.
    writer = array_record_module.ArrayRecordWriter(str(target), "group_size:1")
    try:
        for record in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator():
            writer.write(record)
    except tf.errors.OpError as error:
        raise UserError(f"{shard} cannot be read: {error.message}. Delete {shard.parent} and "
                        "prepare the data set anew.") from None
    writer.close()
    reader = array_record_module.ArrayRecordReader(str(target))
    found = reader.num_records()
    reader.close()
    return found
