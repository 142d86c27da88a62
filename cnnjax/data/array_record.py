"""Writing ArrayRecord files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def write_array_record(path: Path, contents: Iterable[bytes], *, compressed: bool = True) -> int:
    """Writes an ArrayRecord file, one record a group: reading is at random.

    It is written beside, looked at, brought to disk and renamed.

    Args:
      path: the file.
      contents: its records; an error that they raise leaves no file of that name.
      compressed: whether records are; JPEG does not get smaller.

    Returns:
      How many records it has.

    Raises:
      OSError: if it cannot be written.
    """
    from array_record.python import array_record_module

    unfinished = path.with_name(path.name + ".new")
    options = "group_size:1" if compressed else "group_size:1,uncompressed"
    try:
        writer = array_record_module.ArrayRecordWriter(str(unfinished), options)
        count = 0
        for record in contents:
            writer.write(record)
            count += 1
        writer.close()
        reader = array_record_module.ArrayRecordReader(str(unfinished))
        written = reader.num_records()
        reader.close()
        if written != count:
            raise OSError(f"{written} records of {count} arrived in {unfinished.name}")
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, RuntimeError):  # Of the library, for a full disk too.
            raise OSError(str(error).splitlines()[0]) from error
        raise
    with open(unfinished, "rb") as file:
        os.fsync(file.fileno())
    unfinished.replace(path)
    return count
