"""Models of which a part does not train: the part behaves as in evaluation, and no model knows.

A layer is frozen when all of its parameters are. Not to train it means more than to leave its
parameters alone: its batch norms normalise by their running statistics and leave those as they are,
and nothing is dropped in it or on the way to it from other frozen layers. What is dropped right
before a layer that trains is the regularisation of that layer, and stays.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
from jax import lax

from cnnjax.models.layers import FLOAT32, BatchNorm, Dense
from cnnjax.models.parts import DropPath


def frozen_modules(names: Collection[str], trainable: Collection[str]) -> frozenset[str]:
    """Returns the paths of the modules none of whose parameters train, such as "stage1_block1".

    Args:
      names: of all parameters, such as "stage1_block1/conv1/kernel".
      trainable: those that train.
    """
    def modules(parameters):
        return {"/".join(path[:i]) for path in (name.split("/") for name in parameters)
                for i in range(len(path))}

    return frozenset(modules(names) - modules(trainable))


def frozen_drops(module: nn.Module, input_shape: Sequence[int], names: Collection[str],
                 trainable: Collection[str]) -> frozenset[str]:
    """Returns the paths of dropout and stochastic depth between layers that are all frozen.

    Those are the ones of which all layers that are called before are frozen, and the first that is
    called after them. Traces the model and computes nothing.

    Args:
      module: of `create_model`, or a `Head`.
      input_shape: (B, H, W, C), or (B, C).
      names: of all parameters.
      trainable: those that train.
    """
    layers, training = ({name.rpartition("/")[0] for name in some} for some in (names, trainable))
    found, pending = set(), set()
    for call in _calls(module, input_shape):
        if issubclass(call.kind, nn.Dropout | DropPath):
            pending.add(call.path)
        elif call.path in training:
            break
        elif call.path in layers:
            found |= pending
            pending.clear()
    return frozenset(found)


@contextlib.contextmanager
def as_in_evaluation(frozen: Collection[str]) -> Iterator[None]:
    """Within it, `apply` runs the modules with these paths as train=False would.

    Batch norms normalise by their running statistics and don't update them; dropout and stochastic
    depth, named or directly in a module that is, pass on what they get.
    """
    frozen = frozenset(frozen)

    def interceptor(call, args, kwargs, context):
        module = context.module
        if context.method_name == "__call__":
            path, parent = "/".join(module.path), "/".join(module.path[:-1])
            if isinstance(module, BatchNorm) and path in frozen:
                return call(*args, **kwargs, frozen=True)
            if isinstance(module, nn.Dropout | DropPath) and {path, parent} & frozen:
                return args[0]
        return call(*args, **kwargs)

    with nn.intercept_methods(interceptor):
        yield


class Head(nn.Module):
    """The end of a model as a model of its own: from pooled features to logits.

    Its parameters have the names that they have in the whole model.

    Attributes:
      num_classes: outputs.
      dropout_rate: before the layer, while training.
    """

    num_classes: int
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps features (B, C) to logits (B, num_classes)."""
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return Dense(self.num_classes, dtype=x.dtype, precision=lax.Precision.HIGHEST,
                     name="head")(x)


def split_at_head(module: nn.Module, input_shape: Sequence[int]) -> tuple[nn.Module, Head] | None:
    """Returns (trunk, head), which one after the other are the model, or None.

    The trunk gives the pooled features, (B, C). Both take the whole model's parameters.

    Args:
      module: of `create_model`.
      input_shape: (B, H, W, C).

    Returns:
      None if the last layer is no fully connected one on pooled features, as in SqueezeNet.
    """
    *before, last = [call for call in _calls(module, input_shape)
                     if call.path and "/" not in call.path]
    if not issubclass(last.kind, Dense) or last.path != "head":
        return None
    # What is dropped before the head is for the model to say, and not always its dropout_rate.
    rate = 0.0
    while before and issubclass(before[-1].kind, nn.Dropout):
        rate += (1 - rate) * before.pop().rate
    return module.clone(num_classes=0), Head(module.num_classes, rate)


class _Call(NamedTuple):
    """A module that is called: where it is, what it is, and what share it drops."""

    path: str
    kind: type[nn.Module]
    rate: float


def _calls(module: nn.Module, input_shape: Sequence[int]) -> tuple[_Call, ...]:
    """Returns a model's calls of its modules, itself included, in the order of their beginnings."""
    shape = (1, *input_shape[1:])
    try:
        hash(module)
    except TypeError:  # An attribute is a list or an array: traced anew each time.
        return _traced_calls.__wrapped__(module, shape)
    return _traced_calls(module, shape)


@functools.lru_cache(maxsize=32)
def _traced_calls(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[_Call, ...]:
    calls = []

    def interceptor(call, args, kwargs, context):
        if context.method_name == "__call__":
            called = context.module
            drops = isinstance(called, nn.Dropout | DropPath)
            calls.append(_Call("/".join(called.path), type(called), called.rate if drops else 0.0))
        return call(*args, **kwargs)

    with nn.intercept_methods(interceptor):
        jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct(input_shape, FLOAT32))
    return tuple(calls)
