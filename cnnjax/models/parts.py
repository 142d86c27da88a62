"""Parts that several architectures share, beside the layers that all of them do."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnjax import ops
from cnnjax.models.initializers import Initializer, parameter, torch_uniform
from cnnjax.models.layers import FLOAT32, Dense, spread
from cnnjax.ops.geometry import Pair, pair
from cnnjax.ops.precision import widened
from cnnjax.types import UserError

Activation = Callable[[jax.Array], jax.Array]

# By name, because a model's arguments are plain values that a config file can hold.
ACTIVATIONS: dict[str, Activation] = {
    "relu": nn.relu,
    "relu6": nn.relu6,
    "silu": ops.silu,
    "hard_swish": nn.hard_swish,
}


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): drops a residual branch, example by example.

    While training, each example's branch is zeroed with probability `rate` and divided by
    1 - rate otherwise, so that its expectation is kept and evaluation needs no scaling. Draws from
    the rng stream "dropout".

    Attributes:
      rate: probability of dropping, from 0 to below 1.
      train: whether to drop.
    """

    rate: float
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if not self.train or not self.rate:
            return x
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, shape)
        return x * (kept / (1 - self.rate)).astype(x.dtype)


def drop_path_rates(rate: float, blocks: int) -> list[float]:
    """Returns the rate of each of a network's blocks, rising linearly from 0 to towards `rate`.

    Block i of n has rate · i / n, so the last one has not quite `rate`: as in EfficientNet's
    reference code, in torchvision and in timm's port of it.
    """
    return [rate * i / blocks for i in range(blocks)]


def stage_names(count: int) -> list[str]:
    """Returns the endpoints of so many stages: "stage1", "stage2", …."""
    return [f"stage{i}" for i in range(1, count + 1)]


def check_stages(net: nn.Module) -> None:
    """Raises a UserError unless `stage_sizes` and `widths` have an entry for each stage."""
    if len(net.stage_sizes) != len(net.widths) or not net.widths:
        raise UserError(f"{type(net).__name__}: stage_sizes={net.stage_sizes} and widths="
                        f"{net.widths} must have one entry for each stage.")


def check_momentum(net: nn.Module, normalises: bool, needed: str) -> None:
    """Raises a UserError if the decay of batch norm's statistics is set of a net without any."""
    if not normalises and net.bn_momentum != type(net).bn_momentum:
        raise UserError(f"{type(net).__name__}: bn_momentum={net.bn_momentum} changes nothing "
                        f"without batch norm: leave it out (None in a config), or set {needed}.")


class SqueezeExcite(nn.Module):
    """Channel gates (arXiv 1709.01507): x * gate(expand(activation(reduce(mean(x))))).

    Attributes:
      width: units of the bottleneck.
      activation: between the two dense layers.
      gate: of the result.
      dtype: of the computation.
      kernel_init, bias_init: of both dense layers.
    """

    width: int
    activation: Activation = nn.relu
    gate: Activation = nn.sigmoid
    dtype: np.dtype = FLOAT32
    kernel_init: Initializer = torch_uniform
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kinds = dict(dtype=self.dtype, kernel_init=self.kernel_init, bias_init=self.bias_init)
        y = Dense(self.width, name="reduce", **kinds)(x.mean((1, 2)))
        y = Dense(x.shape[-1], name="expand", **kinds)(self.activation(y))
        return x * spread(self.gate(y)[:, None, None], x)


class LayerNorm(nn.Module):
    """Normalises each position over its channels (arXiv 1607.06450): (…, C) -> (…, C).

    The statistics are float32 at least, whatever x's dtype; the variance is the biased one.
    Parameters: scale and bias, (C,) float32.

    Attributes:
      epsilon: added to the variance.
    """

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = x.shape[-1:]
        scale = parameter(self, "scale", nn.initializers.ones, shape)
        bias = parameter(self, "bias", nn.initializers.zeros, shape)
        wide = widened(x)
        wide -= wide.mean(-1, keepdims=True)
        var = jnp.square(wide).mean(-1, keepdims=True)
        return (wide * lax.rsqrt(var + self.epsilon) * scale + bias).astype(x.dtype)


def local_response_norm(x: jax.Array, size: int = 5, alpha: float = 1e-4, beta: float = 0.75,
                        k: float = 2.0) -> jax.Array:
    """Divides by the energy of neighbouring channels (Krizhevsky et al. 2012, section 3.3).

        y[c] = x[c] / (k + alpha * sum of x[c']^2 over the `size` channels c' around c) ** beta

    The paper multiplies alpha with the plain sum; torch.nn.LocalResponseNorm and Caffe divide the
    sum by `size` first, so their alpha is `size` times this one.

    Args:
      x: (B, H, W, C), floating point.
      size: odd number of channels in a neighbourhood; beyond the first and last there are zeros.
      alpha, beta, k: see above; the defaults are the paper's.

    Returns:
      As x.
    """
    half = size // 2
    squares = jnp.pad(jnp.square(x), ((0, 0), (0, 0), (0, 0), (half, half)))
    energy = sum(squares[..., i:i + x.shape[-1]] for i in range(size))
    return x * (k + alpha * energy) ** -beta


class AdaptiveAvgPool(nn.Module):
    """Averages into a map of fixed size, whatever the input's, as torch.nn.AdaptiveAvgPool2d.

    Output row i is the mean of input rows floor(i H / out) to ceil((i + 1) H / out), exclusive;
    likewise the columns. Maps smaller than the output are repeated.

    Attributes:
      size: (height, width) of the output, or one number.
    """

    size: int | Pair

    def __call__(self, x: jax.Array) -> jax.Array:
        height, width = pair(self.size, "AdaptiveAvgPool: size")
        if x.shape[1] % height == 0 and x.shape[2] % width == 0:
            return ops.avg_pool(x, (x.shape[1] // height, x.shape[2] // width))
        rows = [slice(i * x.shape[1] // height, -(-(i + 1) * x.shape[1] // height))
                for i in range(height)]
        cols = [slice(j * x.shape[2] // width, -(-(j + 1) * x.shape[2] // width))
                for j in range(width)]
        x = jnp.stack([x[:, row].mean(1) for row in rows], 1)
        return jnp.stack([x[:, :, col].mean(2) for col in cols], 2)
