"""Reading examples on the host ahead of their use, with Grain's threads or with processes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator

import numpy as np

from cnnjax.cores import available_cores
from cnnjax.data import dataset, workers
from cnnjax.data.bad_examples import BadExample, Problem
from cnnjax.data.dataset import Split
from cnnjax.data.host import HostTransform
from cnnjax.data.reader import Reader

Rows = dict[str, np.ndarray]
Report = Callable[[int, str, str], None]  # Of (index, name, reason) of a bad example.
# Rows that one task reads. Grain spends 0.1 to 0.5 ms of Python on a task, which a task of one
# JPEG (about 1 ms) would feel; a batch must still be spread over all threads.
_ROWS = 16


def no_report(index: int, name: str, reason: str) -> None:
    """Reports nothing."""


def _empty(leading: tuple[int, ...], image_shape: tuple[int, int, int],
           empty: Callable[..., np.ndarray] = np.empty) -> Rows:
    return {"image": empty((*leading, *image_shape), np.uint8),
            "label": empty(leading, np.int32), "good": empty(leading, bool)}


@dataclasses.dataclass(frozen=True)
class HostStream:
    """Stacks of examples, read and transformed by threads or processes ahead of their use.

    Threads are the default: OpenCV and Pillow release Python's lock while they work. Processes,
    which share the batches' memory, are as fast on two cores, but need a second to start and
    memory of their own. Which of the two reads changes nothing about the batches.

    Attributes:
      split: where the examples come from.
      transform: what makes their sizes one; None if they are.
      threads: that read and decode; 0 for one a core.
      reader: what reads them, and says what happens to bad ones.
      workers: processes that do it in their place; 0 for none. Examples in memory take threads.
    """

    split: Split
    transform: HostTransform | None
    threads: int = 0
    reader: Reader | None = None
    workers: int = 0

    def __post_init__(self):
        if self.reader is None:
            object.__setattr__(self, "reader", Reader(self.split, skip=False))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images that come out."""
        if self.transform is None:
            return self.split.image_shape
        return (*self.transform.size, self.split.channels)

    empty = staticmethod(np.empty)  # What makes the rows of `read_into`.

    def read(self, indices: np.ndarray, epochs: np.ndarray) -> tuple[Rows, list[Problem]]:
        """Returns examples, as in these epochs, and what was wrong with those that are not good."""
        rows = _empty((len(indices),), self.image_shape)
        problems = self.read_into(indices, epochs, rows)
        return rows | {"index": indices}, problems

    def read_into(self, indices: np.ndarray, epochs: np.ndarray, rows: Rows) -> list[Problem]:
        """Fills rows: image uint8 [b, H, W, C], label int32 [b] and good bool [b] of examples.

        Returns:
          What was wrong with those that are not good, in whose rows another one stands.
        """
        problems, rows["good"][:] = [], True
        examples = self.reader.read(indices.tolist())
        for row, (index, epoch) in enumerate(zip(indices.tolist(), epochs.tolist(), strict=True)):
            if self.transform is None:
                _, (rows["image"][row], rows["label"][row]), bad = next(examples)
            else:
                with self.transform.reading(epoch, index):
                    _, (image, rows["label"][row]), bad = next(examples)
                self.transform(image, epoch, index, rows["image"][row])
            if bad is not None:
                rows["good"][row] = False
                problems.append((index, bad.name, bad.reason))
        return problems

    def read_all(self) -> tuple[Rows, list[Problem]]:
        """Returns all examples in their order, and what was wrong with those that are not good."""
        count = len(self.split)
        in_memory = hasattr(self.split.source, "arrays")
        if self.transform is None and (in_memory or not self.reader.skip):
            try:
                images, labels = self.split.arrays()  # Kept, for whoever asks again.
            except BadExample as error:
                raise error.of_a_data_set() from None
            return {"image": images, "label": labels, "good": np.ones(count, bool)}, []
        rows = _empty((count,), self.image_shape)

        def read(part: range) -> list[Problem]:
            indices = np.arange(part.start, part.stop)
            return self.read_into(indices, np.zeros_like(indices), {
                name: array[part.start:part.stop] for name, array in rows.items()})

        found = dataset.in_blocks(read, count, self.threads)
        return rows, [problem for problems in found for problem in problems]

    def calls(self, examples_of: Callable[[int], tuple[np.ndarray, np.ndarray]], rows: int,
              steps: range, steps_per_call: int = 1, report: Report = no_report
              ) -> Iterator[Rows]:
        """Yields stacks of k = steps_per_call steps, at the end what is left, reading ahead.

        Args:
          examples_of: (step) -> (indices int32 [rows], epochs int [rows]) of the examples to
            read. It is called by the threads, in any order.
          rows: of a step.
          steps: consecutive.
          steps_per_call: 1 or more.
          report: called here, with what was wrong with each row that is not good.

        Yields:
          {"image": uint8 [k, rows, H, W, C], "label" and "index": int32 [k, rows], "good":
          bool [k, rows]}: False where another example stands in the place of a bad one.
        """
        starts = range(0, rows, _ROWS)
        batches, lock = {}, threading.Lock()

        def rows_of(call: int, reader: workers.Reads) -> Rows:
            with lock:
                if call not in batches:
                    k = min(steps_per_call, len(steps) - call * steps_per_call)
                    batches[call] = _empty((k, rows), self.image_shape, reader.empty) | {
                        "index": np.empty((k, rows), np.int32)}
                return batches[call]

        # What was wrong is returned, because the reader may be another process.
        def task(reader: workers.Reads, number: int) -> list[Problem]:
            step, part = divmod(int(number), len(starts))
            part = slice(starts[part], starts[part] + _ROWS)
            indices, epochs = (a[part] for a in examples_of(steps[step]))
            call, place = divmod(step, steps_per_call)
            # Each row is written once, where it stays.
            own = {name: array[place, part] for name, array in rows_of(call, reader).items()}
            own.pop("index")[:] = indices
            return reader.read_into(indices, epochs, own)

        # A whole step may wait to be fetched: threads must not pause because the device is busy.
        with self._ahead(task, len(steps) * len(starts), len(starts)) as results:
            for call in range(-(-len(steps) // steps_per_call)):
                for _ in range(min(steps_per_call, len(steps) - call * steps_per_call)
                               * len(starts)):
                    for problem in next(results):
                        report(*problem)
                yield batches.pop(call)

    @contextlib.contextmanager
    def _ahead(self, task: Callable[[workers.Reads, int], list[Problem]], count: int,
               waiting: int):
        """Gives an iterator over the tasks 0 to count - 1, which are done ahead of it."""
        in_memory = hasattr(self.split.source, "arrays")
        with contextlib.ExitStack() as stack:
            reader, threads = self, self.threads or available_cores()
            if self.workers and count and not in_memory:
                reader = stack.enter_context(workers.started(self, min(self.workers, count)))
                threads = self.workers + 1  # One waits for whichever worker is done first.
            yield stack.enter_context(_in_threads(functools.partial(task, reader), count, threads,
                                                  2 * threads + waiting))


@contextlib.contextmanager
def _in_threads(task: Callable[[int], list[Problem]], count: int, threads: int, ahead: int):
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
