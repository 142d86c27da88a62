"""The layers that every model is made of, as torch defines them, over `cnnjax.ops`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnjax import ops
from cnnjax.models.initializers import (
    FLOAT32,
    Initializer,
    parameter,
    torch_uniform,
    torch_uniform_bias,
)
from cnnjax.ops.geometry import Padding, pads, pair
from cnnjax.ops.precision import sum_dtype, widened
from cnnjax.types import UserError, did_you_mean

ModuleDef = Callable[..., nn.Module]


def _check_inputs(layer: nn.Module, inputs: int) -> None:
    """Raises a UserError if the layer's parameters were made for another input.

    Flax would raise an error of its own, about initialisers, that says nothing of images.
    """
    if layer.has_variable("params", "kernel"):
        expected = layer.get_variable("params", "kernel").shape[-2]
        if expected != inputs:
            raise UserError(f"{'/'.join(layer.path)}: its parameters take {expected} inputs and "
                            f"there are {inputs}: they were made for images of another size or "
                            "number of channels.")


def spread(values: jax.Array, x: jax.Array) -> jax.Array:
    """Returns `values` in the shape and dtype of a map, to be added to it or multiplied with it.

    Their gradient is a sum over all positions, and this one is a sum in float32 at least: one of
    bfloat16 no longer grows when it is 256 times what is added.
    """
    wide = values.astype(sum_dtype(x.dtype))
    return jnp.broadcast_to(wide, x.shape).astype(x.dtype)


class Conv(nn.Module):
    """A convolution of NHWC maps.

    Parameters: kernel (height, width, in_channels / groups, features) and, if asked for, bias
    (features,), both float32.

    Attributes:
      features: output channels.
      kernel_size: in pixels, one number or (height, width).
      stride: in pixels, likewise.
      padding: as in `ops.conv2d`; None pads (kernel - 1) // 2 pixels on every side, which is
        torch's and torchvision's usual padding and differs from "SAME" at strides above 1.
      groups: number of channel groups.
      use_bias: whether to add a bias.
      dtype: of the computation and of the result.
      kernel_init: torch's default unless a model says otherwise.
      bias_init: None is torch's default, which depends on the kernel's fan-in.
    """

    features: int
    kernel_size: int | Sequence[int]
    stride: int | Sequence[int] = 1
    padding: Padding | None = None
    groups: int = 1
    use_bias: bool = False
    dtype: np.dtype = FLOAT32
    kernel_init: Initializer = torch_uniform
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise UserError(f"{'/'.join(self.path)}: the model takes floating-point images, "
                            f"normalised as its weights need them, and got {x.dtype}: give it "
                            "(images / 255 - mean) / std, or what cnnjax.read_images returns.")
        height, width = pair(self.kernel_size, "Conv: kernel_size")
        padding = self.padding
        if padding is None:
            padding = ((height - 1) // 2, (width - 1) // 2)
        shape = (height, width, x.shape[-1] // self.groups, self.features)
        _check_inputs(self, shape[2])
        kernel = parameter(self, "kernel", self.kernel_init, shape)
        y = ops.conv2d(x.astype(self.dtype), kernel, self.stride, padding, self.groups)
        if self.use_bias:
            init = self.bias_init or torch_uniform_bias(math.prod(shape[:3]))
            y += spread(parameter(self, "bias", init, (self.features,)), y)
        return y


class Dense(nn.Module):
    """A fully connected layer. Parameters: kernel (inputs, features) and bias (features,), float32.

    Attributes:
      features: number of outputs.
      dtype: of the computation and of the result.
      kernel_init: torch's default unless a model says otherwise.
      bias_init: None is torch's default, which depends on the number of inputs.
      precision: as in `ops.dense`.
    """

    features: int
    dtype: np.dtype = FLOAT32
    kernel_init: Initializer = torch_uniform
    bias_init: Initializer | None = None
    precision: lax.Precision | str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs = x.shape[-1]
        _check_inputs(self, inputs)
        kernel = parameter(self, "kernel", self.kernel_init, (inputs, self.features))
        init = self.bias_init or torch_uniform_bias(inputs)
        bias = parameter(self, "bias", init, (self.features,))
        y = ops.dense(x.astype(self.dtype), kernel, self.precision)
        return y + spread(bias, y)


class BatchNorm(nn.Module):
    """Batch normalisation over batch, height and width, with torch's statistics.

    With `train`, each channel is normalised by the mean and the *biased* variance of the batch, and

        running = momentum * running + (1 - momentum) * batch

    updates the running mean, and with the *unbiased* variance (n / (n - 1) times the biased one)
    the running variance; otherwise the running statistics normalise. Statistics are float32 at
    least, whatever x's dtype. In a jitted computation over sharded arrays the batch is the global
    one. A call with frozen=True (see `frozen.as_in_evaluation`) is one of evaluation, whatever
    `train` is; with ghost_size=n (see `ghost.ghost_batches`), n consecutive rows each are a batch
    of their own, and the running statistics move towards the mean of theirs.

    Parameters: scale and bias, (channels,) float32. Collection "batch_stats": mean and var, the
    same, which `train` updates: pass mutable=["batch_stats"].

    Attributes:
      train: whether the batch's statistics are used.
      momentum: a decay, the share of the old value that is kept: 0.9 is torch's momentum=0.1.
      epsilon: added to the variance.
      scale_init: zeros turn a residual branch off at first.
    """

    train: bool
    momentum: float = 0.9
    epsilon: float = 1e-5
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, frozen: bool = False, ghost_size: int = 0) -> jax.Array:
        shape = x.shape[-1:]
        scale = parameter(self, "scale", self.scale_init, shape)
        bias = parameter(self, "bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, FLOAT32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, FLOAT32)
        if frozen or not self.train:
            factor = lax.rsqrt(var.value + self.epsilon) * scale
            return ((x - mean.value) * factor + bias).astype(x.dtype)
        group = self._group_of(x, ghost_size)
        if group.shape == x.shape:
            y, batch_mean, batch_var = ops.batch_norm(x, scale, bias, mean.value, self.epsilon)
        else:
            y, means, variances = jax.vmap(lambda part: ops.batch_norm(
                part, scale, bias, mean.value, self.epsilon))(x.reshape(-1, *group.shape))
            y, batch_mean, batch_var = y.reshape(x.shape), means.mean(0), variances.mean(0)
        if not self.is_initializing():
            self._update(mean, batch_mean)
            self._update(var, batch_var * self._unbiased(group))
        return y

    def _group_of(self, x, ghost_size):
        """Returns the shape and dtype of what shares its statistics."""
        if not x.shape[0]:
            raise UserError(f"{'/'.join(self.path)}: an empty batch has no statistics to train "
                            "with.")
        rows = x.shape[0] if self.is_initializing() else ghost_size or x.shape[0]
        if x.shape[0] % rows:
            raise UserError(f"{'/'.join(self.path)}: groups of {rows} do not divide a batch of "
                            f"{x.shape[0]}.")
        return jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype)

    def _update(self, running, batch):
        kept = self.momentum * running.value + (1 - self.momentum) * batch
        running.value = kept.astype(running.value.dtype)

    def _unbiased(self, x):
        n = x.size // x.shape[-1]
        if n == 1:
            raise UserError(f"{'/'.join(self.path)}: a batch of one value a channel (shape "
                            f"{x.shape}) has no variance to train with; use a larger batch or a "
                            "larger image.")
        return n / (n - 1)


class MaxPool(nn.Module):
    """`ops.max_pool` as a layer, so that it shows in summaries.

    Attributes:
      window, stride, padding: as in `ops.max_pool`.
      ceil_mode: whether the output's size is rounded up: the map is padded at the bottom and right
        so that the last window, which starts inside it, fits. As in torch and Caffe.
    """

    window: int | Sequence[int]
    stride: int | Sequence[int] | None = None
    padding: Padding = 0
    ceil_mode: bool = False

    def __call__(self, x: jax.Array) -> jax.Array:
        padding = self._ceil_padding(x.shape[1:3]) if self.ceil_mode else self.padding
        return ops.max_pool(x, self.window, self.stride, padding)

    def _ceil_padding(self, size):
        window = pair(self.window, "MaxPool: window")
        stride = window if self.stride is None else pair(self.stride, "MaxPool: stride")
        sides = []
        for n, k, s, (low, high) in zip(size, window, stride,
                                        pads(self.padding, size, window, stride), strict=True):
            last = -(-(n + low + high - k) // s)
            if last * s >= n + low:  # A window of padding alone is dropped.
                last -= 1
            sides.append((low, max(high, last * s + k - n - low)))
        return tuple(sides)


class AvgPool(nn.Module):
    """`ops.avg_pool` as a layer, so that it shows in summaries."""

    window: int | Sequence[int]
    stride: int | Sequence[int] | None = None
    padding: Padding = 0
    count_include_pad: bool = True

    def __call__(self, x: jax.Array) -> jax.Array:
        return ops.avg_pool(x, self.window, self.stride, self.padding, self.count_include_pad)


class GlobalAvgPool(nn.Module):
    """The mean over height and width: (B, H, W, C) -> (B, C), in x's dtype, summed in float32."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x.mean((1, 2))


