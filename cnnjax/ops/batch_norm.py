"""Batch normalisation of a training step: statistics in one pass, backward in one pass.

    m = mean(x),    v = mean((x - m)^2),    r = 1 / sqrt(v + eps),    y = (x - m) r g + b

over the n = batch * height * width values of a channel (Ioffe & Szegedy, arXiv 1502.03167). With
k any number per channel,

    m = k + mean(x - k),        v = mean((x - k)^2) - (m - k)^2,

so both statistics come from one reading of x. For k = 0 the difference cancels where |m| is much
larger than sqrt(v); with k near m it does not. k is the running mean, which follows m during
training. Rounding can still leave v a little below zero in a channel that is constant: it is
clamped.

The backward pass needs two sums, s1 = sum(dy) and s2 = sum(dy (x - m)) = sum(dy x) - m s1:

    db = s1,    dg = r s2,    dx = g r (dy - s1 / n - (x - m) r^2 s2 / n)

It keeps x alone, in x's own dtype. JAX's backward pass keeps several float32 maps of that size and
reads them in more passes: the operation is bound by memory on every backend. Of s2 the second form
is computed. It loses a digit where |m| is ten times sqrt(v), but for the first XLA:CPU, whose sums
take maps that are written out, keeps x - m beside x from the forward pass on: a second map of each
layer. The x - m of dx is not written out: that pass computes it on its way.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.ops import switch
from cnnjax.ops.precision import sum_dtype
from cnnjax.ops.sums import channel_sums

_AXES = (0, 1, 2)


def batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, shift: jax.Array,
               epsilon: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises each channel by the statistics of the batch.

    Args:
      x: (B, H, W, C), floating point.
      scale: (C,), multiplies the normalised values.
      bias: (C,), added after that.
      shift: (C,), any guess of the mean; it changes rounding only, and has no gradient.
      epsilon: added to the variance.

    Returns:
      y: as x, in x's dtype; mean and biased variance: (C,), float32 at least. All three are
      differentiable in x.
    """
    wide = sum_dtype(x.dtype)
    scale, bias, shift = (a.astype(wide) for a in (scale, bias, shift))
    if not switch.tuned_for(name="batch_norm", operands=[x, scale]):
        return _plain(x, scale, bias, epsilon)
    return _fused(x, scale, bias, lax.stop_gradient(shift), epsilon)


def _plain(x, scale, bias, epsilon):
    wide = x.astype(scale.dtype)
    mean = wide.mean(_AXES)
    var = jnp.square(wide - mean).mean(_AXES)
    y = (wide - mean) * (lax.rsqrt(var + epsilon) * scale) + bias
    return y.astype(x.dtype), mean, var


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _normalised(x, scale, bias, shift, epsilon):
    return _forward(x, scale, bias, shift, epsilon)[0]


def _forward(x, scale, bias, shift, epsilon):
    n = x.size // x.shape[-1]
    centred = x.astype(scale.dtype) - shift
    first, second = channel_sums((centred, jnp.square(centred)), 16)
    offset = first / n
    var = jnp.maximum(second / n - jnp.square(offset), 0)
    mean = shift + offset
    inverse = lax.rsqrt(var + epsilon)
    y = (x.astype(scale.dtype) - mean) * (inverse * scale) + bias
    return (y.astype(x.dtype), mean, var), (x, scale, mean, inverse)


def _backward(epsilon, residuals, cotangents):
    x, scale, mean, inverse = residuals
    dtype = x.dtype
    dy, dmean, dvar = cotangents
    n = x.size // x.shape[-1]
    dy, x = dy.astype(scale.dtype), x.astype(scale.dtype)
    # Sums of XLA's own, which want dy written out. `channel_sums` would compute it anew, with all
    # that makes it: the backward pass of the activation.
    sum_dy = dy.sum(_AXES)
    dscale = ((dy * x).sum(_AXES) - mean * sum_dy) * inverse
    slope = scale * inverse
    # The cotangents of the statistics are zero in training. They cost nothing here, and the
    # gradient stays right for a loss that uses the statistics.
    dx = (dy * slope - (x - mean) * (slope * inverse * dscale - 2 * dvar) / n
          + (dmean - slope * sum_dy) / n)
    return dx.astype(dtype), dscale, sum_dy, jnp.zeros_like(mean)


_normalised.defvjp(_forward, _backward)
_fused = jax.jit(_normalised, static_argnums=4)  # Layers of one shape share a trace.
