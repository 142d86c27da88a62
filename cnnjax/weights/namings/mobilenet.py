"""Names of MobileNetV2 and MobileNetV3 in torchvision and in timm."""

import re

from cnnjax.weights.naming import ONE_BY_ONE, Naming
from cnnjax.weights.namings.inverted_residuals import (
    LAYOUTS,
    PART,
    SQUEEZE,
    blocks_before,
    count_blocks,
    count_stages,
    parts,
    timm_block,
    torchvision_layer,
)

_STEM = ((r"stem_conv", "features.0.0"), (r"stem_norm", "features.0.1"))


def _v2(match: re.Match, layers: frozenset[str]) -> str:
    """Projection and its norm stand in the block itself, the other parts are nested."""
    block, part = blocks_before(match, layers) + 1, parts(match, layers).index(match[3])
    norm = match[4] == "norm"
    inner = part + norm if match[3] == "project" else f"{part}.{'01'[norm]}"
    return f"features.{block}.conv.{inner}"


def _v3(match: re.Match, layers: frozenset[str]) -> str:
    return f"features.{blocks_before(match, layers) + 1}.{torchvision_layer(match, layers)}"


def _end(match: re.Match, layers: frozenset[str]) -> str:
    return f"features.{count_blocks(layers) + 1}.{'01'[match[1] == 'norm']}"


TORCHVISION_V2 = Naming("torchvision", (
    *_STEM,
    (PART, _v2),
    (r"head_(conv|norm)", _end),
    (r"head", "classifier.1"),
))
TORCHVISION_V3 = Naming("torchvision", (
    *_STEM,
    (PART, _v3),
    (SQUEEZE, _v3),
    (r"head_(conv|norm)", _end),
    (r"head_dense", "classifier.0"),
    (r"head", "classifier.3"),
), LAYOUTS)

_TIMM = (
    (r"stem_conv", "conv_stem"),
    (r"stem_norm", "bn1"),
    (PART, timm_block),
    (SQUEEZE, "blocks.{1-1}.{2-1}.se.conv_{4}"),
    (r"head", "classifier"),
)


def _timm_end(match: re.Match, layers: frozenset[str]) -> str:
    """timm counts the last convolution of V3 as a stage of its own."""
    return f"blocks.{count_stages(layers)}.0.{'conv' if match[1] == 'conv' else 'bn1'}"


TIMM_V2 = Naming("timm", (*_TIMM, (r"head_conv", "conv_head"), (r"head_norm", "bn2")))
TIMM_V3 = Naming("timm", (*_TIMM, (r"head_(conv|norm)", _timm_end), (r"head_dense", "conv_head")),
                 (*LAYOUTS, (r"head_dense", ONE_BY_ONE)),
                 # torchvision's have TensorFlow's 1e-3 and 0.99.
                 arguments=((r".*", {"bn_epsilon": 1e-5, "bn_momentum": 0.9}),))
