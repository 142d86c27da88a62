"""A depthwise convolution as multiply-adds of shifted maps.

With one kernel a channel there is nothing to contract, and k^2 passes over whole maps do it:

    y[p]     = sum_t x[p s + t] w[t]
    dx[q]    = sum over the pairs (p, t) with p s + t = q of dy[p] w[t]
    dw[t]    = sum over batch and p of x[p s + t] dy[p]

Each pass is one vector operation along the channels, and XLA fuses the k^2 of them into one loop
over the output. XLA:CPU's own grouped convolution runs at about 1 GFLOP/s, and its weight gradient
is slower still.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.ops.geometry import ConvGeometry, overlap_add, useful_taps, windows

# Every tap is an operation of its own in the compiled program. 7x7 is ConvNeXt's.
MAX_TAPS = 49


def applies(g: ConvGeometry) -> bool:
    """Whether each channel has one kernel, small enough to be unrolled tap by tap."""
    return (g.groups == g.in_channels == g.out_channels > 1
            and g.window[0] * g.window[1] <= MAX_TAPS)


def output(x: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the convolution of (B, H, W, C) with (h, w, 1, C)."""
    rows, cols, g = useful_taps(g)
    taps = _flat(kernel[rows, cols])
    terms = [_wide(seen) * tap for seen, tap in zip(windows(x, g), taps, strict=True)]
    return sum(terms[1:], terms[0]).astype(x.dtype)


def input_gradient(dy: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the gradient of (B, H, W, C) from that of the output."""
    rows, cols, g = useful_taps(g)
    taps = _flat(kernel[rows, cols])
    dx = overlap_add((dy,), (0,), g, lambda tap, dy: _wide(dy) * taps[tap])
    return dx.astype(dy.dtype)


def weight_gradient(x: jax.Array, dy: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the gradient of the kernel, (h, w, 1, C)."""
    rows, cols, cropped = useful_taps(g)
    taps = [_wide(seen) * _wide(dy) for seen in windows(x, cropped)]
    if cropped.out[0] * cropped.out[1] <= 4:
        sums = [tap.sum((0, 1, 2)) for tap in taps]
    else:
        sums = _sums(taps, cropped)
    dw = jnp.stack(sums).reshape(*cropped.window, 1, g.in_channels).astype(dy.dtype)
    unseen = [(s.start, size - s.stop) for s, size in zip((rows, cols), g.window, strict=True)]
    return jnp.pad(dw, (*unseen, (0, 0), (0, 0)))


def _sums(taps, g):
    """The sum of each of `taps`, (B, H', W', C), over all but the channels.

    The sums over the rows of several taps are one reduction with several operands: it reads dy and
    x once, not once a tap, and adds vectors of channels. On small maps all taps together are too
    many sums for the registers, and those of one row of the kernel are the better share.
    """
    share = g.window[1] if g.out[0] <= 14 else len(taps)
    sums = []
    for start in range(0, len(taps), share):
        group = taps[start:start + share]
        zeros = (jnp.zeros((), group[0].dtype),) * len(group)
        sums += lax.reduce(tuple(group), zeros,
                           lambda a, b: tuple(u + v for u, v in zip(a, b, strict=True)), (1,))
    return [total.sum((0, 1)) for total in sums]


def _flat(kernel):
    """(h, w, 1, C) -> (h w, C), in float32 at least."""
    return _wide(kernel).reshape(-1, kernel.shape[3])


def _wide(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
