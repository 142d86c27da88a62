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
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from cnnjax import exit_codes

# What schedulers send before they kill (SLURM can send USR1 early), Ctrl-C, and the end of a shell.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
# Begins the names of threads that compile what is called later: if the run stops before, never.
AHEAD = "compiles-ahead"
_held = threading.Event()
_SHOW_CURSOR = b"\x1b[?25h"  # Progress bars hide it until they end.


def hold(there_is_something_to_save: bool = True) -> None:
    """Says whether a signal must not end the process at once."""
    (_held.set if there_is_something_to_save else _held.clear)()


def listen(handler: Callable[[int, Any], None], numbers: Sequence[signal.Signals] = SIGNALS
           ) -> dict[signal.Signals, Any]:
    """Sets a handler, but of a SIGHUP that is ignored (nohup), and returns those before it.

    Outside the main thread, where Python delivers no signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in numbers
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN}


@contextlib.contextmanager
def listening(handler: Callable[[int, Any], None], numbers: Sequence[signal.Signals] = SIGNALS
              ) -> Iterator[None]:
    """A context in which `listen` has set a handler."""
    before = listen(handler, numbers)
    try:
        yield
    finally:
        for number, own in before.items():
            signal.signal(number, own)


@contextlib.contextmanager
def leave_when_asked() -> Iterator[None]:
    """Ends the process on one of SIGNALS, unless on hold. For the main thread.

    After the block they are ignored: all is written, and what Python and JAX take down for a second
    more must not change the exit code.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # A handler of Python's must be there for the number of the signal to be written to the pipe.
    listen(_leave_it_to_the_thread)
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), name="interrupts", daemon=True).start()
    try:
        yield
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(wakeup)
        os.close(writer)  # Ends the thread.


def end(code: int) -> NoReturn:
    """Ends the process when all is written; it does not wait for what compiles ahead.

    Python would, for up to a minute, and a scheduler may kill it before: with another exit code.
    """
    if any(thread.name.startswith(AHEAD) for thread in threading.enumerate()):
        if (jax := sys.modules.get("jax")) and jax.distributed.is_initialized():
            jax.distributed.shutdown()  # The others would take this one for dead.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _leave_it_to_the_thread(number, frame) -> None:
    pass


def _watch(reader: int) -> None:
    while number := os.read(reader, 1):
        if number[0] in SIGNALS and not _held.is_set():
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                print(f"launch.py: stopped by {signal.Signals(number[0]).name}; there was nothing "
                      "to save. Run the same command to go on.", file=sys.stderr, flush=True)
                if os.isatty(1):
                    os.write(1, _SHOW_CURSOR)
            os._exit(exit_codes.PREEMPTED)
    os.close(reader)
