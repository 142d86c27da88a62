"""The receptive field of every layer: which pixels of the image a position of its map sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Literal

from cnnjax import ops
from cnnjax.analysis import primitives, spans
from cnnjax.analysis.kinds import LOOK, MULTIPLY, kind_of
from cnnjax.models import variable_shapes
from cnnjax.models.layers import check_endpoint
from cnnjax.ops.geometry import Pair
from cnnjax.types import UserError

_TAG = "cnnjax.receptive_field:"


class UnknownOperation(UserError):
    """A model has an operation through which the receptive field cannot be followed."""


@dataclasses.dataclass(frozen=True)
class LayerField:
    """What the positions of one layer's map see of the image, in pixels.

    The field of position (i, j) begins at start + (i, j) * stride, and is `size` long.

    Attributes:
      name: the layer's path, such as "stage1_block1/conv1", or an endpoint.
      size: (height, width) of the field, not clipped to the image. Where branches are joined it
        is their union, from the first pixel to the last; likewise for a dilated kernel.
      stride: (height, width) from one position's field to the next one's.
      start: (row, column) of the first pixel that position (0, 0) sees; below 0 in the padding.
      sees_all: whether the layer sees the whole map: a global pooling, a squeeze-excite gate, a
        dense layer after either or on a flattened map. Such layers are not followed: the numbers
        are then those of the map's positions.
      depth: how many convolutions and dense layers the longest path from the image to here has,
        this one included: 50 at the end of ResNet-50. Gates are left out.
    """

    name: str
    size: Pair
    stride: Pair
    start: Pair
    sees_all: bool = False
    depth: int = 0

    def first_pixel(self, position: Sequence[int]) -> Pair:
        """Returns the (row, column) of the first pixel that a position (row, column) sees."""
        top, left = (start + i * stride for start, i, stride in zip(
            self.start, position, self.stride, strict=True))
        return top, left


def receptive_field(module: nn.Module, input_shape: Sequence[int]) -> list[LayerField]:
    """Returns the receptive field of every convolution, pool and dense layer, in order of calls.

        for field in cnnjax.receptive_field(cnnjax.create_model("vgg16"), (1, 224, 224, 3)):
            print(field.name, field.size)

    The model is traced on shapes, and what each array sees is followed through every operation of
    the trace, so that branches, skips, padding and pools without a name count too. The size is the
    theoretical one of Araujo et al., "Computing receptive fields of convolutional neural
    networks", Distill 2019.

    Args:
      module: any module of `create_model`'s contract.
      input_shape: (N, H, W, C) of the images. "SAME" padding depends on H and W, and so may
        `start`; `size` and `stride` don't.

    Raises:
      UserError: if `input_shape` is not four positive integers, if the model doesn't fit it, or
        (UnknownOperation) if the model has an operation without a rule; the message names it.
    """
    fields = fields_of_calls(module, input_shape, lambda layer, _: kind_of(layer) in LOOK)
    return [field for field in fields if field is not None]


def endpoint_fields(module: nn.Module, input_shape: Sequence[int],
                    endpoints: str | Sequence[str] | None = None) -> dict[str, LayerField]:
    """Returns the receptive field of what `capture` gives.

    Args:
      module, input_shape: as in `receptive_field`.
      endpoints: names of `module.endpoints`; None is all of them.

    Returns:
      {name: field}. Pooled features and logits have `sees_all`.

    Raises:
      UserError: as `receptive_field`, and if there is no such endpoint.
    """
    names = (endpoints,) if isinstance(endpoints, str) else tuple(endpoints or module.endpoints)
    for name in names:
        check_endpoint(name, module.endpoints)

    def apply(variables, x):
        _, found = module.apply(variables, x, train=False, capture=names)
        return [checkpoint_name(found[name], _tag(i, name)) for i, name in enumerate(names)]

    found = _follow(apply, module, input_shape)
    return {name: _field(name, found[i]) for i, name in enumerate(names)}


def field_of_map(module: nn.Module, input_shape: Sequence[int], endpoint: str) -> LayerField:
    """Returns the receptive field of what an endpoint gives, if that is a map.

    Raises:
      UserError: as `endpoint_fields`, and if it is none.
    """
    field = endpoint_fields(module, input_shape, endpoint)[endpoint]
    if field.sees_all:
        raise UserError(f"{endpoint!r} is no map: every number of it sees the whole image. The "
                        f"endpoints are: {', '.join(module.endpoints)}.")
    return field


def fields_of_calls(module: nn.Module, input_shape: Sequence[int],
                    visit: Callable[[nn.Module, jax.Array], bool],
                    variables: Any = None) -> list[LayerField | None]:
    """Returns the fields of the layers' calls for which `visit(layer, output)` is true.

    It is asked of every call that returns an array. One that doesn't depend on the image has None.
    `variables` are the shapes that `variable_shapes` returns, if they are at hand;
    `receptive_field` says the rest.
    """
    names: list[str] = []

    def tag(next_call, args, kwargs, context):
        output = next_call(*args, **kwargs)
        layer = context.module
        if (context.method_name != "__call__" or not isinstance(output, jax.Array)
                or not visit(layer, output)):
            return output
        names.append("/".join(layer.path))
        return checkpoint_name(output, _tag(len(names) - 1, names[-1], kind_of(layer) in MULTIPLY))

    def apply(variables, x):
        with nn.intercept_methods(tag):
            return module.apply(variables, x, train=False)

    found = _follow(apply, module, input_shape, variables)
    return [_field(name, found[i]) if i in found else None for i, name in enumerate(names)]


def check_input_shape(what: str, input_shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Returns (N, H, W, C); raises a UserError if it is not four positive integers."""
    shape = tuple(input_shape)
    if len(shape) != 4 or any(not isinstance(n, int) or n < 1 for n in shape):
        raise UserError(f"{what} takes the (N, H, W, C) of the images, such as (1, 224, 224, 3); "
                        f"got {input_shape!r}.")
    return shape


