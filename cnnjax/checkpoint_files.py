"""What is done to a checkpoint's files without reading what they mean: checksums, a probe, names.

Orbax and TensorStore keep checksums of their indices but not of the arrays: one bit flipped there
comes back as another number, silently. The checksums are written into the unfinished checkpoint and
become visible with it, in one rename, so a finished checkpoint always has them.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path

from cnnjax.types import UserError

NAME = "checksums.json"
_ALWAYS = ("record/metadata", "state/_METADATA")
_CHUNK = 1 << 20


def check_name(folder: Path, read_only: bool = False) -> None:
    """Raises a UserError if no checkpoint can be saved in the folder, or read from it.

    TensorStore takes every name for UTF-8. Orbax looks for the parts of what it saves by a pattern
    that begins with the folder's name: below "lr[1]" it finds none, and the checkpoint is empty.
    """
    folder = folder.absolute()
    if os.fsencode(folder) != str(folder).encode(errors="replace"):
        problem = "is not UTF-8"
    elif "**" in str(folder) or (not read_only and glob.has_magic(str(folder))):
        problem = "has one of * ? [, which make it a pattern"
    else:
        return
    raise UserError(f"The name of {folder} {problem}, so it can hold no checkpoints. Rename it, or "
                    "give another --workdir.")


def write_checksums(folder: str | Path) -> None:
    """Writes `checksums.json`: size in bytes and CRC-32 of every file in the folder's folders.

    Those are the items. The files beside them are Orbax's notes, which it writes again later.
    """
    folder = Path(folder)
    found = {str(path.relative_to(folder)): _of(path) for path in sorted(folder.glob("*/**/*"))
             if path.is_file()}
    (folder / NAME).write_text(json.dumps({"crc32": found}))


def problem(folder: str | Path, arrays: bool = True) -> str | None:
    """Returns what is wrong with a folder, naming the file, or None.

    Args:
      folder: of a checkpoint.
      arrays: whether all bytes of the state are read; if not, it is enough that none is missing.

    Of a folder without checksums, which an older version wrote, only what every checkpoint has can
    be missed. Files that the checksums don't name may come and go.
    """
    folder = Path(folder)
    path = folder / NAME
    if not path.exists():
        return next((f"{name} is missing" for name in _ALWAYS if not (folder / name).exists()),
                    None)
    try:
        expected = json.loads(path.read_text())["crc32"]
        for name, (size, checksum) in expected.items():
            file = folder / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != size:
                return f"{name} has {file.stat().st_size:,} bytes instead of {size:,}"
            if (arrays or not name.startswith("state/")) and _of(file)[1] != checksum:
                return f"the bytes of {name} are not those that were written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{NAME} cannot be read ({error})"
    return None


def probe(folder: Path) -> None:
    """Makes a folder with some small files and removes it.

    Raises:
      OSError: if that cannot be done.
    """
    try:
        # Deeper than one, as a checkpoint is, and of the size of some of its small files.
        (folder / "state" / "d").mkdir(parents=True)
        (folder / "state" / "d" / "file").write_bytes(bytes(1 << 16))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def rename(folder: Path, steps: Mapping[int, str]) -> list[str]:
    """Gives the checkpoints of {step: word} the names WORD-STEP, or WORD-STEP-NUMBER if taken."""
    names = []
    for step, word in steps.items():
        target, number = folder / f"{word}-{step}", 1
        while target.exists():
            target, number = folder / f"{word}-{step}-{number}", number + 1
        names.append((folder / str(step)).rename(target).name)
    return names


def _of(path: Path) -> tuple[int, int]:
    size, checksum = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size, checksum = size + len(chunk), zlib.crc32(chunk, checksum)
    return size, checksum


def in_one_line(error: Exception) -> str:
    """Returns what the operating system said, if it did, and else the beginning of the message."""
    text = " ".join(str(error).split()) or type(error).__name__
    if found := re.search(r"OS error \d+: ([^\]\[]+)", text):  # TensorStore's, amid its locations.
        return found[1].strip()
    if "RESOURCE_EXHAUSTED" in text:
        return next((said for said in map(os.strerror, (errno.EMFILE, errno.ENFILE, errno.EDQUOT))
                     if said in text), "No space left on device")
    return str(getattr(error, "strerror", None) or text[:200])
