"""Files that are either whole or not there, and where caches and a user's paths lie.

Imports nothing of size: sweeps need no JAX.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import secrets
from pathlib import Path
from typing import Any

# What a write fails with that may succeed when somebody has made room.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# What a lock fails with on file systems that know no locks, where nobody can hold one.
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
# After which what nobody has written to is of a process that was killed, on whatever host.
_LEFT_SECONDS = 600


def cache(name: str) -> Path | None:
    """Returns ~/.cache/cnnjax/NAME, or None for a user without a home, as containers have them."""
    try:
        return Path.home() / ".cache" / "cnnjax" / name
    except RuntimeError:
        return None


def expanded(path: str | os.PathLike[str]) -> Path:
    """Returns the path with the home that a ~ stands for; as it is if there is no such home.

    Where Path.expanduser raises an error: for a user without a home, or that is not there.
    """
    return Path(os.path.expanduser(path))


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file beside and renames it, so that a crash leaves the old one or the new one.

    Beside is NAME.*.new, of a name that no other process has that writes the file at the same time.
    What processes that were killed have left there goes.
    Text is UTF-8; what stands in it for bytes of a file's name that are not becomes those bytes.

    Raises:
      OSError: names the file; what there was room for is removed.
    """
    if isinstance(content, str):
        content = content.encode(errors="surrogateescape")
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    try:
        beside.write_bytes(content)
        now = beside.stat().st_mtime  # By the clock of the file system, as are those of the others.
        beside.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError):
            error.filename = os.fspath(path)  # That of a write is None.
        raise
    with contextlib.suppress(OSError):  # Another may be at it, too.
        for left in path.parent.glob(f"{glob.escape(path.name)}.????????.new"):
            if left.stat().st_mtime < now - _LEFT_SECONDS:
                left.unlink()


def write_json(path: Path, values: Any) -> None:
    """Writes JSON in the same way."""
    write_whole(path, json.dumps(values, indent=1) + "\n")
