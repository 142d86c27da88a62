"""Work on a batch in parts, so that what a part needs fits in the cache.

Each part is a round of a loop. XLA:CPU runs matrix products and elementwise operations in a loop as
fast as outside of one, but a `lax.conv` there on one thread, about twenty times slower: only the
former may stand in a function given to this module.

Part i of n holds the images i, i + n, i + 2 n, …, of each device as many, so that every part of a
batch that is sharded over devices is sharded alike. What a device has is filled up with images of
zeros if n does not divide it. A batch without images, or with a symbol for their number, as in an
export, is one part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.ops.precision import sum_dtype


def images_of(pixels: int, size: Sequence[int], least: int = 1) -> int:
    """Returns how many images of (height, width) have about so many pixels on each device.

    At least one a device: XLA would gather a part of a sharded batch that has fewer.
    """
    return max(least, pixels // (size[0] * size[1])) * jax.device_count()


def known_size(batch: jax.Array) -> int:
    """Returns how many images a batch has, 0 if that is a symbol."""
    return batch.shape[0] if isinstance(batch.shape[0], int) else 0


def map_sum(function: Callable[..., jax.Array], batches: tuple[jax.Array, ...], images: int,
            shape: Sequence[int]) -> jax.Array:
    """Returns the sum of `function` over parts of a batch, for a function that is 0 on zeros.

    Args:
      function: (parts of batches) -> an array of `shape`, in the type that the first of the batches
        is summed in.
      batches: arrays of one leading size.
      images: at most so many in a part, or one of each device.
      shape: of what it returns. Known here, the function is traced once.
    """
    parts, count = _split(batches, images)
    if count == 1:
        return function(*batches)

    def add(total, i):
        return total + function(*_part(parts, i)), None

    total = jnp.zeros(shape, sum_dtype(batches[0].dtype))
    return lax.scan(add, total, jnp.arange(count))[0]


def map_images(function: Callable[[jax.Array], jax.Array], batch: jax.Array, images: int,
               result: jax.ShapeDtypeStruct) -> jax.Array:
    """Returns `function` of a batch, for a function that treats each image by itself.

    Args:
      function: (images, …) -> (images, …).
      batch: (B, …).
      images: at most so many in a part, or one of each device.
      result: what it returns of one image, (…).
    """
    parts, count = _split((batch,), images)
    if count == 1:
        return function(batch)
    part = parts[0].shape[0]
    # Every entry is overwritten, so any value will do but a constant: XLA shares one array of zeros
    # among all such loops of a program, and keeps it and its copies alive throughout. One value of
    # each image leaves a sharded batch where it is. Its exponential, because XLA computes what it
    # counts as costly once an image, and all else, with whatever made the batch, once an entry.
    first = jnp.exp(parts[0].reshape(part, -1)[:, :1].astype(result.dtype))
    whole = jnp.broadcast_to(jnp.expand_dims(first, range(2, len(result.shape) + 2)),
                             (part, count, *result.shape))

    def fill(whole, i):
        return lax.dynamic_update_index_in_dim(whole, function(*_part(parts, i)), i, 1), None

    whole = lax.scan(fill, whole, jnp.arange(count))[0]
    devices, share = _shares(batch)
    whole = whole.reshape(devices, -1, *result.shape)[:, :share]
    return whole.reshape(-1, *result.shape)


def _split(batches, images):
    """Each array as (images of a part, parts, …), and the number of parts."""
    if not known_size(batches[0]):
        return batches, 1
    devices, share = _shares(batches[0])
    each = -(-share // -(-devices * share // max(images, 1)))
    count = -(-share // each)

    def split(b):
        b = b.reshape(devices, share, *b.shape[1:])
        b = jnp.pad(b, ((0, 0), (0, each * count - share), *((0, 0),) * (b.ndim - 2)))
        return b.reshape(devices * each, count, *b.shape[2:])

    return [split(b) for b in batches], count


def _shares(batch) -> tuple[int, int]:
    """Over how many devices a batch may be sharded, and how many images each then has."""
    devices = math.gcd(batch.shape[0], jax.device_count())
    return devices, batch.shape[0] // devices


def _part(parts, i):
    return [lax.dynamic_index_in_dim(b, i, 1, keepdims=False) for b in parts]
