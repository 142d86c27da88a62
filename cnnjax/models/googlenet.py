"""GoogLeNet (Szegedy et al., "Going deeper with convolutions", arXiv 1409.4842), in two forms.

The paper's has 5x5 convolutions, local response normalisation after the stem's first pooling and
before its second, biases and no batch norm. It leaves the constants of the normalisation and the
initial values open: they are here those of Caffe's replication (bvlc_googlenet). torchvision's, of
which the published weights are, has batch norm after every convolution, 3x3 in place of 5x5, which
is a slip that was kept for the weights' sake, and a 2x2 window in the last max-pooling.

torchvision's weights take images normalised with mean and std 0.5, whatever its preprocessing says:
its `transform_input` undoes that one, which belongs to the weights here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import flax.linen as nn
import jax
import numpy as np

from cnnjax.models.branches import Branches, Pool, Unit, conv_unit
from cnnjax.models.initializers import caffe_xavier, normal
from cnnjax.models.layers import (
    FLOAT32,
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Endpoints,
    GlobalAvgPool,
    MaxPool,
    ModuleDef,
    classify,
    endpoint_names,
)
from cnnjax.models.parts import AdaptiveAvgPool, check_momentum, local_response_norm
from cnnjax.models.scaling import check_multipliers, round_channels
from cnnjax.ops.precision import widened
from cnnjax.types import UserError

# Table 1 of the paper, the rows of inception (3a) to (5b) in three stages. Columns: 1x1; before and
# of 3x3; before and of 5x5; after the pooling.
TABLE_1 = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    ((192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64),
     (112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128)),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
# Auxiliary heads stand on inception (4a) and (4d).
AUXILIARY = {(2, 1): "aux1", (2, 4): "aux2"}


def inception_name(stage: int, block: int) -> str:
    """Returns the paper's name of a block, such as "inception4a" of (2, 1): stages start at 3."""
    return f"inception{stage + 2}{'abcde'[block - 1]}"


class AuxiliaryHead(nn.Module):
    """Average pooling, 1x1 convolution to 128, dense 1024 with ReLU, dropout, dense.

    Attributes: as of GoogLeNet; unit is `conv_unit` with its makers bound, and dense and head are
    the makers of the dense layers.
    """

    num_classes: int
    pool: Literal["adaptive", "strided"]
    dropout_rate: float
    train: bool
    unit: Callable[..., jax.Array]
    dense: ModuleDef
    head: ModuleDef
    dtype: np.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        pool = AvgPool(5, 3, name="pool") if self.pool == "strided" else AdaptiveAvgPool(4)
        x = self.unit(pool(x), 128, name="conv1")
        x = nn.relu(self.dense(1024, dtype=self.dtype, name="fc1")(jax.lax.collapse(x, 1)))
        x = widened(x)
        x = nn.Dropout(self.dropout_rate, deterministic=not self.train)(x)
        return self.head(self.num_classes, dtype=x.dtype, precision="highest", name="head")(x)


