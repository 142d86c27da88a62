"""One function of one image, over a batch of them."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax.sharding import Mesh, PartitionSpec

from cnnjax.data.placement import AXIS


def for_each_image(function: Callable[..., jax.Array], images: jax.Array, *arguments: jax.Array,
                   mesh: Mesh | None = None,
                   together: Callable[..., jax.Array] | None = None) -> jax.Array:
    """Returns `function(image, *arguments of its row)` for every row.

    On CPU the rows come one after the other, so that a `lax.switch` computes the branch that was
    drawn and no other: one layer of RandAugment at 224 pixels takes a tenth of the time that all
    branches take. On an accelerator they come together under `vmap`, which computes every branch
    and selects, or by `together`.

    Args:
      function: of one image [H, W, C] and one row of each argument.
      images: [B, H, W, C].
      arguments: arrays [B, …].
      mesh: with the axis "data" over which the rows are divided; each device then sees to its own
        rows. None where there is one device.
      together: the same function of all images and all rows at once.
    """
    def over(*arrays):
        if jax.default_backend() == "cpu":
            return jax.lax.map(lambda row: function(*row), arrays)
        return (together or jax.vmap(function))(*arrays)

    if mesh is None or mesh.size == 1:
        return over(images, *arguments)
    rows = PartitionSpec(AXIS)
    # A loop over the rows would otherwise bring all of them to every device.
    return jax.shard_map(over, mesh=mesh, in_specs=rows, out_specs=rows)(images, *arguments)
