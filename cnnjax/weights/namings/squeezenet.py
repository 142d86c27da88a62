"""Names of SqueezeNet in torchvision."""

import re

from cnnjax.weights.naming import Naming


def _fire(match: re.Match, layers: frozenset[str]) -> str:
    """Fire modules and the pools before them are counted together, from features.3 on."""
    stage, block, name = int(match[1]), int(match[2]), match[3]
    earlier = [layer for layer in layers if layer.endswith("/squeeze")
               and int(re.match(r"stage(\d+)", layer)[1]) < stage]
    return f"features.{3 + len(earlier) + stage - 1 + block - 1}.{name}"


TORCHVISION = Naming("torchvision", (
    (r"stem_conv", "features.0"),
    (r"stage(\d+)_block(\d+)/(.*)", _fire),
    (r"head", "classifier.1"),
))
