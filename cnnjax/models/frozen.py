"""Models of which a part does not train: the part behaves as in evaluation, and no model knows.

A layer is frozen when all of its parameters are. Not to train it means more than to leave its
parameters alone: its batch norms normalise by their running statistics and leave those as they are,
and nothing in it is dropped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence

import flax.linen as nn
import jax

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


@contextlib.contextmanager
def as_in_evaluation(frozen: Collection[str]) -> Iterator[None]:
    """Within it, `apply` runs the modules with these paths as train=False would.

    Batch norms normalise by their running statistics and don't update them; dropout and stochastic
    depth pass on what they get.
    """
    def interceptor(call, args, kwargs, context):
        module = context.module
        if context.method_name == "__call__":
            if isinstance(module, BatchNorm) and "/".join(module.path) in frozen:
                return call(*args, **kwargs, frozen=True)
            if (isinstance(module, nn.Dropout | DropPath)
                    and "/".join(module.path[:-1]) in frozen):
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
        return Dense(self.num_classes, dtype=x.dtype, name="head")(x)


def split_at_head(module: nn.Module, input_shape: Sequence[int]) -> tuple[nn.Module, Head] | None:
    """Returns (trunk, head), which one after the other are the model, or None.

    The trunk gives the pooled features, (B, C). Both take the whole model's parameters.

    Args:
      module: of `create_model`.
      input_shape: (B, H, W, C).

    Returns:
      None if the last layer is no fully connected one on pooled features, as in SqueezeNet.
    """
    calls = []

    def interceptor(call, args, kwargs, context):
        if context.method_name == "__call__" and len(context.module.path) == 1:
            calls.append(context.module)
        return call(*args, **kwargs)

    with nn.intercept_methods(interceptor):
        jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct(input_shape, FLOAT32))
    *_, before, last = calls
    if not isinstance(last, Dense) or last.name != "head":
        return None
    # What is dropped before the head is for the model to say, and not always its dropout_rate.
    rate = before.rate if isinstance(before, nn.Dropout) else 0.0
    return module.clone(num_classes=0), Head(module.num_classes, rate)
