"""Max-pooling that remembers which tap won, so that its backward pass needs no search.

    m[p] = max_t x[p s + t],        a[p] = the first t that attains it (int8)

    dx[q] = sum over the pairs (p, t) with p s + t = q and a[p] = t of dy[p]

Pixels of one phase q mod s meet the same taps, so the backward pass is, phase by phase, a sum of
shifted and masked copies of dy, and the phases are interleaved at the end. XLA differentiates its
own pooling with select-and-scatter, which XLA:CPU runs as a scalar loop. The first of equal taps
wins in both.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.ops.geometry import Geometry, windows

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
    (step_h, step_w), (kernel_h, kernel_w) = g.stride, g.window
    # Along each axis: how many pixels a phase has (top and left padding included), and how many
    # positions before the first pixel's own can still reach it.
    count = [-(-(size + pads[0]) // step)
             for size, pads, step in zip(g.size, g.padding, g.stride, strict=True)]
    reach = [(window - 1) // step for window, step in zip(g.window, g.stride, strict=True)]
    edges = ((0, 0, 0), *((r, c - out, 0) for r, c, out in zip(reach, count, g.out, strict=True)),
             (0, 0, 0))
    dy = lax.pad(dy, jnp.zeros((), dy.dtype), edges)
    winner = lax.pad(winner, jnp.int8(-1), edges)

    def phase(row, col):
        total = jnp.zeros((dy.shape[0], *count, dy.shape[3]), dy.dtype)
        for i in range(row, kernel_h, step_h):
            for j in range(col, kernel_w, step_w):
                top, left = reach[0] - i // step_h, reach[1] - j // step_w
                at = (slice(None), slice(top, top + count[0]), slice(left, left + count[1]))
                total += jnp.where(winner[at] == i * kernel_w + j, dy[at], 0)
        return total

    phases = [jnp.stack([phase(row, col) for col in range(step_w)], 3) for row in range(step_h)]
    dx = jnp.stack(phases, 2).reshape(
        dy.shape[0], count[0] * step_h, count[1] * step_w, dy.shape[3])
    (top, _), (left, _) = g.padding
    return (dx[:, top:top + g.size[0], left:left + g.size[1]],)


max_pool.defvjp(_forward, _backward)
