"""Reading examples on the host ahead of their use, with Grain's threads or with processes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator

import numpy as np

from cnnjax.data import dataset, workers
from cnnjax.data.dataset import Split
from cnnjax.data.host import HostTransform

# Rows that one task reads. Grain spends 0.1 to 0.5 ms of Python on a task, which a task of one
# JPEG (about 1 ms) would feel; a batch must still be spread over all threads.
_ROWS = 16
Rows = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class HostStream:
    """Stacks of examples, read and transformed by threads or processes ahead of their use.

    Threads are the default: OpenCV and Pillow release Python's lock while they work, and what they
    write is in place already, where a process takes a tenth more CPU time for a photo, to send it.
    Which of the two reads changes nothing about the batches.

    Attributes:
      split: where the examples come from.
      transform: what makes their sizes one; None if they are.
      threads: that read and decode; 0 for one a core.
      workers: processes that do it in their place; 0 for none. Examples in memory take threads.
    """

    split: Split
    transform: HostTransform | None
    threads: int = 0
    workers: int = 0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images that come out."""
        if self.transform is None:
            return self.split.image_shape
        return (*self.transform.size, self.split.channels)

    def read_into(self, indices: np.ndarray, epochs: np.ndarray, rows: Rows) -> None:
        """Fills rows: images uint8 [b, H, W, C] and labels int32 [b] of examples, as in epochs."""
        examples = iter(dataset.read_many(self.split.source, indices.tolist()))
        for row, (index, epoch) in enumerate(zip(indices.tolist(), epochs.tolist(), strict=True)):
            if self.transform is None:
                rows["image"][row], rows["label"][row] = next(examples)
                continue
            with self.transform.reading(epoch, index):
                image, rows["label"][row] = next(examples)
            self.transform(image, epoch, index, rows["image"][row])

    def read_all(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns all examples: images uint8 [N, H, W, C], labels int32 [N], in their order."""
        if self.transform is None:
            return self.split.arrays()

        def load(rows: range) -> Iterator[tuple[np.ndarray, int]]:
            examples = dataset.read_many(self.split.source, rows)
            for i, (image, label) in zip(rows, examples, strict=True):
                yield self.transform(image, 0, i), label

        return dataset.read_arrays(load, len(self.split), self.image_shape, self.threads)

    def calls(self, examples_of: Callable[[int], tuple[np.ndarray, np.ndarray]], rows: int,
              steps: range, steps_per_call: int = 1) -> Iterator[dict[str, np.ndarray]]:
        """Yields stacks of k = steps_per_call steps, at the end what is left, reading ahead.

        Args:
          examples_of: (step) -> (indices int32 [rows], epochs int [rows]) of the examples to
            read. It is called by the threads, in any order.
          rows: of a step.
          steps: consecutive.
          steps_per_call: 1 or more.

        Yields:
          {"image": uint8 [k, rows, H, W, C], "label" and "index": int32 [k, rows]}.
        """
        starts = range(0, rows, _ROWS)
        batches, lock = {}, threading.Lock()

        def rows_of(call: int) -> Rows:
            with lock:
                if call not in batches:
                    k = min(steps_per_call, len(steps) - call * steps_per_call)
                    batches[call] = {"image": np.empty((k, rows, *self.image_shape), np.uint8),
                                     "label": np.empty((k, rows), np.int32),
                                     "index": np.empty((k, rows), np.int32)}
                return batches[call]

        def task(reader: workers.Reads, number: int) -> int:
            step, part = divmod(int(number), len(starts))
            part = slice(starts[part], starts[part] + _ROWS)
            indices, epochs = (a[part] for a in examples_of(steps[step]))
            call, place = divmod(step, steps_per_call)
            # Each row is written once, where it stays.
            own = {name: array[place, part] for name, array in rows_of(call).items()}
            own.pop("index")[:] = indices
            reader.read_into(indices, epochs, own)
            return number  # Grain leaves out what is None.

        # A whole step may wait to be fetched: threads must not pause because the device is busy.
        with self._ahead(task, len(steps) * len(starts), len(starts)) as results:
            for call in range(-(-len(steps) // steps_per_call)):
                for _ in range(min(steps_per_call, len(steps) - call * steps_per_call)
                               * len(starts)):
                    next(results)
                yield batches.pop(call)

    @contextlib.contextmanager
    def _ahead(self, task: Callable[[workers.Reads, int], int], count: int, waiting: int):
        """Gives an iterator over the tasks 0 to count - 1, which are done ahead of it."""
        in_memory = hasattr(self.split.source, "arrays")
        with contextlib.ExitStack() as stack:
            reader, threads = self, self.threads or dataset.available_cores()
            if self.workers and count and not in_memory:
                reader = stack.enter_context(workers.started(self, min(self.workers, count)))
                threads = self.workers + 1  # One waits for whichever worker is done first.
            yield stack.enter_context(_in_threads(functools.partial(task, reader), count, threads,
                                                  2 * threads + waiting))


@contextlib.contextmanager
def _in_threads(task: Callable[[int], int], count: int, threads: int, ahead: int):
    """Gives an iterator over task(0) to task(count - 1), which threads compute ahead."""
    import grain

    tasks = grain.MapDataset.range(count).map(task)
    iterator = iter(tasks.to_iter_dataset(grain.ReadOptions(
        num_threads=threads, prefetch_buffer_size=ahead)))
    try:
        yield iterator
    finally:
        # Ends the threads when the consumer stops early, say at a preemption.
        if hasattr(iterator, "close"):
            iterator.close()
