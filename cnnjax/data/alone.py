"""One process at a time writes a prepared data set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from cnnjax.files import WITHOUT_LOCKS
from cnnjax.types import UserError


@contextlib.contextmanager
def alone(lock: Path, what: str | Path) -> Iterator[None]:
    """Holds a lock, a file that goes with it. Where the file system knows no locks there is none.

    Args:
      lock: the file, in a folder that is there.
      what: is written, for the message.

    Raises:
      UserError: if another process holds it.
      OSError: if the file cannot be written.
    """
    import filelock

    held = filelock.FileLock(lock)
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(f"Another process is writing {what}: wait for it.") from None
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()
        held.release()
