"""Where batches live: which rows are this process's, and how they get onto its devices."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "data"


def local_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Returns which rows of a global batch this process's devices hold, ascending, int64 [b]."""
    index = rows_sharding(mesh, 0).addressable_devices_indices_map((batch_size,))
    return np.unique(np.concatenate([np.arange(batch_size)[rows] for rows, in index.values()]))


def put_rows(mesh: Mesh, batch: dict[str, np.ndarray], batch_size: int, axis: int
             ) -> dict[str, jax.Array]:
    """Puts this process's rows of a batch onto its devices, without waiting for the copy.

    Args:
      mesh: with the one axis "data".
      batch: arrays that hold the rows of `local_rows` along `axis`; not to be written again.
      batch_size: number of rows over all processes.
      axis: the dimension of the rows.

    Returns:
      Global arrays, sharded over "data" along `axis`.
    """
    sharding = rows_sharding(mesh, axis)
    return {name: jax.make_array_from_process_local_data(
                sharding, rows, (*rows.shape[:axis], batch_size, *rows.shape[axis + 1:]))
            for name, rows in batch.items()}


def rows_sharding(mesh: Mesh, axis: int) -> NamedSharding:
    """Returns where `put_rows` puts arrays."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def put_everywhere(mesh: Mesh, tree: Any) -> Any:
    """Puts the whole of each array onto every device; each process must give the same."""
    sharding = NamedSharding(mesh, PartitionSpec())
    # device_put would send the data over the network to check that all processes agree.
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(
        sharding, np.asarray(array), array.shape), tree)


def resident_limit(mesh: Mesh) -> int:
    """Returns how many bytes of data may be kept on each device.

    A quarter of the memory of an accelerator, the rest being for the model; on CPU 2 GiB, over
    all of the devices that share the memory. Of several processes the least counts, so that all
    of them place the data alike.
    """
    device = mesh.local_devices[0]
    stats = None if device.platform == "cpu" else device.memory_stats()
    if stats and "bytes_limit" in stats:
        limit = stats["bytes_limit"] // 4
    else:
        limit = 2 * 2**30 // len(mesh.local_devices)
    if len({d.process_index for d in mesh.devices.flat}) > 1:
        from jax.experimental import multihost_utils

        # In KiB, because JAX's integers have 32 bits.
        limit = 1024 * int(multihost_utils.process_allgather(np.int32(limit // 1024)).min())
    return limit
