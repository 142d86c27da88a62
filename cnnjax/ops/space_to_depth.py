"""A strided convolution of few channels as one of stride 1 over blocks of pixels.

With blocks of s by s pixels, one block a row of s^2 C channels,

    X[p, (a, b, c)] = x[s p + (a, b), c],    W[u, (a, b, c)] = w[s u + (a, b), c]

(w filled up with zeros to a multiple of s), a convolution of stride s is one of stride 1:

    y[p] = sum_t x[s p + t] w[t] = sum_u X[p + u] W[u]

On a GPU, matrix units take channels in groups of eight: of an RGB image they use three. Blocks of
2x2 make twelve, filled up to sixteen. Ying et al., arXiv 1811.06992, section 4, do it for ResNet on
a TPU.

On a CPU the point is what stride 1 permits. The weight gradient is Winograd's (`winograd`) over the
blocks: a ResNet's first layer, 7x7 of stride 2, becomes 4x4 over 12 channels, AlexNet's, 11x11 of
stride 4, 3x3 over 48. The output is XLA's own, which is as fast, and the input gradient too.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cnnjax.ops import winograd, xla
from cnnjax.ops.geometry import ConvGeometry

# Channels of a block are filled up to a multiple of it, on a GPU.
_GROUP = 8
# Below these Winograd's transforms cost what its products save: values of a window, and channels
# and pixels of the result.
MIN_VALUES, MIN_FEATURES, MIN_SIZE = 128, 32, 14


def applies(g: ConvGeometry) -> bool:
    """Whether the channels are fewer than a matrix unit takes at a time, and there is a stride."""
    return g.groups == 1 and g.in_channels <= 4 and g.stride[0] == g.stride[1] > 1


def applies_on_cpu(g: ConvGeometry) -> bool:
    """Whether Winograd's filtering suits the windows of blocks, and the layer is large enough."""
    return (applies(g) and _taps(g) in ((3, 3), (4, 4))
            and g.window[0] * g.window[1] * g.in_channels >= MIN_VALUES
            and g.out_channels >= MIN_FEATURES and min(g.out) >= MIN_SIZE)


def conv2d(x: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the convolution of (B, H, W, C) with (h, w, C, D), in the dtype of both."""
    x, kernel = _filled(_map_of_blocks(x, g), 3), _filled(_kernel_of_blocks(kernel, g), 2)
    return xla.conv2d(x, kernel, _inner(g, x.shape[3]))


def weight_gradient(x: jax.Array, dy: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the gradient of the kernel, (h, w, C, D)."""
    x = _map_of_blocks(x, g)
    dw = winograd.weight_gradient(x, dy, _inner(g, x.shape[3]))
    kernel = jax.ShapeDtypeStruct((*g.window, g.in_channels, g.out_channels), dw.dtype)
    return jax.linear_transpose(lambda kernel: _kernel_of_blocks(kernel, g), kernel)(dw)[0]


def _taps(g):
    return tuple(-(-window // step) for window, step in zip(g.window, g.stride, strict=True))


def _inner(g, channels):
    """The convolution of stride 1 over blocks."""
    size = tuple(out + tap - 1 for out, tap in zip(g.out, _taps(g), strict=True))
    return ConvGeometry(size=size, window=_taps(g), stride=(1, 1), padding=((0, 0), (0, 0)),
                        in_channels=channels, out_channels=g.out_channels, groups=1)


def _map_of_blocks(x, g):
    """(B, H, W, C) -> (B, blocks, blocks, s^2 C), padded."""
    # Rows and columns that no window sees are cut off by a negative edge.
    edges = [(low, step * count - size - low, 0) for (low, _), step, count, size in
             zip(g.padding, g.stride, _inner(g, 0).size, g.size, strict=True)]
    return _blocks(jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *edges, (0, 0, 0))),
                   g.stride[0])


def _kernel_of_blocks(kernel, g):
    """(h, w, C, D) -> (taps, taps, s^2 C, D)."""
    edges = [(0, tap * step - window)
             for tap, step, window in zip(_taps(g), g.stride, g.window, strict=True)]
    kernel = jnp.moveaxis(jnp.pad(kernel, (*edges, (0, 0), (0, 0))), 3, 0)
    return jnp.moveaxis(_blocks(kernel, g.stride[0]), 0, 3)


def _blocks(x, step):
    """(B, s H, s W, C) -> (B, H, W, s^2 C)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // step, step, width // step, step, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // step, width // step,
                                                 step * step * channels)


def _filled(x, axis):
    """With zeros behind the channels, up to a whole group."""
    edges = [(0, 0)] * x.ndim
    edges[axis] = (0, -x.shape[axis] % _GROUP)
    return jnp.pad(x, edges)
