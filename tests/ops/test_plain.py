"""What "xla" stands for in comparisons: the operations of plain Flax."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from cnnjax import ops
from cnnjax.models import layers

PAIRS = [
    (layers.Conv(8, 3, 2), nn.Conv(8, (3, 3), 2, padding=1, use_bias=False)),
    (layers.Conv(8, 5, padding="VALID"), nn.Conv(8, (5, 5), padding="VALID", use_bias=False)),
    (layers.Conv(6, 3, groups=6), nn.Conv(6, (3, 3), padding=1, feature_group_count=6,
                                          use_bias=False)),
    (layers.MaxPool(3, 2, 1), lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))),
    (layers.AvgPool(2), lambda x: nn.avg_pool(x, (2, 2), (2, 2))),
    (layers.Dense(5), nn.Dense(5)),
]


def heavy_operations(layer, x):
    """The lowered convolutions, products and windows of a step, without the numbers of values."""
    def loss(variables, x):
        return jnp.sum(jnp.sin(layer.apply(variables, x) if variables else layer(x)))

    variables = jax.jit(layer.init)(jax.random.key(0), x) if isinstance(layer, nn.Module) else {}
    text = jax.jit(jax.grad(loss, (0, 1))).lower(variables, x).as_text()
    kinds = r"stablehlo\.(?:convolution|dot_general|reduce_window|select_and_scatter)"
    return sorted(re.sub(r"%[\w#:]+", "%", line).strip()
                  for line in text.splitlines() if re.search(kinds, line))


@pytest.mark.parametrize("ours,flax", PAIRS)
def test_under_xla_a_layer_is_the_operation_of_flax_and_its_derivatives(ours, flax):
    x = jnp.ones((2, 9, 8, 6))
    with ops.using("xla"):
        found = heavy_operations(ours, x)
    assert found and found == heavy_operations(flax, x)
