"""Being asked to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from cnnjax import interrupts
from cnnjax.jobs import hosts


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether a stop was asked for; a second Ctrl-C interrupts at once.

    Until then `interrupts` ends the process at once, and again where `interrupts.hold(False)` says
    that there is nothing to save. Of a run over several processes all are told at the same call
    (`hosts`). Outside the main thread, where Python delivers no signals, nothing ever asks.
    """
    if hosts.several():
        with hosts.stop_requests() as should_stop:
            yield should_stop
        return
    asked = threading.Event()

    def ask(number, frame):
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    with interrupts.listening(ask):
        interrupts.hold()
        try:
            yield asked.is_set
        finally:
            interrupts.hold(False)
