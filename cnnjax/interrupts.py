"""Being asked to end while there is nothing to save: at once, with a sentence and exit code 75.

Python runs the handler of a signal between two of its own instructions, and a compilation is one
instruction that may take minutes, longer than a scheduler waits before it kills. So a thread of its
own, which the signal wakes through a pipe, ends the process. While there is something to save
(`hold`) it leaves that to whoever does (`jobs.signals`).

Imports nothing of size: `launch.py` starts it before anything else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from cnnjax import exit_codes

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_held = threading.Event()


def hold(there_is_something_to_save: bool = True) -> None:
    """Says whether a signal must not end the process at once."""
    (_held.set if there_is_something_to_save else _held.clear)()


@contextlib.contextmanager
def leave_when_asked() -> Iterator[None]:
    """Ends the process on SIGTERM, SIGUSR1 and Ctrl-C, unless on hold. For the main thread."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # A handler of Python's must be there for the number of the signal to be written to the pipe.
    before = {number: signal.signal(number, _leave_it_to_the_thread) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), name="interrupts", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writer)  # Ends the thread.


def _leave_it_to_the_thread(number, frame) -> None:
    pass


def _watch(reader: int) -> None:
    while number := os.read(reader, 1):
        if number[0] in SIGNALS and not _held.is_set():
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                print(f"launch.py: stopped by {signal.Signals(number[0]).name}; there was nothing "
                      "to save. Run the same command to go on.", file=sys.stderr, flush=True)
            os._exit(exit_codes.PREEMPTED)
    os.close(reader)