class Endpoints:
    """The named intermediates of one call of a model, of which the caller may ask for some.

        end = Endpoints(("stage1", "features", "logits"), capture)
        x = end("stage1", nn.relu(x))
        …
        return end.result(logits)

    Args:
      names: what the model offers.
      capture: what the caller asks for, a name or several.

    Raises:
      UserError: if a name asked for is not offered; the message lists those that are.
    """

    def __init__(self, names: Sequence[str], capture: str | Sequence[str]):
        self._wanted = (capture,) if isinstance(capture, str) else tuple(capture)
        self._found: dict[str, jax.Array] = {}
        self._auxiliary: dict[str, jax.Array] = {}
        for name in self._wanted:
            check_endpoint(name, names)

    def __call__(self, name: str, x: jax.Array) -> jax.Array:
        """Returns `x`, having kept it if `name` was asked for."""
        if name in self._wanted:
            self._found[name] = x
        return x

    def auxiliary(self, name: str, logits: jax.Array) -> None:
        """Keeps the logits of an auxiliary head, which a model returns while it trains."""
        self._auxiliary[name] = logits

    def result(self, output: jax.Array) -> jax.Array | tuple[jax.Array, Mapping[str, jax.Array]]:
        """Returns `output`; auxiliary logits and what was asked for stand beside it, if any."""
        beside = self._auxiliary | {name: self._found[name] for name in self._wanted}
        return (output, beside) if beside else output


