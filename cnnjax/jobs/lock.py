"""A file that one process at a time holds; the kernel lets go of it, however the process ends."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from cnnjax.files import WITHOUT_LOCKS


class Lock:
    """flock on a file, which a child that inherits the descriptor goes on holding.

    Args:
      path: of the file; created if need be, never deleted.
    """

    def __init__(self, path: Path):
        self._path, self.descriptor = path, -1

    def take(self, seconds: float = 0.0) -> bool:
        """Returns whether the lock is held now, having tried for so long."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self.descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        until = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() >= until:
                    self.release()
                    return False
                time.sleep(0.05)
            except OSError as error:
                if error.errno not in WITHOUT_LOCKS:
                    raise
                return True

    def release(self) -> None:
        """Lets go, unless a child still holds it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def held(path: Path) -> bool:
    """Returns whether some process holds the lock."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        # Shared, so that two that only ask don't see each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        return False
    finally:
        os.close(descriptor)
