"""One run over several processes: meeting the others, speaking for all, and ending together.

`jax.distributed` does the work; here is when to start it, and how the processes agree. Each process
has its own part of every batch, and all of them the same state and the same numbers, so that
whatever is decided by those (a loss that is not finite, the best checkpoint) is decided alike.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import itertools
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np

from cnnjax import exit_codes, interrupts
from cnnjax.jobs.launches import ADDRESS, COUNT, INDEX, Launch
from cnnjax.types import Failure, UserError

PATIENCE = "CNNJAX_JOIN_SECONDS"  # How long the processes may take to find one another.
# A process that is silent for so long is taken for dead, and the others end.
HEARTBEAT_SECONDS = 30
_SILENCE = 10  # Seconds that a process waits for the others before it says so.
_ARRIVES = 10  # Seconds that a file may take from one host to another.
# What communication says when the other end is gone: over TCP, between GPUs, to process 0.
_LOST = ("Gloo", "NCCL", "oordination service", "UNAVAILABLE", "DEADLINE_EXCEEDED")
_EXPECTED = (exit_codes.DONE, exit_codes.PREEMPTED)  # With which all processes end alike.


def join(launch: Launch, stops_together: bool) -> None:
    """Starts `jax.distributed`, before JAX's first computation. Ends the process if none answers.

    Args:
      launch: of `launches.find_launch`.
      stops_together: whether a signal at one process stops all at one step (`stop_requests`). If
        not it ends that process, and with it the others.

    Raises:
      UserError: if JAX cannot find out what it needs.
    """
    patience = os.environ.get(PATIENCE, "300")
    if not patience.isdecimal() or not int(patience):
        raise UserError(f"{PATIENCE} is {patience!r}; it is a number of seconds, such as 300.")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", stops_together)
    # JAX itself would say nothing, and in the end abort with a trace of its C++.
    timers = [threading.Timer(seconds, then, (launch, int(patience))) for seconds, then in (
        (_SILENCE, _say_for_whom), (int(patience), _give_up))]
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        jax.distributed.initialize(**launch.options, heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                                   initialization_timeout=int(patience) + 60)
    except (RuntimeError, ValueError, KeyError) as error:
        if launch.certain:
            raise UserError(
                f"{launch.by} has started several processes, but JAX cannot join them: {error}. "
                f"Set {ADDRESS} (host:port of process 0), {COUNT} and {INDEX} in each, or "
                f"{COUNT}=1 for a run of its own in each.") from error
    finally:
        for timer in timers:
            timer.cancel()
    if stops_together:
        # From here on a signal is for all, whatever this process is doing.
        interrupts.hold(several())
        if several():
            interrupts.listen(_stop_all, (signal.SIGUSR1, signal.SIGHUP))


def _say_for_whom(launch: Launch, seconds: int) -> None:
    which, where = _named(launch)
    whom = "process 0" if launch.process else "the others"
    print(f"launch.py: {which} waits for {whom} (coordinator: {where}), for at most {seconds} s. "
          "Who is missing has not started yet, cannot reach that address, or has ended: see what "
          "it said.", file=sys.stderr, flush=True)


def _give_up(launch: Launch, seconds: int) -> NoReturn:
    which, where = _named(launch)
    print(f"launch.py: {which} did not find the others within {seconds} s "
          f"(coordinator: {where}). Is each of them running, and can it reach the port of process "
          f"0? {ADDRESS} names another host:port, {PATIENCE} a longer time, and {COUNT}=1 makes "
          "this a run of its own.", file=sys.stderr, flush=True)
    os._exit(1)


def _named(launch: Launch) -> tuple[str, str]:
    which = "This process" if launch.process is None else f"Process {launch.process}"
    return (f"{which}, started by {launch.by},",
            launch.options.get("coordinator_address") or "the one that JAX has detected")


def several() -> bool:
    """Whether this run has more than one process."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this is the process that writes files and the console."""
    return not several() or jax.process_index() == 0


def check_devices() -> None:
    """Raises a UserError, in all processes, if they have not the same number of devices each."""
    if not several():
        return
    counts = collections.Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        raise UserError("The processes of this run have different numbers of devices: " + ", ".join(
            f"{count} in process {process}" for process, count in sorted(counts.items()))
            + ". Start as many tasks on every node, and give each the same number of GPUs.")