class GoogLeNet(nn.Module):
    """A stem, nine inception blocks in three stages, global average pooling, linear.

    6,624,904 parameters, 13,004,888 with auxiliary heads; the paper's 6,998,552 and 13,378,280.

    Endpoints: stem (after its second pooling), inception3a, …, stage1 (inception3b), …, features.

    Attributes:
      num_classes: outputs; 0 gives the features, and no auxiliary heads either.
      stage_sizes: blocks of each stage; fewer than (2, 5, 2) leave out the last, with their heads.
      width: multiplies all channels, which are then rounded by `round_channels`.
      norm: "batch", or "local_response" for the paper's two, with biases in the convolutions.
      large_kernel: of the branch that the paper calls 5x5: 5 in the paper, 3 in torchvision.
      last_pool: window of the max-pooling before the last stage: 3 in the paper, 2 in torchvision.
      aux_logits: whether there are two auxiliary heads, whose losses the paper adds with weight 0.3
        while training. False, since what is deployed and counted as GoogLeNet has none.
      aux_pool: how their input is averaged to 4x4: "adaptive", at any size of the image, or
        "strided", 5x5 with stride 3 as in the paper, which gives 4x4 for images of 224 px.
      dropout_rate: before the head: 0.4 in the paper, 0.2 in torchvision.
      aux_dropout_rate: in the auxiliary heads.
      bn_momentum: decay of the running statistics; 0.9 is torch's momentum=0.1.
      dtype: of the computation; parameters, statistics and logits are float32.
    """

    num_classes: int
    stage_sizes: tuple[int, ...] = (2, 5, 2)
    width: float = 1.0
    norm: Literal["batch", "local_response"] = "batch"
    large_kernel: int = 3
    last_pool: int = 2
    aux_logits: bool = False
    aux_pool: Literal["adaptive", "strided"] = "adaptive"
    dropout_rate: float = 0.2
    aux_dropout_rate: float = 0.7
    bn_momentum: float = 0.9
    dtype: np.dtype = FLOAT32

    def __post_init__(self):
        check_multipliers(self, "width")
        check_momentum(self, self.norm == "batch", "norm='batch'")
        most = tuple(map(len, TABLE_1))
        if len(self.stage_sizes) != 3 or any(map(int.__gt__, self.stage_sizes, most)):
            raise UserError(f"GoogLeNet: stage_sizes={self.stage_sizes} must be at most {most}.")
        if self.large_kernel < 1 or self.large_kernel % 2 == 0:
            raise UserError(f"GoogLeNet: large_kernel={self.large_kernel} must be odd, as 3x3 is.")
        super().__post_init__()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What `capture` may ask for."""
        names = [name for i, size in enumerate(self.stage_sizes, 1) for name in (
            *(inception_name(i, j) for j in range(1, size + 1)), f"stage{i}")]
        return endpoint_names(("stem", *names), self.num_classes)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, capture: Sequence[str] = ()):
        """Maps images (B, H, W, 3) to logits (B, num_classes), and auxiliary ones in training."""
        end = Endpoints(self.endpoints, capture)
        unit, dense, head = self._makers(train)

        x = unit(x, 64, 7, 2, name="stem_conv1")
        x = self._respond(MaxPool(3, 2, ceil_mode=True, name="stem_pool1")(x))
        x = unit(x, 64, 1, name="stem_conv2")
        x = self._respond(unit(x, 192, 3, name="stem_conv3"))
        x = end("stem", MaxPool(3, 2, ceil_mode=True, name="stem_pool2")(x))

        for i, rows in enumerate(TABLE_1, 1):
            if i > 1:
                window = self.last_pool if i == len(TABLE_1) else 3
                x = MaxPool(window, 2, ceil_mode=True, name=f"stage{i}_pool")(x)
            for j, row in enumerate(rows[:self.stage_sizes[i - 1]], 1):
                x = Branches(self._branches(*row), unit, name=f"stage{i}_block{j}")(x)
                x = end(inception_name(i, j), x)
                if (i, j) in AUXILIARY:
                    self._auxiliary(AUXILIARY[i, j], x, end, train, unit, dense, head)
            x = end(f"stage{i}", x)

        x = GlobalAvgPool(name="pool")(x)
        return classify(x, end, num_classes=self.num_classes, dropout_rate=self.dropout_rate,
                        train=train, **head.keywords)

    def _respond(self, x):
        return local_response_norm(x, alpha=2e-5, k=1.0) if self.norm == "local_response" else x

    def _branches(self, one, before3, three, before5, five, after_pool):
        """The four branches of a row of Table 1."""
        return ((Unit(one),), (Unit(before3), Unit(three, 3)),
                (Unit(before5), Unit(five, self.large_kernel)), (Pool("max"), Unit(after_pool)))

    def _makers(self, train):
        """The convolution unit, its channels multiplied by `width`, and the dense layers."""
        batch_norm = self.norm == "batch"
        kernel_init = normal(0.01) if batch_norm else caffe_xavier
        biased = dict(kernel_init=kernel_init, bias_init=nn.initializers.constant(0.2))
        conv = functools.partial(Conv, dtype=self.dtype, use_bias=not batch_norm, **biased)
        norm = functools.partial(BatchNorm, train, self.bn_momentum, epsilon=1e-3)

        def unit(x, features, *shape, **named):
            return conv_unit(x, round_channels(features * self.width), *shape, **named,
                             conv=conv, norm=norm if batch_norm else None)

        if batch_norm:  # Biases as torch has them.
            dense = head = functools.partial(Dense, kernel_init=kernel_init)
        else:
            dense = functools.partial(Dense, **biased)
            head = functools.partial(dense, bias_init=nn.initializers.zeros)
        return unit, dense, head

    def _auxiliary(self, name, x, end, train, unit, dense, head):
        """Adds an auxiliary head, whose parameters exist whether it trains or not."""
        if self.aux_logits and self.num_classes and (train or self.is_initializing()):
            logits = AuxiliaryHead(self.num_classes, self.aux_pool, self.aux_dropout_rate, train,
                                   unit, dense, head, self.dtype, name=name)(x)
            if train:
                end.auxiliary(name, logits)
