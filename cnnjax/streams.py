"""Standard output and error that never end a run: what cannot be written is left out.

A reader that has gone (`| head -1`, a tee that Ctrl-C has ended first), a full disk below a log and
a descriptor that was closed raise nothing, and the next line is tried again.

Imports nothing of size: `launch.py` calls it before anything else.
"""

from __future__ import annotations

import io
import os
import sys


def never_fail() -> None:
    """Puts such streams in the place of `sys.stdout` and `sys.stderr`, and opens what is closed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest that is free, so this one: a file of the run would get what libraries print
            # to it. Processes that this one starts, as itself anew, inherit it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout, sys.stderr = _stream(1, sys.stdout), _stream(2, sys.stderr)


def _stream(descriptor: int, before: io.TextIOWrapper | None) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(_Outlet(descriptor, "w", closefd=False)),
        encoding=before and before.encoding,
        errors="backslashreplace",  # Names of files need not be UTF-8.
        line_buffering=True)


class _Outlet(io.FileIO):
    """A descriptor that is written to; below the buffers, which would keep what it did not take."""

    def write(self, data) -> int:
        """Returns the bytes that need not be written any more: all of them, if none can be."""
        try:
            # None: a terminal or pipe that does not wait, and is full.
            return super().write(data) or len(data)
        except OSError:
            return len(data)