def meet(name: str) -> None:
    """Returns when all processes have called it; a name for each place that does."""
    if several():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def meet_in(folder: Path) -> None:
    """Returns when all processes are there and have seen that the folder is the same for all.

    Raises:
      UserError: in all of them, if it is not.
    """
    if not several():
        return
    from jax.experimental import multihost_utils

    number = multihost_utils.broadcast_one_to_all(np.int32(random.SystemRandom().getrandbits(31)))
    sign, until = folder / f".meeting-{number}", time.monotonic() + _ARRIVES
    if is_first():
        sign.touch()
    meet("meeting")
    while not (found := sign.exists()) and time.monotonic() < until:
        time.sleep(0.1)
    seen = multihost_utils.process_allgather(np.int32(found))
    if is_first():
        sign.unlink()
    if blind := ", ".join(map(str, np.flatnonzero(seen == 0))):
        raise UserError(f"The workdir {folder} is not the same folder on all hosts: what process 0 "
                        f"writes there, process {blind} does not see. Give one on a file system "
                        "that they share: --workdir=DIR.")


def gather(mine: Any) -> list[Any]:
    """Returns what each process has, in their order. All must call it, with values of JSON."""
    if not several():
        return [mine]
    from jax.experimental import multihost_utils

    text = json.dumps(mine).encode()
    longest = int(multihost_utils.process_allgather(np.int32(len(text))).max())
    padded = np.frombuffer(text.ljust(longest), np.uint8)  # With spaces, as JSON allows.
    return [json.loads(part.tobytes()) for part in multihost_utils.process_allgather(padded)]


def agree(mine: Mapping[str, Any]) -> None:
    """Returns if all processes have the same, such as {"schedule.lr": 0.1}; values are of JSON.

    Raises:
      UserError: in all of them, if not: it names the keys, and who has what.
    """
    digest = hashlib.sha256(json.dumps(mine, sort_keys=True).encode()).hexdigest()
    if len(set(gather(digest))) == 1:
        return
    lines, everyones = [], gather(dict(mine))
    for key in sorted(set().union(*everyones)):
        found: dict[str, list[str]] = {}
        for process, values in enumerate(everyones):
            value = repr(values[key]) if key in values else "nothing"
            found.setdefault(value, []).append(str(process))
        if len(found) > 1:
            lines.append(f"  {key}: " + "; ".join(
                f"{value} in process {', '.join(who)}" for value, who in found.items()))
    raise UserError("The processes of this run do not agree on what it is:\n"
                    + "\n".join(lines) + "\nGive all of them the same command, and the same files "
                    "behind its paths.")


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Silences the standard output of all processes but the first."""
    if is_first():
        yield
        return
    sys.stdout.flush()
    before = os.dup(1)  # The descriptor, because Gloo prints there, too.
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            sys.stdout.flush()
            os.dup2(before, 1)
            os.close(before)


def _stop_all(number, frame) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether to stop now: at the same call in all processes.

    A signal at any of them is enough. JAX's preemption service (`jax.distributed`) tells the others
    behind the scenes and picks the call after the furthest that any has made, so that asking costs
    no communication. It listens for SIGTERM, which the other signals become here.
    """
    calls = itertools.count()
    from jax.experimental import multihost_utils

    with interrupts.listening(_stop_all, (signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)):
        yield lambda: multihost_utils.reached_preemption_sync_point(next(calls))


@contextlib.contextmanager
def closing(thing: Any) -> Iterator[None]:
    """Closes the thing at the end, but not after an error of several: others may never finish."""
    try:
        yield
    except BaseException:
        if not several():
            thing.close()
        raise
    thing.close()


@contextlib.contextmanager
def or_all_end(message_of: Callable[[UserError], object] = str) -> Iterator[None]:
    """Ends this process at once where an error would leave the others waiting for it.

    Python's way out leads through a barrier that those who wait elsewhere never reach.

    Args:
      message_of: a UserError -> what to print of it.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if not several():
            raise
        if isinstance(error, UserError):
            _say(message_of(error))
            leave(2)
        if isinstance(error, KeyboardInterrupt):
            _say("interrupted; the last checkpoint stays")
        elif isinstance(error, Failure):
            _say(error)
        elif isinstance(error, OSError):
            _say(f"{error}. The last checkpoint stays; the same command goes on from it.")
        elif any(word in str(error) for word in _LOST):
            _say("another process has died or failed: see what it said. The last checkpoint stays; "
                 "if that says nothing else, the same command goes on from it. "
                 f"({str(error).splitlines()[0][:300]})")
        else:
            traceback.print_exc()
            _say("failed, so the others end as well; the last checkpoint stays")
        leave(1)


def _say(message: object) -> None:
    print(f"launch.py: process {jax.process_index()} of {jax.process_count()}: {message}",
          file=sys.stderr, flush=True)


def leave(code: int) -> int:
    """Returns the exit code, or, if the other processes don't end with it too, ends this one."""
    if not several() or code in _EXPECTED:
        return code
    sys.stdout.flush()
    sys.stderr.flush()
    if jax.process_index() == 0:
        time.sleep(2)  # With it goes the line that the others are on, who may have as much to say.
    os._exit(code)
