"""Max-pooling that remembers which tap won, so that its backward pass needs no search.

    m[p] = max_t x[p s + t],        a[p] = the first t that attains it (int8)

    dx[q] = sum over the pairs (p, t) with p s + t = q and a[p] = t of dy[p]

The backward pass is a sum of shifted and masked copies of dy (`geometry.overlap_add`). XLA
differentiates its own pooling with select-and-scatter, which XLA:CPU runs as a scalar loop and
XLA:GPU with atomic additions. The first of equal taps wins in both.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.ops.geometry import Geometry, overlap_add, phase_maps, windows, without_padding

# Every tap is a slice of its own in the compiled program. 5x5 is the largest that CNNs pool with.
MAX_TAPS = 25


def applies(g: Geometry) -> bool:
    """Whether the window is small enough to be unrolled tap by tap."""
    return g.window[0] * g.window[1] <= MAX_TAPS


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: jax.Array, g: Geometry) -> jax.Array:
    """Returns the maximum of (B, H, W, C) over windows; padding never wins."""
    return _forward(x, g)[0]


def _forward(x, g):
    first, *rest = windows(x, g, fill=-jnp.inf)
    top, winner = first, jnp.zeros(first.shape, jnp.int8)
    for tap, seen in enumerate(rest, 1):
        winner = jnp.where(seen > top, jnp.int8(tap), winner)
        top = jnp.maximum(top, seen)
    return top, winner


def _backward(g, winner, dy):
    if jax.default_backend() == "gpu":
        return (_all_phases_at_once(winner, dy, g),)
    return (overlap_add((dy, winner), (0, -1), g,
                        lambda tap, dy, winner: jnp.where(winner == tap, dy, 0)),)


max_pool.defvjp(_forward, _backward)


def _all_phases_at_once(winner, dy, g):
    """`overlap_add` with the phases q mod s as axes of the map: a shift of dy serves all of them.

    A GPU spends its time on finding out where an element comes from, and that is less here than
    where phases of their own are interleaved.
    """
    (dy, winner), count, reach = phase_maps((dy, winner), (0, -1), g)
    total = 0
    for k in range(reach[0] + 1):
        for m in range(reach[1] + 1):
            rows = np.arange(g.stride[0])[:, None, None, None] + k * g.stride[0]
            cols = np.arange(g.stride[1])[:, None] + m * g.stride[1]
            inside = (rows < g.window[0]) & (cols < g.window[1])
            taps = np.where(inside, rows * g.window[1] + cols, MAX_TAPS).astype(np.int8)
            at = (slice(None), slice(reach[0] - k, reach[0] - k + count[0]), None,
                  slice(reach[1] - m, reach[1] - m + count[1]), None)
            total += jnp.where(winner[at] == taps, dy[at], 0)
    dx = total.reshape(dy.shape[0], count[0] * g.stride[0], count[1] * g.stride[1],
                       dy.shape[3])
    return without_padding(dx, g)
