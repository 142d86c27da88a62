"""ArrayRecord files: writing them whole or not at all, and what it means that one cannot be read.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from pathlib import Path

from cnnjax.data import decode
from cnnjax.data.bad_examples import BadExample
from cnnjax.types import UserError

# What the library says of a call of the operating system.
_OF_THE_SYSTEM = re.compile(r"\w+\(\) failed: ([^;]+)")


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


def unread(place: str, error: Exception, remedy: str) -> UserError:
    """Returns the error of a record that could not be read.

    Args:
      place: of the record, such as "train-00001.array_record, record 7".
      error: that of the library, or of protobuf.
      remedy: what to do if the file is damaged or not there.

    Returns:
      A `BadExample`, unless the fault does not lie in the file, such as too many that are open.
    """
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    system = _OF_THE_SYSTEM.match(said)
    if system and system[1] not in map(os.strerror, decode.ONE_FILE):
        return UserError(f"{place} cannot be read: {said}." + decode.raise_limit(system[1]))
    if system and system[1] != os.strerror(errno.ENOENT):
        return BadExample(place, f"cannot be read ({said})", "make the file readable")
    return BadExample(place, f"is damaged or not there ({said})", remedy)
