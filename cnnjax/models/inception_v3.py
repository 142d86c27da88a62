"""Inception-v3 (Szegedy et al., "Rethinking the Inception architecture for computer vision", arXiv
1512.00567), as torchvision and the published weights have it.

7x7 convolutions are factored into 1x7 and 7x1, 5x5 ones into two 3x3, and the auxiliary head has
batch norm ("BN-auxiliary", section 7). Blocks are named as in the authors' code: Mixed_5b, ….

torchvision's published weights take images normalised with mean and std 0.5, whatever its own
preprocessing says: its `transform_input` undoes that one first. That belongs to the weights'
preprocessing, so there is no such argument here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import numpy as np

from cnnjax.models.branches import Branch, Branches, Fork, Pool, Unit, conv_unit
from cnnjax.models.initializers import normal
from cnnjax.models.layers import (
    FLOAT32,
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Endpoints,
    GlobalAvgPool,
    MaxPool,
    classify,
    endpoint_names,
)
from cnnjax.ops.precision import widened


def _block_35(pool_width: int) -> tuple[Branch, ...]:
    """Figure 5, on maps of 35x35; one of its 3x3 pairs is a 5x5, as in the published weights."""
    return ((Unit(64),), (Unit(48), Unit(64, 5)), (Unit(64), Unit(96, 3), Unit(96, 3)),
            (Pool("avg"), Unit(pool_width)))


def _block_17(width: int) -> tuple[Branch, ...]:
    """Figure 6 with n = 7, on maps of 17x17."""
    row, column = (1, 7), (7, 1)
    return ((Unit(192),), (Unit(width), Unit(width, row), Unit(192, column)),
            (Unit(width), Unit(width, column), Unit(width, row), Unit(width, column),
             Unit(192, row)),
            (Pool("avg"), Unit(192)))


# Figure 10: the grids shrink from 35 to 17 and from 17 to 8 pixels.
_SHRINK_TO_17 = ((Unit(384, 3, 2),), (Unit(64), Unit(96, 3), Unit(96, 3, 2)), (Pool("max", 2),))
_SHRINK_TO_8 = ((Unit(192), Unit(320, 3, 2)),
                (Unit(192), Unit(192, (1, 7)), Unit(192, (7, 1)), Unit(192, 3, 2)),
                (Pool("max", 2),))
# Figure 7, on maps of 8x8.
_FORK = Fork((Unit(384, (1, 3)), Unit(384, (3, 1))))
_BLOCK_8 = ((Unit(320),), (Unit(384), _FORK), (Unit(448), Unit(384, 3), _FORK),
            (Pool("avg"), Unit(192)))


def mixed_name(stage: int, block: int) -> str:
    """Returns the authors' name of a block, such as "Mixed_5b" of (1, 1) and "Mixed_6a" of (2, 1).

    Stages start at 5; that stage's "a" is the pooling before it.
    """
    return f"Mixed_{stage + 4}{chr(ord('b' if stage == 1 else 'a') + block - 1)}"


class AuxiliaryHead(nn.Module):
    """5x5 average pooling of stride 3, 1x1 to 128, 5x5 to 768, global average, dense.

    Attributes:
      num_classes: outputs.
      unit: `conv_unit` with its makers bound.
    """

    num_classes: int
    unit: Callable[..., jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.unit(AvgPool(5, 3, name="pool")(x), 128, name="conv1")
        x = self.unit(x, 768, 5, padding=0, name="conv2").mean((1, 2))
        x = widened(x)
        return Dense(self.num_classes, x.dtype, normal(0.001), precision="highest",
                     name="head")(x)


class InceptionV3(nn.Module):
    """A stem, eleven blocks in three stages, global average pooling, linear.

    23,834,568 parameters, 27,161,264 with the auxiliary head. Images are 299 px in the paper; 75
    are the least, and 299 with an auxiliary head.

    Endpoints: stem (after its second pooling), Mixed_5b, Mixed_5c, Mixed_5d, stage1, Mixed_6a, …,
    stage2, …, stage3, features. stage1 is Mixed_5d, and so on.

    Attributes:
      num_classes: outputs; 0 gives the features, and no auxiliary head either.
      pool_widths: channels after the pooling in each block of the first stage.
      widths_7x7: channels between the factored 7x7 convolutions in each block of the second stage
        but its first, which shrinks the map.
      last_blocks: blocks of the third stage after the one that shrinks the map.
      aux_logits: whether an auxiliary head stands on the second stage; torchvision's recipe adds
        its loss with weight 0.4 while training. False, since nothing of it is used in evaluation.
      dropout_rate: before the head.
      bn_momentum: decay of the running statistics; 0.9 is torch's momentum=0.1.
      dtype: of the computation; parameters, statistics and logits are float32.
    """

    num_classes: int
    pool_widths: tuple[int, ...] = (32, 64, 64)
    widths_7x7: tuple[int, ...] = (128, 160, 160, 192)
    last_blocks: int = 2
    aux_logits: bool = False
    dropout_rate: float = 0.5
    bn_momentum: float = 0.9
    dtype: np.dtype = FLOAT32

    def _stages(self) -> tuple[tuple[tuple[Branch, ...], ...], ...]:
        return (tuple(map(_block_35, self.pool_widths)),
                (_SHRINK_TO_17, *map(_block_17, self.widths_7x7)),
                (_SHRINK_TO_8, *[_BLOCK_8] * self.last_blocks))

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What `capture` may ask for."""
        names = [name for i, blocks in enumerate(self._stages(), 1) for name in (
            *(mixed_name(i, j) for j in range(1, len(blocks) + 1)), f"stage{i}")]
        return endpoint_names(("stem", *names), self.num_classes)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, capture: Sequence[str] = ()):
        """Maps images (B, H, W, 3) to logits (B, num_classes), and auxiliary ones in training."""
        end = Endpoints(self.endpoints, capture)
        conv = functools.partial(Conv, dtype=self.dtype, kernel_init=normal(0.1))
        norm = functools.partial(BatchNorm, train, self.bn_momentum, epsilon=1e-3)
        unit = functools.partial(conv_unit, conv=conv, norm=norm)

        x = unit(x, 32, 3, 2, 0, name="stem_conv1")
        x = unit(x, 32, 3, padding=0, name="stem_conv2")
        x = unit(x, 64, 3, name="stem_conv3")
        x = MaxPool(3, 2, name="stem_pool1")(x)
        x = unit(x, 80, 1, name="stem_conv4")
        x = unit(x, 192, 3, padding=0, name="stem_conv5")
        x = end("stem", MaxPool(3, 2, name="stem_pool2")(x))

        for i, blocks in enumerate(self._stages(), 1):
            for j, branches in enumerate(blocks, 1):
                x = Branches(branches, unit, name=f"stage{i}_block{j}")(x)
                x = end(mixed_name(i, j), x)
            x = end(f"stage{i}", x)
            wanted = self.aux_logits and self.num_classes and i == 2
            if wanted and (train or self.is_initializing()):
                logits = AuxiliaryHead(self.num_classes, unit, name="aux1")(x)
                if train:
                    end.auxiliary("aux1", logits)

        x = GlobalAvgPool(name="pool")(x)
        return classify(x, end, num_classes=self.num_classes, dropout_rate=self.dropout_rate,
                        train=train, kernel_init=normal(0.1))
