"""Which layers have a row of their own in tables of a model."""

from __future__ import annotations

import flax.linen as nn

from cnnjax.models import layers, parts
from cnnjax.models.lenet import SparseConv

# Subclasses take their base's kind; Flax's own layers are known too.
KINDS = {
    layers.Conv: "conv",
    SparseConv: "conv",
    nn.Conv: "conv",
    layers.Dense: "dense",
    nn.Dense: "dense",
    layers.BatchNorm: "batch_norm",
    nn.BatchNorm: "batch_norm",
    parts.LayerNorm: "layer_norm",
    nn.LayerNorm: "layer_norm",
    nn.GroupNorm: "group_norm",
    layers.MaxPool: "max_pool",
    layers.AvgPool: "avg_pool",
    parts.AdaptiveAvgPool: "adaptive_pool",
    layers.GlobalAvgPool: "global_pool",
}
# Layers whose multiply-adds are counted, as the literature does.
MULTIPLY = ("conv", "dense")
# Layers that look at something: the others see what their input sees.
LOOK = ("conv", "dense", "max_pool", "avg_pool", "adaptive_pool", "global_pool")


def kind_of(layer: nn.Module) -> str | None:
    """Returns the layer's kind, or None if it is of no known one."""
    return next((KINDS[c] for c in type(layer).__mro__ if c in KINDS), None)
