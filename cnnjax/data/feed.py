"""What the training loop consumes: batches on the device, from any step on.

Two implementations of one contract. `ResidentFeed` keeps the whole data set on the device, and a
batch is a row of indices; `StreamFeed` reads, decodes and cuts on the host ahead of the device.
For the same data, seed and step both give the same batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from cnnjax.data import placement as place
from cnnjax.data.bad_examples import ON_ERROR
from cnnjax.data.dataset import Split
from cnnjax.data.host import HostTransform
from cnnjax.data.order import TrainOrder
from cnnjax.data.reader import Reader
from cnnjax.data.stream import HostStream, Report, no_report
from cnnjax.lookahead import ahead
from cnnjax.types import UserError

PLACEMENTS = ("auto", "device", "stream")
_AT_ONCE = 8192  # Indices of resident data that are computed together; more would take too long.
Batch = dict[str, jax.Array]
HostBatch = dict[str, np.ndarray]  # This process's rows.


class Feed(Protocol):
    """Training batches.

    Attributes:
      constants: arrays that every step needs, to be passed into it (not closed over, which would
        compile them in): {"image": uint8 [N, H, W, C], "label": int32 [N]}, whole on every
        device; {} when streaming.
      image_shape: (H, W, C) of the images that `fetch` gives.
      batch_size: rows of a batch, over all devices and processes.
    """

    constants: dict[str, jax.Array]
    image_shape: tuple[int, int, int]
    batch_size: int

    def batches(self, start_step: int, stop_step: int, steps_per_call: int = 1
                ) -> Iterator[tuple[int, Batch]]:
        """Yields (k, batch) for the steps start_step..stop_step-1.

        A batch holds k steps: `steps_per_call`, at the end what is left. Its arrays are
        [k, batch_size, …] (also for k = 1), sharded over the mesh axis "data" along dimension 1,
        on the devices or on their way there, the next two behind them; the indices of resident
        data on one device are NumPy arrays. What comes for a step depends on the step alone, not
        on where the iteration began.
        """
        ...

    def batch_shapes(self, steps: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes of what `batches` yields for a number of steps, and where they lie."""
        ...

    def host_batches(self, start_step: int, stop_step: int, steps_per_call: int = 1
                     ) -> Iterator[HostBatch]:
        """Yields what `batches` puts on the devices, before it is put there: NumPy arrays."""
        ...

    def put(self, batch: HostBatch) -> Batch:
        """Returns a batch of `host_batches` as `batches` yields it, perhaps still on its way."""
        ...

    @staticmethod
    def fetch(constants: Any, batch: Batch) -> Batch:
        """Returns the examples of one step; to be called inside the jitted step.

        Args:
          constants: `Feed.constants`.
          batch: one step of a batch, arrays [B, …].

        Returns:
          {"image": uint8 [B, H, W, C], "label": int32 [B], "index": int32 [B]}: the last is the
          example's number in the split.
        """
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class ResidentFeed:
    """A `Feed` from data that live on the device."""

    constants: dict[str, jax.Array]
    order: TrainOrder
    batch_size: int
    mesh: Mesh

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.constants["image"].shape[1:]

    def batches(self, start_step: int, stop_step: int, steps_per_call: int = 1
                ) -> Iterator[tuple[int, Batch]]:
        return _put_ahead(self, start_step, stop_step, steps_per_call)

    def batch_shapes(self, steps: int) -> dict[str, jax.ShapeDtypeStruct]:
        where = None if self.mesh.size == 1 else place.rows_sharding(self.mesh, axis=1)
        return {"index": jax.ShapeDtypeStruct((steps, self.batch_size), np.int32, sharding=where)}

    def host_batches(self, start_step: int, stop_step: int, steps_per_call: int = 1
                     ) -> Iterator[HostBatch]:
        rows = place.local_rows(self.mesh, self.batch_size)
        # Those of many calls at once: beside a device that is this CPU, and has its caches, NumPy
        # takes 70 us a time for what takes 13 alone, two per cent of a step of LeNet-5.
        many = steps_per_call * max(1, _AT_ONCE // (steps_per_call * len(rows)))
        for start in range(start_step, stop_step, many):
            steps = np.arange(start, min(start + many, stop_step), dtype=np.int64)
            index = self.order.at(steps[:, None] * self.batch_size + rows)
            for i in range(0, len(steps), steps_per_call):
                yield {"index": index[i:i + steps_per_call].copy()}

    def put(self, batch: HostBatch) -> Batch:
        # For one device the call itself takes so small an array along, seven times as fast as an
        # array of its own could be put there: one per cent of a step of LeNet-5.
        if self.mesh.size == 1:
            return batch
        return place.put_rows(self.mesh, batch, self.batch_size, axis=1)

    @staticmethod
    def fetch(constants: Any, batch: Batch) -> Batch:
        # The indices are in range by construction: no clamping, and no filling in.
        gathered = {name: array.at[batch["index"]].get(mode="promise_in_bounds")
                    for name, array in constants.items()}
        return {**batch, **gathered}


@dataclasses.dataclass(frozen=True, eq=False)
class StreamFeed:
    """A `Feed` from data that are read and decoded on the host, ahead of the device."""

    stream: HostStream
    order: TrainOrder
    batch_size: int
    mesh: Mesh
    report: Report = no_report
    constants: dict[str, jax.Array] = dataclasses.field(default_factory=dict, init=False)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.stream.image_shape

    def batches(self, start_step: int, stop_step: int, steps_per_call: int = 1
                ) -> Iterator[tuple[int, Batch]]:
        return _put_ahead(self, start_step, stop_step, steps_per_call)

    def batch_shapes(self, steps: int) -> dict[str, jax.ShapeDtypeStruct]:
        rows, where = (steps, self.batch_size), place.rows_sharding(self.mesh, axis=1)
        return {name: jax.ShapeDtypeStruct((*rows, *shape), dtype, sharding=where)
                for name, shape, dtype in (("image", self.image_shape, np.uint8),
                                           ("label", (), np.int32), ("index", (), np.int32))}

    def host_batches(self, start_step: int, stop_step: int, steps_per_call: int = 1
                     ) -> Iterator[HostBatch]:
        rows = place.local_rows(self.mesh, self.batch_size)

        def examples_of(step: int) -> tuple[np.ndarray, np.ndarray]:
            positions = step * self.batch_size + rows
            return self.order.at(positions), self.order.passes(positions)

        for batch in self.stream.calls(examples_of, len(rows), range(start_step, stop_step),
                                       steps_per_call, self.report):
            del batch["good"]  # Training takes what stands in for a bad example.
            yield batch

    def put(self, batch: HostBatch) -> Batch:
        return place.put_rows(self.mesh, batch, self.batch_size, axis=1)

    @staticmethod
    def fetch(constants: Any, batch: Batch) -> Batch:
        del constants
        return batch


def _put_ahead(feed: ResidentFeed | StreamFeed, start_step: int, stop_step: int,
               steps_per_call: int) -> Iterator[tuple[int, Batch]]:
    def put(batch: HostBatch) -> tuple[int, Batch]:
        return len(batch["index"]), feed.put(batch)

    return ahead(feed.host_batches(start_step, stop_step, steps_per_call), put)


def make_train_feed(split: Split, *, batch_size: int, seed: int, mesh: Mesh,
                    image_size: tuple[int, int], crop: float = 0.875,
                    random_resized_crop: tuple[float, float] | None = None,
                    placement: str = "auto", threads: int = 0, interpolation: str = "bilinear",
                    repeats: int = 1, on_error: str = "raise",
                    report: Report = no_report, workers: int = 0) -> Feed:
    """Makes the feed of a training run.

    Images of one size come out as they are, to be cut and resized on the device, whatever the
    placement; images of different sizes come out as `image_size`, cut at the centre or, with
    `random_resized_crop`, at random.

    Args:
      split: the examples.
      batch_size: over all devices and processes.
      seed: of the order and of the random crops.
      mesh: with the one axis "data".
      image_size: (H, W) in pixels, what the model takes.
      crop: share of the side that the centre crop keeps.
      random_resized_crop: smallest and largest share of the area; None for the centre.
      placement: "device" keeps the whole split on every device, "stream" reads as it goes, and
        "auto" chooses the former if the images are the same in every epoch and fit
        (`resident_limit`).
      threads: that read and decode; 0 for one a core.
      interpolation: "bilinear" or "bicubic".
      repeats: of `TrainOrder`, for repeated augmentation.
      on_error: "raise", or "skip" to put another example in the place of one that cannot be read
        (`Reader`).
      report: (index, name, reason), called for each time that one was skipped.
      workers: processes that read and decode in the place of threads; 0 for none.

    Raises:
      BadExample: for an example that cannot be read; while batches are made, unless resident.
      UserError: if the batch is larger than the split or cannot be divided by the devices, or an
        argument is out of range.
    """
    check_batch_size(batch_size, len(split), mesh)
    check_crops(split, placement, random_resized_crop)
    stream = make_stream(split, image_size, crop, random_resized_crop, interpolation, threads, seed,
                         on_error, workers)
    order = TrainOrder(seed, len(split), repeats)
    if is_resident(stream, placement, mesh):
        constants, _ = make_resident(stream, mesh, report)
        return ResidentFeed(constants, order, batch_size, mesh)
    return StreamFeed(stream, order, batch_size, mesh, report)


def make_array_feed(arrays: dict[str, np.ndarray], *, batch_size: int, seed: int, mesh: Mesh
                    ) -> ResidentFeed:
    """Makes a feed of arrays in memory, in the order in which `make_train_feed` gives the examples.

    Args:
      arrays: "image", of any dtype and shape [N, …], and "label", int32 [N].
      batch_size: over all devices and processes.
      seed: of the order.
      mesh: with the one axis "data".
    """
    order = TrainOrder(seed, len(arrays["label"]))
    return ResidentFeed(place.put_everywhere(mesh, arrays), order, batch_size, mesh)


def make_stream(split: Split, image_size: tuple[int, int], crop: float,
                random_resized_crop: tuple[float, float] | None, interpolation: str, threads: int,
                seed: int, on_error: str, workers: int) -> HostStream:
    """Returns the host's part of a feed, with a transform if the images need one."""
    if on_error not in ON_ERROR:
        raise UserError(f"data.on_error is {on_error!r}; it is one of {', '.join(ON_ERROR)}.")
    # Made even if it is not needed, so that a wrong value is found out on any data set.
    transform = HostTransform(tuple(image_size), crop, interpolation, random_resized_crop, seed)
    return HostStream(split, transform if split.image_shape is None else None, threads,
                      Reader(split, skip=on_error == "skip"), workers)


def make_resident(stream: HostStream, mesh: Mesh, report: Report
                  ) -> tuple[dict[str, jax.Array], np.ndarray]:
    """Puts a whole split onto every device; also returns which rows are good, bool [N]."""
    rows, problems = stream.read_all()
    if jax.process_index() == 0:  # All processes have read all of it.
        for problem in problems:
            report(*problem)
    good = rows.pop("good")
    return place.put_everywhere(mesh, rows), good


def is_resident(stream: HostStream, placement: str, mesh: Mesh) -> bool:
    """Whether to keep the split on the device.

    Raises:
      UserError: for an unknown placement.
    """
    if placement not in PLACEMENTS:
        raise UserError(f"data.placement is {placement!r}; it is one of {', '.join(PLACEMENTS)}.")
    same_every_epoch = stream.transform is None or stream.transform.deterministic
    size = len(stream.split) * int(np.prod(stream.image_shape))
    return placement == "device" or (
        placement == "auto" and same_every_epoch and size <= place.resident_limit(mesh))


def check_crops(split: Split, placement: str, random_resized_crop: tuple[float, float] | None
                ) -> None:
    """Raises a UserError for shares of no area, or for crops on the host of resident data."""
    transform = HostTransform((1, 1), random_area=random_resized_crop)
    if placement == "device" and split.image_shape is None and not transform.deterministic:
        raise UserError("Random resized crops of images of different sizes are made on the host, "
                        "so the data cannot stay on the device: set "
                        "--config.data.placement=auto, or "
                        "--config.augment.random_resized_crop=None.")


def check_batch_size(batch_size: int, examples: int, mesh: Mesh) -> None:
    """Raises a UserError if a training batch is larger than the data or cannot be divided."""
    devices = mesh.size
    largest = examples // devices * devices
    if not largest:
        raise UserError(f"There are {examples} training examples for {devices} devices: set "
                        f"--config.devices={examples} or less.")
    if batch_size > examples:
        raise UserError(f"A batch of {batch_size} is larger than the data: there are only "
                        f"{examples} training examples. Set --config.train.batch_size={largest} "
                        "or smaller.")
    if batch_size < 1 or batch_size % devices:
        below = batch_size // devices * devices
        near = [n for n in (below, below + devices) if 0 < n <= largest]
        # A run that goes on keeps its batch. Of several processes each brings its devices.
        fewer = next(n for n in range(devices, 0, -1) if batch_size % n == 0)
        raise UserError(f"A batch of {batch_size} cannot be divided over {devices} devices. Set "
                        f"--config.train.batch_size={' or '.join(map(str, near))}"
                        + (f", or --config.devices={fewer}." if jax.process_count() == 1 else "."))
