"""Processes that read examples in the place of threads.

A worker is a fresh interpreter that imports neither JAX nor Grain, so that it takes no device and
little memory. It is given the `HostStream` once, and then reads what it is asked for, in any order,
into memory that it shares with who asks: which worker reads an example decides nothing about it. It
ends when its socket does: when the loader closes it, and also when the process that started it is
killed.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

from cnnjax.data.shared_memory import SharedMemory, View
from cnnjax.types import Failure, UserError

Rows = dict[str, np.ndarray]
# Signals to the whole group of processes: the one that trains decides what happens.
_LEFT_TO_THE_PARENT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
# A device or a pool of threads would be taken by what a source imports, not by this package.
_ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_MAIN = "import sys; from cnnjax.data import workers; workers.serve(*map(int, sys.argv[1:]))"


class Reads(Protocol):
    """What workers need of a stream, and do in its place."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Returns an array of any values, which `read_into` can fill, or a part of it."""

    def read_into(self, indices: np.ndarray, epochs: np.ndarray, rows: Rows) -> Any:
        """Fills rows, arrays [len(indices), …], and returns something small."""


@contextlib.contextmanager
def started(stream: Reads, count: int) -> Iterator[Reads]:
    """Gives the `read_into` of a stream, done by processes; it may be called by many threads.

    The rows that it fills are parts of arrays that its `empty` made.

    Raises:
      UserError: if the stream cannot be sent to another process; and what reading raises.
      Failure: when a worker has died, in whichever call comes to notice.
    """
    try:
        pickled = pickle.dumps(stream, protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UserError(f"The data cannot be sent to worker processes ({error}): set "
                        "--config.data.workers=0.") from None
    pool = _Pool(pickled, count)
    try:
        yield pool
    finally:
        pool.close()


class _Pool:
    """Workers, each of which one thread at a time talks to."""

    def __init__(self, stream: bytes, count: int):
        # At the end of a program that left an iterator open there is no telling what still works.
        atexit.register(self.close)
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._workers, self._memory, self._closed = [], SharedMemory(), False
        self.empty = self._memory.empty
        try:
            for _ in range(count):
                self._workers.append(_Worker(stream, self._memory))
                self._idle.put(self._workers[-1])
        except OSError as error:
            self.close()
            raise Failure(f"Worker process {len(self._workers) + 1} of {count} cannot be started "
                          f"({error.strerror}): set --config.data.workers to fewer, or to 0 for "
                          "threads.") from None

    def read_into(self, indices: np.ndarray, epochs: np.ndarray, rows: Rows) -> Any:
        worker = self._idle.get()
        try:
            return worker.read_into(indices, epochs, rows)
        finally:
            self._idle.put(worker)  # A dead one, too: whoever gets it next shall fail, not wait.

    def close(self) -> None:
        """Ends the workers, which have nothing to save, and waits until they are gone."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.wait()
        self._memory.close()


class _Worker:
    """The parent's end of a worker."""

    def __init__(self, stream: bytes, memory: SharedMemory):
        ours, theirs = socket.socketpair()
        environment = os.environ | _ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(
            path or os.getcwd() for path in sys.path)}
        with theirs, _blocked(_LEFT_TO_THE_PARENT):  # The worker inherits what is blocked.
            # Without -P the current folder would come before all that this process imports from.
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _MAIN, str(theirs.fileno()), str(memory.descriptor)],
                env=environment, pass_fds=[theirs.fileno(), memory.descriptor],
                stdin=subprocess.DEVNULL)
        self._connection, self._memory = Connection(ours.detach()), memory
        self._stream: bytes | None = stream

    def read_into(self, indices: np.ndarray, epochs: np.ndarray, rows: Rows) -> Any:
        try:
            if self._stream is not None:
                # Not when it was made, or each worker would wait until the one before has begun.
                self._connection.send_bytes(self._stream)
                self._stream = None
            self._connection.send((indices, epochs, {
                name: (self._memory.offset(array), array.shape, array.dtype.str)
                for name, array in rows.items()}))
            error, result = self._connection.recv()
            if error is not None:
                raise error
        except (EOFError, ConnectionError):
            raise Failure(self._obituary()) from None
        return result

    def _obituary(self) -> str:
        try:
            code = self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return f"Worker process {self.process.pid} of the loader no longer answers."
        if code >= 0:
            how = f"ended with exit code {code}; what it printed is above"
        elif code == -signal.SIGKILL:
            how = ("was killed (SIGKILL), which the system does where memory runs out: set "
                   "--config.data.workers to fewer, or to 0 for threads")
        else:
            how = (f"was ended by {signal.Signals(-code).name}: --config.data.workers=0 reads "
                   "with threads")
        return (f"Worker process {self.process.pid} of the loader {how}. The run goes on from its "
                "last checkpoint with the same command.")


@contextlib.contextmanager
def _blocked(signals: tuple[signal.Signals, ...]) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(descriptor: int, memory: int) -> None:
    """Reads for the other end of a socket, into a shared memory, until the socket closes."""
    connection, view = Connection(descriptor), View(memory)
    with contextlib.suppress(EOFError, ConnectionError):
        stream = pickle.loads(connection.recv_bytes())
        while True:
            indices, epochs, places = connection.recv()
            rows = {name: view.array(*place) for name, place in places.items()}
            try:
                answer = None, stream.read_into(indices, epochs, rows)
            except Exception as error:
                connection.send((_sendable(error), None))
                continue
            connection.send(answer)


def _sendable(error: Exception) -> Exception:
    """Returns the error, or what can be said of one that does not survive pickling."""
    import traceback

    text = "".join(traceback.format_exception(error))
    if not isinstance(error, UserError):
        error.add_note(f"In a worker process of the loader:\n{text}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"In a worker process of the loader:\n{text}")
    return error