def check_endpoint(name: str, names: Sequence[str]) -> None:
    """Raises a UserError if a name is none of a model's endpoints, which it lists in order."""
    if name not in names:
        raise UserError(f"{name!r} is no endpoint of this model.{did_you_mean(str(name), names)} "
                        f"There are: {', '.join(names)}.")


def endpoint_names(stages: Sequence[str], num_classes: int) -> tuple[str, ...]:
    """Returns a model's endpoints: its stages, and those that `classify` adds."""
    return (*stages, "features", *(["logits"] if num_classes else []))


def classify(x: jax.Array, end: Endpoints, *, num_classes: int, dropout_rate: float, train: bool,
             **dense: Any) -> jax.Array | tuple[jax.Array, Mapping[str, jax.Array]]:
    """Ends a model, within its `__call__`: the endpoint "features", dropout, and the layer "head".

    Args:
      x: (B, C), the pooled features.
      end: the model's endpoints.
      num_classes: outputs of the head; 0 leaves dropout and head out and gives the features.
      dropout_rate: probability to drop a feature while training, from the rng stream "dropout".
      train: whether to drop.
      **dense: attributes of the head, such as kernel_init.

    Returns:
      What the model returns: (B, num_classes) or (B, C). Whatever dtype the model computes in, the
      head computes in float32 at least: softmax and loss are sensitive to the eight bits of
      bfloat16, and the head is a thousandth of the work.
    """
    x = end("features", widened(x))
    if num_classes:
        x = nn.Dropout(dropout_rate, deterministic=not train)(x)
        x = end("logits", Dense(num_classes, dtype=x.dtype, precision=lax.Precision.HIGHEST,
                                name="head", **dense)(x))
    return end.result(x)
