"""A model layer by layer: shapes, parameters and multiply-adds, from shapes alone."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from cnnjax import trees
from cnnjax.analysis.kinds import MULTIPLY, kind_of
from cnnjax.analysis.receptive_field import (
    LayerField,
    UnknownOperation,
    check_input_shape,
    fields_of_calls,
    shapes_of_calls,
)
from cnnjax.analysis.text import aligned
from cnnjax.models import variable_shapes
from cnnjax.ops.geometry import Pair, pair


@dataclasses.dataclass(frozen=True)
class Row:
    """One call of one layer.

    Attributes:
      name: the layer's path, such as "stage1_block1/conv1"; its parameters have it as a prefix.
      kind: one of `kinds.KINDS`' values, such as "conv" or "max_pool"; or the class of another
        module that has parameters of its own.
      output_shape: with the batch first, (N, H, W, C) or (N, C).
      kernel: (height, width) in pixels of a convolution's or a pool's window, else None.
      stride: likewise.
      params: number of trainable scalars; 0 where a layer is called again.
      macs: multiply-adds for one image. A sparse convolution counts its connections.
      field: what a position of the output sees of the image, or None where that is not known.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    kernel: Pair | None
    stride: Pair | None
    params: int
    macs: int
    field: LayerField | None = None


@dataclasses.dataclass(frozen=True)
class Summary:
    """What `summarize` found.

    Attributes:
      input_shape: (N, H, W, C).
      rows: the layers in the order of their calls.
      params: number of trainable scalars of the model. Parameters that `train=False` does not
        use, such as auxiliary heads', are counted and have no row.
      note: why the receptive fields are not known, or which layers' multiply-adds, or "".
    """

    input_shape: tuple[int, int, int, int]
    rows: tuple[Row, ...]
    params: int
    note: str = ""

    @property
    def macs(self) -> int:
        """Multiply-adds for one image: of convolutions and dense layers alone."""
        return sum(row.macs for row in self.rows)

    @property
    def depth(self) -> int | None:
        """Convolutions and dense layers on the longest path to the last layer, gates left out.

        None where that is not known.
        """
        return self.rows[-1].field.depth if self.rows and self.rows[-1].field else None

    def format_table(self) -> str:
        """Returns the rows and the totals as lines of text; shapes without the batch.

        The last columns are the receptive field: its size, the step from one position's to the
        next one's, and the first row and column of the first one, in pixels of the image. "all" is
        a layer that sees the whole map.
        """
        lines = aligned([
            ("layer", "type", "output", "kernel", "stride", "parameters", "multiply-adds",
             "field", "step", "start"),
            *((row.name, row.kind, _times(row.output_shape[1:]), _times(row.kernel),
               _times(row.stride), f"{row.params:,}", f"{row.macs:,}", *_seen(row.field))
              for row in self.rows),
            ("total", "", "", "", "", f"{self.params:,}", f"{self.macs:,}", "", "", ""),
        ], numbers=(5, 6))
        return lines + (f"\n\n{self.note}" if self.note else "")


def summarize(module: nn.Module, input_shape: Sequence[int], fields: bool = True) -> Summary:
    """Traces a model on shapes, without computing anything, and returns a row for each layer.

        print(cnnjax.summarize(cnnjax.create_model("lenet5", 10), (1, 28, 28, 1)).format_table())

    Args:
      module: any module of `create_model`'s contract.
      input_shape: (N, H, W, C) of the images. N changes output shapes only.
      fields: whether rows have receptive fields and `depth` is known: most of the time it takes.

    Raises:
      UserError: if `input_shape` is not four positive integers, or the model doesn't fit it.
    """
    shape = check_input_shape("summarize", input_shape)
    rows: list[Row] = []
    seen: set[str] = set()

    uncounted: dict[str, None] = {}

    def record(layer, output) -> bool:
        if (row := _row(layer, output, shape[0], seen)) is None:
            return False
        rows.append(row)
        seen.add(row.name)
        if not _is_counted(layer, variables):
            uncounted[row.name] = None
        return True

    variables, notes = variable_shapes(module, shape), []
    if not fields:
        shapes_of_calls(module, shape, record, variables)
    else:
        try:
            fields = fields_of_calls(module, shape, record, variables)
            rows = [dataclasses.replace(row, field=field)
                    for row, field in zip(rows, fields, strict=True)]
        except UnknownOperation as error:  # The other columns are right all the same.
            notes.append(str(error))
    if uncounted:
        notes.append("The multiply-adds of these layers are not known, and the total is without "
                     "what they do: " + ", ".join(uncounted))
    return Summary(shape, tuple(rows), trees.count(variables.get("params", {})), "\n".join(notes))


def _is_counted(layer: nn.Module, variables: dict[str, Any]) -> bool:
    """Whether a layer's multiply-adds are in its row: of one call, with one set of parameters."""
    own = layer.variables.get("params", {})
    if kind_of(layer) is None:
        return getattr(own.get("kernel"), "ndim", 0) < 2
    # Transforms of Flax (nn.scan, nn.vmap) show a layer one of several sets.
    whole = functools.reduce(lambda tree, key: tree.get(key, {}), layer.path,
                             variables.get("params", {}))
    return kind_of(layer) not in MULTIPLY or all(
        leaf.shape == whole[name].shape for name, leaf in own.items() if name in whole)


def _row(layer: nn.Module, output, batch: int, seen: set[str]) -> Row | None:
    """The row of a layer, or None if it is a mere container of others."""
    own = {name: leaf for name, leaf in layer.variables.get("params", {}).items()
           if hasattr(leaf, "shape")}
    kind = kind_of(layer)
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


def _seen(field: LayerField | None) -> tuple[str, str, str]:
    """The cells of a receptive field."""
    if field is None:
        return "", "", ""
    if field.sees_all:
        return "all", "", ""
    return _times(field.size), _times(field.stride), ",".join(map(str, field.start))


def _times(sizes: Sequence[int] | None) -> str:
    return "" if sizes is None else "x".join(map(str, sizes))
