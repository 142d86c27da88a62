"""Memory that a process and its workers both see: what one writes there needs no sending."""

from __future__ import annotations

import collections
import math
import mmap
import os
import tempfile
import threading
import weakref
from collections.abc import Sequence

import numpy as np

# Of a file mapping, which costs a descriptor. Pages that nobody writes to take no memory.
_MAPPING = 1 << 26


class SharedMemory:
    """Arrays in a file without a name, which workers map by its `descriptor`.

    Memory is handed out again when the last array in it is gone, those included which JAX makes
    of it without copying. Its pages are the kernel's to free: nothing is left behind however the
    processes end.
    """

    def __init__(self):
        self.descriptor = _file_without_a_name()
        self._lock = threading.Lock()
        self._bytes = 0  # Of the file.
        self._mapping, self._used = b"", 0  # The last one, and what is taken of it.
        self._mappings: list[tuple[int, int, int]] = []  # (address, bytes, offset in the file).
        self._free = collections.defaultdict(list)  # Bytes -> [(mapping, offset in it)].

    def empty(self, shape: Sequence[int], dtype: np.typing.DTypeLike) -> np.ndarray:
        """Returns a new array, [*shape], of any values."""
        count = math.prod(shape)
        pages = -(-count * np.dtype(dtype).itemsize // mmap.PAGESIZE)
        size = max(pages, 1) * mmap.PAGESIZE
        with self._lock:
            free = self._free[size]
            mapping, offset = place = free.pop() if free else self._new(size)
        # All views of it hold on to it, and not to what it is a view of.
        whole = np.frombuffer(mapping, dtype, count, offset)
        weakref.finalize(whole, free.append, place).atexit = False
        return whole.reshape(shape)

    def _new(self, size: int) -> tuple[mmap.mmap, int]:
        if self._used + size > len(self._mapping):
            length = max(size, _MAPPING)
            os.ftruncate(self.descriptor, self._bytes + length)
            self._mapping = mmap.mmap(self.descriptor, length, offset=self._bytes)
            self._mappings.append((_address(np.frombuffer(self._mapping, np.uint8)), length,
                                   self._bytes))
            self._bytes, self._used = self._bytes + length, 0
        self._used += size
        return self._mapping, self._used - size

    def offset(self, array: np.ndarray) -> int:
        """Returns where in the file an array of this memory begins, or a part of one."""
        address = _address(array)
        return next(offset + address - start for start, length, offset in self._mappings
                    if start <= address < start + length)

    def close(self) -> None:
        """Closes the file; arrays stay. From then on there are no new ones."""
        with self._lock:  # A late thread may still ask, when the number is another file's.
            os.close(self.descriptor)
            self.descriptor = -1


class View:
    """What another process sees of a `SharedMemory`, by a descriptor of its file."""

    def __init__(self, descriptor: int):
        self._descriptor, self._mapping = descriptor, b""

    def array(self, offset: int, shape: Sequence[int], dtype: np.typing.DTypeLike) -> np.ndarray:
        """Returns the array [*shape] that begins at an offset in the file."""
        count = math.prod(shape)
        if offset + count * np.dtype(dtype).itemsize > len(self._mapping):
            self._mapping = mmap.mmap(self._descriptor, 0)  # All that there is by now.
        return np.frombuffer(self._mapping, dtype, count, offset).reshape(shape)


def _file_without_a_name() -> int:
    if hasattr(os, "memfd_create"):  # On Linux: in memory, whatever size /dev/shm has.
        return os.memfd_create("cnnjax")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]