def shapes_of_calls(module: nn.Module, input_shape: Sequence[int],
                    visit: Callable[[nn.Module, jax.Array], Any], variables: Any) -> None:
    """Calls `visit(layer, output)` for every call that returns an array, without following it."""
    def see(next_call, args, kwargs, context):
        output = next_call(*args, **kwargs)
        if context.method_name == "__call__" and isinstance(output, jax.Array):
            visit(context.module, output)
        return output

    images = jax.ShapeDtypeStruct(tuple(input_shape), jnp.float32)
    with nn.intercept_methods(see), ops.using("xla"):
        # Not `init`, which also calls what only training does: auxiliary heads.
        jax.eval_shape(lambda v, x: module.apply(v, x, train=False), variables, images)


def _tag(number: int, name: str, has_weights: bool = False) -> str:
    return f"{_TAG}{number}:{int(has_weights)}:{name}"


def _follow(apply: Callable[..., Any], module: nn.Module, input_shape: Sequence[int],
            variables: Any = None) -> dict[int, spans.Seen]:
    """Returns what the arrays see that `apply(variables, images)` tags, by the tag's number."""
    shape = check_input_shape("receptive_field", input_shape)
    variables = variable_shapes(module, shape) if variables is None else variables
    # The plain definitions: formulations of other backends are the same sums in other operations.
    with ops.using("xla"):
        traced = jax.make_jaxpr(apply)(variables, jax.ShapeDtypeStruct(shape, jnp.float32))
    constants = [None] * len(jax.tree.leaves(variables))
    tags: dict[int, spans.Seen] = {}
    _interpret(traced.jaxpr, [*constants, spans.image(shape)], tags, [""])
    return tags


def _interpret(jaxpr, operands: Sequence[spans.Seen | None], tags: dict[int, spans.Seen],
               last: list[str]) -> list[spans.Seen | None]:
    """Returns what the results of a jaxpr see, and fills `tags`.

    Args:
      jaxpr: the program.
      operands: what each of its arguments sees; None for those that don't depend on the image.
      tags: by number.
      last: the name of the last tag, for messages.
    """
    seen = dict(zip(jaxpr.invars, operands, strict=True))

    def read(variable):
        return None if isinstance(variable, Literal) else seen.get(variable)

    for eqn in jaxpr.eqns:
        given = [read(variable) for variable in eqn.invars]
        if all(s is None for s in given):
            continue
        name = eqn.primitive.name
        if name in primitives.CALLS:
            results = _interpret(primitives.called(eqn), given, tags, last)
        else:
            try:
                results = primitives.apply(eqn, given)
            except spans.Unknown as error:
                raise _explained(error, name, last[0]) from None
        seen.update(zip(eqn.outvars, results, strict=True))
        if name == "name" and eqn.params["name"].startswith(_TAG):
            number, layers, last[0] = eqn.params["name"].removeprefix(_TAG).split(":", 2)
            seen[eqn.outvars[0]] = tags[int(number)] = dataclasses.replace(
                results[0], depth=results[0].depth + int(layers))
    return [read(variable) for variable in jaxpr.outvars]


def _explained(error: spans.Unknown, operation: str, layer: str) -> UnknownOperation:
    after = f" after layer {layer}" if layer else ""
    return UnknownOperation(
        f"receptive_field: the operation '{operation}'{after} {error}, and what is seen through "
        "that is not known. Write the model with convolutions, pools, slices, pads and elementwise "
        "operations there, or add a rule to cnnjax/analysis/primitives.py.")


def _field(name: str, seen: spans.Seen) -> LayerField:
    height, width = seen.spans
    return LayerField(name, (height.size, width.size), (height.stride, width.stride),
                      (height.start, width.start), sees_all=seen.live != (0, 1),
                      depth=seen.depth)
