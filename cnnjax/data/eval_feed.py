"""What evaluation consumes: every example of a split, each counted once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from cnnjax.data import feed
from cnnjax.data import placement as place
from cnnjax.data.dataset import Split
from cnnjax.data.feed import Batch
from cnnjax.data.stream import HostStream, Report, no_report
from cnnjax.lookahead import ahead


class EvalFeed(Protocol):
    """Evaluation batches.

    Attributes:
      constants: as in `Feed`.
      image_shape: (H, W, C) of the images that `fetch` gives.
      batch_size: rows of a batch, over all devices and processes; a multiple of the number of
        devices.
      num_examples: examples of the split, of which those that can be read count.
    """

    constants: dict[str, jax.Array]
    image_shape: tuple[int, int, int]
    batch_size: int
    num_examples: int

    def batches(self) -> Iterator[Batch]:
        """Yields ceil(num_examples / batch_size) batches, in the order of the split.

        The arrays are [batch_size, …], sharded over the mesh axis "data" along dimension 0, on
        the devices or on their way there, the next two behind them. Where the last batch goes
        beyond the split, it repeats the last example with mask 0, which stands also where an
        example cannot be read and another is in its place.
        """
        ...

    @staticmethod
    def fetch(constants: Any, batch: Batch) -> Batch:
        """Returns the examples of a batch; to be called inside the jitted step.

        Returns:
          {"image": uint8 [B, H, W, C], "label": int32 [B], "index": int32 [B],
          "mask": float32 [B]}: the mask is 1 for rows that count, else 0.
        """
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class ResidentEvalFeed:
    """An `EvalFeed` from data that live on the device."""

    constants: dict[str, jax.Array]
    num_examples: int
    batch_size: int
    mesh: Mesh
    good: np.ndarray | None = None  # bool [N]; None if all of the examples are.

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.constants["image"].shape[1:]

    def batches(self) -> Iterator[Batch]:
        rows = place.local_rows(self.mesh, self.batch_size)

        def put(step: int) -> Batch:
            index, mask = _padded(step * self.batch_size + rows, self.num_examples)
            if self.good is not None:
                mask *= self.good[index]
            return place.put_rows(self.mesh, {"index": index, "mask": mask}, self.batch_size, 0)

        return ahead(range(-(-self.num_examples // self.batch_size)), put)

    fetch = staticmethod(feed.ResidentFeed.fetch)


@dataclasses.dataclass(frozen=True, eq=False)
class StreamEvalFeed:
    """An `EvalFeed` from data that are read and decoded on the host, ahead of the device."""

    stream: HostStream
    batch_size: int
    mesh: Mesh
    report: Report = no_report
    constants: dict[str, jax.Array] = dataclasses.field(default_factory=dict, init=False)

    @property
    def num_examples(self) -> int:
        return len(self.stream.split)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.stream.image_shape

    def batches(self) -> Iterator[Batch]:
        rows = place.local_rows(self.mesh, self.batch_size)
        steps = -(-self.num_examples // self.batch_size)

        def examples_of(step: int) -> tuple[np.ndarray, np.ndarray]:
            index, _ = _padded(step * self.batch_size + rows, self.num_examples)
            return index, np.zeros_like(index)

        def put(item: tuple[int, dict[str, np.ndarray]]) -> Batch:
            step, batch = item
            _, mask = _padded(step * self.batch_size + rows, self.num_examples)
            batch = {name: array[0] for name, array in batch.items()}
            batch["mask"] = mask * batch.pop("good")
            return place.put_rows(self.mesh, batch, self.batch_size, axis=0)

        host = enumerate(self.stream.calls(examples_of, len(rows), range(steps),
                                           report=self.report))
        return ahead(host, put)

    fetch = staticmethod(feed.StreamFeed.fetch)


@dataclasses.dataclass(frozen=True, eq=False)
class HostEvalFeed:
    """An `EvalFeed` from arrays on the host, of which each device gets its rows of each batch."""

    arrays: dict[str, np.ndarray]
    batch_size: int
    mesh: Mesh
    prefetch: int = 2
    constants: dict[str, jax.Array] = dataclasses.field(default_factory=dict, init=False)

    @property
    def num_examples(self) -> int:
        return len(self.arrays["label"])

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.arrays["image"].shape[1:]

    def batches(self) -> Iterator[Batch]:
        rows = place.local_rows(self.mesh, self.batch_size)

        def put(step: int) -> Batch:
            index, mask = _padded(step * self.batch_size + rows, self.num_examples)
            batch = {name: array[index] for name, array in self.arrays.items()}
            return place.put_rows(self.mesh, batch | {"index": index, "mask": mask},
                                  self.batch_size, 0)

        return ahead(range(-(-self.num_examples // self.batch_size)), put, self.prefetch)

    fetch = staticmethod(feed.StreamFeed.fetch)


def make_eval_feed(split: Split, *, batch_size: int, mesh: Mesh, image_size: tuple[int, int],
                   crop: float = 0.875, placement: str = "auto", threads: int = 0,
                   interpolation: str = "bilinear", on_error: str = "raise",
                   report: Report = no_report, workers: int = 0) -> EvalFeed:
    """Makes the feed of an evaluation.

    Images of one size come out as they are, to be resized on the device; images of different
    sizes come out as `image_size`, cut at the centre.

    Args:
      split: the examples.
      batch_size: over all devices and processes; rounded up to a multiple of the number of
        devices, and no more than the split needs.
      mesh: with the one axis "data".
      image_size: (H, W) in pixels, what the model takes.
      crop: share of the side that the centre crop keeps.
      placement: as in `make_train_feed`.
      threads: that read and decode; 0 for one a core.
      interpolation: "bilinear" or "bicubic".
      on_error: "raise", or "skip" to leave out of account examples that cannot be read.
      report: (index, name, reason), called for each time that one was skipped.
      workers: processes that read and decode in the place of threads; 0 for none.

    Raises:
      BadExample: for an example that cannot be read; while batches are made, unless resident.
      UserError: if an argument is out of range.
    """
    rows = -(-min(max(batch_size, 1), len(split)) // mesh.size) * mesh.size
    stream = feed.make_stream(split, image_size, crop, None, interpolation, threads, 0, on_error,
                              workers)
    if feed.is_resident(stream, placement, mesh):
        constants, good = feed.make_resident(stream, mesh, report)
        return ResidentEvalFeed(constants, len(split), rows, mesh, good)
    return StreamEvalFeed(stream, rows, mesh, report)


def make_array_eval_feed(arrays: dict[str, np.ndarray], *, batch_size: int, mesh: Mesh,
                         placement: str = "device") -> EvalFeed:
    """Makes the feed of an evaluation of arrays in memory; as `feed.make_array_feed`.

    Placed on the "device" all of them lie on every one; a "stream" of them stays on the host.
    """
    count = len(arrays["label"])
    rows = -(-min(max(batch_size, 1), count) // mesh.size) * mesh.size
    if placement == "stream":
        return HostEvalFeed(arrays, rows, mesh)
    return ResidentEvalFeed(place.put_everywhere(mesh, arrays), count, rows, mesh)


def _padded(positions: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (example int32, mask float32) of positions that may lie beyond the last example."""
    return (np.minimum(positions, count - 1).astype(np.int32),
            (positions < count).astype(np.float32))
