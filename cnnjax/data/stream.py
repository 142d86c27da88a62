"""Reading examples on the host ahead of their use, with Grain's threads."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from cnnjax.data import dataset
from cnnjax.data.bad_examples import BadExample, Problem, Reader
from cnnjax.data.dataset import Split
from cnnjax.data.host import HostTransform

Rows = dict[str, np.ndarray]
Report = Callable[[int, str, str], None]  # Of (index, name, reason) of a bad example.
# Rows that one task reads. Grain spends 0.1 to 0.5 ms of Python on a task, which a task of one
# JPEG (about 1 ms) would feel; a batch must still be spread over all threads.
_ROWS = 16


def no_report(index: int, name: str, reason: str) -> None:
    """Reports nothing."""


def _empty(leading: tuple[int, ...], image_shape: tuple[int, int, int]) -> Rows:
    return {"image": np.empty((*leading, *image_shape), np.uint8),
            "label": np.empty(leading, np.int32), "good": np.empty(leading, bool)}


@dataclasses.dataclass(frozen=True)
class HostStream:
    """Stacks of examples, read and transformed by threads ahead of their use.

    Attributes:
      split: where the examples come from.
      transform: what makes their sizes one; None if they are.
      threads: that read and decode; 0 for one a core.
      reader: what reads them, and says what happens to bad ones.
    """

    split: Split
    transform: HostTransform | None
    threads: int = 0
    reader: Reader | None = None

    def __post_init__(self):
        if self.reader is None:
            object.__setattr__(self, "reader", Reader(self.split, skip=False))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images that come out."""
        if self.transform is None:
            return self.split.image_shape
        return (*self.transform.size, self.split.channels)

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
        for row, (index, example, bad) in enumerate(self.reader.read(indices.tolist())):
            image, rows["label"][row] = example
            if self.transform is not None:
                image = self.transform(image, int(epochs[row]), index)
            rows["image"][row] = image
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

        # What was wrong is returned, because the task may run in another process.
        def task(number: int) -> tuple[Rows, list[Problem]]:
            step, part = divmod(int(number), len(starts))
            return self.read(*(a[starts[part]:starts[part] + _ROWS]
                               for a in examples_of(steps[step])))

        # A whole step may wait to be fetched: threads must not pause because the device is busy.
        with self._in_threads(task, len(steps) * len(starts), len(starts)) as results:
            for done in range(0, len(steps), steps_per_call):
                k = min(steps_per_call, len(steps) - done)
                batch = _empty((k, rows), self.image_shape)
                batch["index"] = np.empty((k, rows), np.int32)
                for step in range(k):
                    for start in starts:
                        part, problems = next(results)
                        for name, array in part.items():
                            batch[name][step, start:start + len(array)] = array
                        for problem in problems:
                            report(*problem)
                yield batch

    @contextlib.contextmanager
    def _in_threads(self, task: Callable[[int], tuple], count: int, waiting: int):
        """Gives an iterator over task(0) to task(count - 1), which threads compute ahead."""
        import grain

        threads = self.threads or dataset.available_cores()
        tasks = grain.MapDataset.range(count).map(task)
        iterator = iter(tasks.to_iter_dataset(grain.ReadOptions(
            num_threads=threads, prefetch_buffer_size=2 * threads + waiting)))
        try:
            yield iterator
        finally:
            # Ends the threads when the consumer stops early, say at a preemption.
            if hasattr(iterator, "close"):
                iterator.close()
