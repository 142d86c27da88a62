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

import itertools

import jax
import jax.numpy as jnp

from cnnjax.ops.geometry import ConvGeometry, overlap_add, phase_maps, useful_taps, windows
from cnnjax.ops.precision import widened
from cnnjax.ops.sums import channel_sums

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
    terms = [widened(seen) * tap for seen, tap in zip(windows(x, g), taps, strict=True)]
    return sum(terms[1:], terms[0]).astype(x.dtype)


def input_gradient(dy: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the gradient of (B, H, W, C) from that of the output."""
    rows, cols, g = useful_taps(g)
    taps = _flat(kernel[rows, cols])
    dx = overlap_add((dy,), (0,), g, lambda tap, dy: widened(dy) * taps[tap])
    return dx.astype(dy.dtype)


def weight_gradient(x: jax.Array, dy: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the gradient of the kernel, (h, w, 1, C)."""
    window = g.window
    rows, cols, g = useful_taps(g)
    if g.stride == (1, 1):
        # The shifted maps of `input_gradient`, which XLA writes out once for both. Shifts of x
        # leave dy at one place, and XLA then computes dy anew, with all that makes it, in each sum.
        pairs = [(x, shifted) for shifted in _shifted(dy, g)]
    else:
        pairs = [(seen, dy) for seen in windows(x, g)]
    taps = [widened(a) * widened(b) for a, b in pairs]
    # All taps of a kernel larger than 3x3 are too many sums for the registers: a row at a time.
    share = len(taps) if len(taps) <= 9 else g.window[1]
    sums = itertools.chain.from_iterable(
        channel_sums(taps[i:i + share], 8) for i in range(0, len(taps), share))
    dw = jnp.stack(list(sums)).reshape(*g.window, 1, g.in_channels).astype(dy.dtype)
    unseen = [(s.start, size - s.stop) for s, size in zip((rows, cols), window, strict=True)]
    return jnp.pad(dw, (*unseen, (0, 0), (0, 0)))


def _shifted(dy, g):
    """For each tap of a convolution of stride 1, the values of dy that it adds to the pixels."""
    (dy,), _, reach = phase_maps((dy,), (0,), g)
    top, left = (pads[0] + r for pads, r in zip(g.padding, reach, strict=True))
    return [dy[:, top - i:top - i + g.size[0], left - j:left - j + g.size[1]]
            for i in range(g.window[0]) for j in range(g.window[1])]


def _flat(kernel):
    """(h, w, 1, C) -> (h w, C), in float32 at least."""
    return widened(kernel).reshape(-1, kernel.shape[3])
