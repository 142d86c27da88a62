"""Reading examples on the host ahead of their use, with Grain's threads."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from cnnjax.data import dataset
from cnnjax.data.dataset import Split
from cnnjax.data.host import HostTransform

# Rows that one task reads. Grain spends 0.1 to 0.5 ms of Python on a task, which a task of one
# JPEG (about 1 ms) would feel; a batch must still be spread over all threads.
_ROWS = 16


@dataclasses.dataclass(frozen=True)
class HostStream:
    """Stacks of examples, read and transformed by threads ahead of their use.

    Attributes:
      split: where the examples come from.
      transform: what makes their sizes one; None if they are.
      threads: that read and decode; 0 for one a core.
    """

    split: Split
    transform: HostTransform | None
    threads: int = 0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images that come out."""
        if self.transform is None:
            return self.split.image_shape
        return (*self.transform.size, self.split.channels)

    def read(self, indices: np.ndarray, epochs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns images uint8 [b, H, W, C] and labels int32 [b] of the examples, as in epochs."""
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        labels = np.empty(len(indices), np.int32)
        examples = dataset.read_many(self.split.source, indices.tolist())
        for row, (image, label) in enumerate(examples):
            if self.transform is not None:
                image = self.transform(image, int(epochs[row]), int(indices[row]))
            images[row], labels[row] = image, label
        return images, labels

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

        def task(number: int) -> tuple[np.ndarray, ...]:
            step, part = divmod(int(number), len(starts))
            indices, epochs = (a[starts[part]:starts[part] + _ROWS]
                               for a in examples_of(steps[step]))
            return *self.read(indices, epochs), indices

        # A whole step may wait to be fetched: threads must not pause because the device is busy.
        with self._in_threads(task, len(steps) * len(starts), len(starts)) as results:
            for done in range(0, len(steps), steps_per_call):
                k = min(steps_per_call, len(steps) - done)
                batch = {"image": np.empty((k, rows, *self.image_shape), np.uint8),
                         "label": np.empty((k, rows), np.int32),
                         "index": np.empty((k, rows), np.int32)}
                for step in range(k):
                    for start in starts:
                        for name, part in zip(batch, next(results), strict=True):
                            batch[name][step, start:start + len(part)] = part
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
