"""Names of the ConvNeXts in torchvision and timm."""

import re

from cnnjax.weights.naming import PER_CHANNEL, Naming

_IN_BLOCK = {"conv": ".block.0", "norm": ".block.2", "fc1": ".block.3", "fc2": ".block.5", None: ""}


def _block(match: re.Match, layers: frozenset[str]) -> str:
    """Stages are at 1, 3, 5 and 7 of the features."""
    stage, block, layer = match.groups()
    return f"features.{2 * int(stage) - 1}.{int(block) - 1}{_IN_BLOCK[layer]}"


def _downsample(match: re.Match, layers: frozenset[str]) -> str:
    """What halves the map, norm before convolution, is at 2, 4 and 6."""
    return f"features.{2 * int(match[1]) - 2}.{('norm', 'conv').index(match[2])}"


TORCHVISION = Naming("torchvision", (
    (r"stem_conv", "features.0.0"),
    (r"stem_norm", "features.0.1"),
    (r"stage(\d+)_block(\d+)(?:/(conv|norm|fc1|fc2))?", _block),
    (r"stage(\d+)_downsample_(conv|norm)", _downsample),
    (r"head_norm", "classifier.0"),
    (r"head", "classifier.2"),
), layouts=((r"stage\d+_block\d+", PER_CHANNEL),))
TIMM = Naming("timm", (
    (r"stem_conv", "stem.0"),
    (r"stem_norm", "stem.1"),
    (r"stage(\d+)_block(\d+)/conv", "stages.{1-1}.blocks.{2-1}.conv_dw"),
    (r"stage(\d+)_block(\d+)/norm", "stages.{1-1}.blocks.{2-1}.norm"),
    (r"stage(\d+)_block(\d+)/(fc\d)", "stages.{1-1}.blocks.{2-1}.mlp.{3}"),
    (r"stage(\d+)_block(\d+)", "stages.{1-1}.blocks.{2-1}"),
    (r"stage(\d+)_downsample_norm", "stages.{1-1}.downsample.0"),
    (r"stage(\d+)_downsample_conv", "stages.{1-1}.downsample.1"),
    (r"head_norm", "head.norm"),
    (r"head", "head.fc"),
), leaves=(("layer_scale", "gamma"),))
