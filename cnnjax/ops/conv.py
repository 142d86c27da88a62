"""The convolution, and the table of ways to compute it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.ops import (
    blocks,
    columns,
    depthwise,
    depthwise_gpu,
    patches,
    pointwise,
    rows,
    space_to_depth,
    switch,
    taps,
    tiny_maps,
    winograd,
    xla,
)
from cnnjax.ops.bilinear import convolution, of_bfloat16
from cnnjax.ops.chunks import known_size
from cnnjax.ops.geometry import ConvGeometry, Padding, geometry
from cnnjax.types import UserError, did_you_mean


class Formulation(NamedTuple):
    """One way to compute a convolution.

    Attributes:
      name: what `formulation` returns.
      backends: where it was measured to be faster than the rows below it; () is everywhere.
      exact: whether it rounds no more than XLA's own; if not, "auto" takes it in training only.
      applies: whether it can and should compute a geometry.
      conv2d: x (B, H, W, C), kernel (h, w, C / groups, D) of the same dtype, geometry -> y.
    """

    name: str
    backends: tuple[str, ...]
    exact: bool
    applies: Callable[[ConvGeometry], bool]
    conv2d: Callable[[jax.Array, jax.Array, ConvGeometry], jax.Array]


CPU, GPU = ("cpu",), ("gpu",)

# The first row that holds is taken. The last always holds, and is the only one under "xla".
FORMULATIONS = (
    Formulation("pointwise", CPU, True, pointwise.applies, pointwise.conv2d),
    Formulation("tiny_maps", CPU, True, tiny_maps.applies, convolution(
        tiny_maps.output, tiny_maps.input_gradient, tiny_maps.weight_gradient)),
    Formulation("rows", CPU, True, rows.applies, rows.conv2d),
    Formulation("depthwise", CPU, True, depthwise.applies, convolution(
        depthwise.output, depthwise.input_gradient, depthwise.weight_gradient)),
    Formulation("blocks", CPU, True, blocks.applies, blocks.conv2d),
    Formulation("winograd", CPU, False, winograd.applies, convolution(
        winograd.output, winograd.input_gradient, winograd.weight_gradient)),
    Formulation("taps", CPU, True, taps.applies, convolution(
        xla.conv2d, taps.input_gradient, taps.weight_gradient)),
    Formulation("space_to_depth", CPU, False, space_to_depth.applies_on_cpu, convolution(
        xla.conv2d, xla.input_gradient, space_to_depth.weight_gradient)),
    Formulation("patches", CPU, True, patches.applies, convolution(
        xla.conv2d, xla.input_gradient, patches.weight_gradient)),
    Formulation("space_to_depth", GPU, True, space_to_depth.applies, space_to_depth.conv2d),
    Formulation("depthwise_gpu", GPU, True, depthwise_gpu.applies, convolution(
        depthwise_gpu.output, depthwise_gpu.input_gradient, xla.weight_gradient)),
    Formulation("xla", (), True, xla.applies, xla.conv2d),
)

# Before those, under `ops.products("bfloat16")`. Winograd's kernel gradient is of float32 here too.
ROUNDED = (
    Formulation("pointwise", CPU, False, pointwise.applies, of_bfloat16(
        pointwise.output, pointwise.input_gradient, pointwise.weight_gradient)),
    Formulation("columns", CPU, False, columns.applies, of_bfloat16(
        columns.output, columns.input_gradient, columns.weight_gradient)),
    Formulation("winograd", CPU, False, winograd.applies, convolution(
        winograd.rounded_output, winograd.rounded_input_gradient, winograd.weight_gradient)),
)
# Where fewer rows meet the same kernel, rounding the kernel costs what the products save: the last
# stage of ResNet-50 at 64 px has 128.
MIN_ROWS = 512


def conv2d(x: jax.Array, kernel: jax.Array, stride: int | Sequence[int] = 1,
           padding: Padding = "SAME", groups: int = 1) -> jax.Array:
    """Returns the two-dimensional convolution (cross-correlation, as in every CNN library).

    Args:
      x: (B, H, W, C), floating point.
      kernel: (h, w, C / groups, D); converted to x's dtype.
      stride: in pixels, one number or (height, width).
      padding: "SAME" (TensorFlow's), "VALID", a number of pixels on every side, (height, width), or
        ((top, bottom), (left, right)).
      groups: number of channel groups; C of them is a depthwise convolution.

    Returns:
      (B, H', W', D) in x's dtype, with H' = floor((H + top + bottom - h) / stride) + 1. Sums are
      accumulated in float32 at least. The formulation depends on the shapes, the backend and
      `ops.using`; all agree within rounding.

    Raises:
      UserError: if the kernel does not fit the padded map, or the channels don't match.
    """
    g = _geometry(x, kernel, stride, padding, groups)
    kernel = kernel.astype(x.dtype)
    unfused = x.dtype == jnp.bfloat16 and jax.default_backend() == "cpu"
    return _compute(_choose(x, kernel, g), x, kernel, g, unfused)


def formulation(x: jax.Array, kernel: jax.Array, stride: int | Sequence[int] = 1,
                padding: Padding = "SAME", groups: int = 1) -> str:
    """Returns the name of the formulation that `conv2d` would choose for the same arguments.

    Arrays may be `jax.ShapeDtypeStruct`s: nothing is computed.
    """
    return _choose(x, kernel, _geometry(x, kernel, stride, padding, groups)).name


def names() -> tuple[str, ...]:
    """Returns what `without` can leave out: the rows but for the last, and what is no convolution.
    """
    return (*dict.fromkeys(row.name for row in (*ROUNDED, *FORMULATIONS[:-1])), *switch.OTHERS)


def without(*left_out: str) -> contextlib.AbstractContextManager:
    """Returns a context in which formulations are not chosen; the next row that applies is.

        with ops.without("winograd", "max_pool"):
            compiled = jax.jit(step).lower(state, batch).compile()

    For finding out what each of them is worth. As with `using`, it is read while a function is
    traced and is part of the key of `jax.jit`'s cache.

    Args:
      *left_out: of `names()`.

    Raises:
      UserError: if a name is none of these.
    """
    for name in left_out:
        if name not in names():
            raise UserError(f"{name!r} is no formulation; there are {', '.join(names())}."
                            f"{did_you_mean(name, names())}")
    return switch.leaving_out(tuple(sorted(set(left_out))))


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _compute(row: Formulation, x: jax.Array, kernel: jax.Array, g: ConvGeometry, unfused: bool
             ) -> jax.Array:
    """The convolution by one formulation.

    Jitted, so that layers of one geometry share a trace, forward and backward: the 53 convolutions
    of ResNet-50 have 23. XLA inlines the calls.

    `unfused` puts barriers on both sides of it and of its gradients. XLA:CPU of jaxlib 0.12 fuses a
    bfloat16 convolution with a reduction of its result, such as the mean over a map, into one
    kernel that reads memory it never wrote: logits are NaN or 1e36. Other dtypes and jaxlib 0.10
    are right without barriers.
    """
    if not unfused:
        return row.conv2d(x, kernel, g)
    x, kernel = lax.optimization_barrier((x, kernel))
    return lax.optimization_barrier(row.conv2d(x, kernel, g))


def _choose(x: jax.Array, kernel: jax.Array, g: ConvGeometry) -> Formulation:
    pixels = known_size(x) * g.out[0] * g.out[1]
    rounded = switch.rounds_factors(x.dtype) and pixels >= MIN_ROWS
    return next((row for row in (ROUNDED + FORMULATIONS if rounded else FORMULATIONS)
                 if row.applies(g) and switch.tuned_for(
                     *row.backends, name=row.name, operands=[x, kernel], exact=row.exact)),
                FORMULATIONS[-1])


def _geometry(x, kernel, stride, padding, groups) -> ConvGeometry:
    if kernel.ndim != 4:
        raise UserError("conv2d takes a kernel of (height, width, in_channels / groups, "
                        f"out_channels), got shape {kernel.shape}.")
    base = geometry("conv2d", "kernel", x, kernel.shape[:2], stride, padding)
    channels, (_, _, per_group, features) = x.shape[3], kernel.shape
    if per_group * groups != channels or features % groups:
        raise UserError(f"conv2d: a kernel of shape {kernel.shape} with groups={groups} needs "
                        f"{per_group * groups} input channels and out_channels divisible by "
                        f"{groups}; the map has {channels} channels.")
    return ConvGeometry(**vars(base), in_channels=channels, out_channels=features, groups=groups)
