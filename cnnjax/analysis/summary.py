"""A model layer by layer: shapes, parameters and multiply-adds, from shapes alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax import trees
from cnnjax.models import layers
from cnnjax.models.lenet import SparseConv
from cnnjax.ops.geometry import Pair, pair
from cnnjax.types import UserError

# What has a row. Subclasses take their base's; Flax's own layers are known too.
KINDS = {
    layers.Conv: "conv",
    SparseConv: "conv",
    nn.Conv: "conv",
    layers.Dense: "dense",
    nn.Dense: "dense",
    layers.BatchNorm: "batch_norm",
    nn.BatchNorm: "batch_norm",
    layers.MaxPool: "max_pool",
    layers.AvgPool: "avg_pool",
    layers.GlobalAvgPool: "global_pool",
}
# Layers whose multiply-adds are counted, as the literature does.
MULTIPLY = ("conv", "dense")


@dataclasses.dataclass(frozen=True)
class Row:
    """One call of one layer.

    Attributes:
      name: the layer's path, such as "stage1_block1/conv1"; its parameters have it as a prefix.
      kind: "conv", "dense", "batch_norm", "max_pool", "avg_pool" or "global_pool"; or the class of
        another module that has parameters of its own.
      output_shape: with the batch first, (N, H, W, C) or (N, C).
      kernel: (height, width) in pixels of a convolution's or a pool's window, else None.
      stride: likewise.
      params: number of trainable scalars; 0 where a layer is called again.
      macs: multiply-adds for one image. A sparse convolution counts its connections.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    kernel: Pair | None
    stride: Pair | None
    params: int
    macs: int


@dataclasses.dataclass(frozen=True)
class Summary:
    """What `summarize` found.

    Attributes:
      input_shape: (N, H, W, C).
      rows: the layers in the order of their calls.
      params: number of trainable scalars of the model. Parameters that `train=False` does not
        use, such as auxiliary heads', are counted and have no row.
    """

    input_shape: tuple[int, int, int, int]
    rows: tuple[Row, ...]
    params: int

    @property
    def macs(self) -> int:
        """Multiply-adds for one image: of convolutions and dense layers alone."""
        return sum(row.macs for row in self.rows)

    def format_table(self) -> str:
        """Returns the rows and the totals as lines of text; shapes without the batch."""
        return _aligned([
            ("layer", "type", "output", "kernel", "stride", "parameters", "multiply-adds"),
            *((row.name, row.kind, _times(row.output_shape[1:]), _times(row.kernel),
               _times(row.stride), f"{row.params:,}", f"{row.macs:,}") for row in self.rows),
            ("total", "", "", "", "", f"{self.params:,}", f"{self.macs:,}"),
        ])


def summarize(module: nn.Module, input_shape: Sequence[int]) -> Summary:
    """Traces a model on shapes, without computing anything, and returns a row for each layer.

        print(cnnjax.summarize(cnnjax.create_model("lenet5", 10), (1, 28, 28, 1)).format_table())

    Args:
      module: any module of `create_model`'s contract.
      input_shape: (N, H, W, C) of the images. N changes output shapes only.

    Raises:
      UserError: if `input_shape` is not four positive integers, or the model doesn't fit it.
    """
    shape = tuple(input_shape)
    if len(shape) != 4 or any(not isinstance(n, int) or n < 1 for n in shape):
        raise UserError("summarize takes the (N, H, W, C) of the images, such as (1, 224, 224, 3); "
                        f"got {input_shape!r}.")
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), images)

    rows: list[Row] = []
    seen: set[str] = set()

    def record(next_call, args, kwargs, context):
        output = next_call(*args, **kwargs)
        layer = context.module
        if context.method_name == "__call__" and (row := _row(layer, output, shape[0], seen)):
            rows.append(row)
            seen.add(row.name)
        return output

    with nn.intercept_methods(record):
        jax.eval_shape(lambda v, x: module.apply(v, x, train=False), variables, images)
    return Summary(shape, tuple(rows), trees.count(variables.get("params", {})))


def _row(layer: nn.Module, output, batch: int, seen: set[str]) -> Row | None:
    """The row of a layer, or None if it is a mere container of others."""
    own = {name: leaf for name, leaf in layer.variables.get("params", {}).items()
           if hasattr(leaf, "shape")}
    kind = next((KINDS[c] for c in type(layer).__mro__ if c in KINDS), None)
    if kind is None and not own:
        return None
    name = "/".join(layer.path)
    macs = 0
    if kind in MULTIPLY:
        positions = math.prod(output.shape[:-1])
        macs = positions * own["kernel"].size // batch
    return Row(name=name, kind=kind or type(layer).__name__, output_shape=output.shape,
               kernel=_of(layer, "kernel_size", "window"), stride=_stride(layer),
               params=0 if name in seen else sum(leaf.size for leaf in own.values()), macs=macs)


def _of(layer: nn.Module, *attributes: str) -> Pair | None:
    """The first of the attributes that the layer has, as (height, width)."""
    value = next((getattr(layer, a) for a in attributes if getattr(layer, a, None)), None)
    return None if value is None else pair(value, attributes[0])


def _stride(layer: nn.Module) -> Pair | None:
    """The layer's stride: a pool's is its window unless it says otherwise."""
    if (window := _of(layer, "kernel_size", "window")) is None:
        return None
    default = (1, 1) if hasattr(layer, "kernel_size") else window
    return _of(layer, "stride", "strides") or default


def _times(sizes: Sequence[int] | None) -> str:
    return "" if sizes is None else "x".join(map(str, sizes))


def _aligned(cells: Sequence[Sequence[str]]) -> str:
    """Lines with columns two spaces apart; the last two columns are numbers, to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    split = len(widths) - 2
    return "\n".join("  ".join(
        cell.ljust(width) if i < split else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(line, widths, strict=True))) for line in cells)
