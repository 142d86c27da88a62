"""What the names of MobileNets' and EfficientNets' blocks in other code bases depend on.

There, the parts of a block are numbered, and those that a block lacks are not counted.
"""

from __future__ import annotations

import re

from cnnjax.weights.naming import ONE_BY_ONE

# Stage and block; a part of the block; convolution or norm.
BLOCK = r"stage(\d+)_block(\d+)"
PART = rf"{BLOCK}/(?:(expand|depthwise|project)_)?(conv|norm)"
SQUEEZE = rf"{BLOCK}/(squeeze)/(reduce|expand)"
LAYOUTS = ((SQUEEZE, ONE_BY_ONE),)

_ORDER = ("expand_conv", "depthwise_conv", "squeeze/reduce", "project_conv", "conv")


def parts(match: re.Match, layers: frozenset[str]) -> list[str | None]:
    """Returns the parts that the matched block has, in order: "expand", "depthwise", "squeeze",
    "project"; or None, the only one of a fused block without expansion."""
    block = f"stage{match[1]}_block{match[2]}"
    there = [part for part in _ORDER if f"{block}/{part}" in layers]
    return [None if part == "conv" else re.split("[_/]", part)[0] for part in there]


def torchvision_layer(match: re.Match, layers: frozenset[str]) -> str:
    """Returns torchvision's name of a layer within a block: "block.1.0", "block.2.fc1"."""
    leaf = {"conv": "0", "norm": "1", "reduce": "fc1", "expand": "fc2"}[match[4]]
    return f"block.{parts(match, layers).index(match[3])}.{leaf}"


def blocks_before(match: re.Match, layers: frozenset[str]) -> int:
    """Returns how many blocks of the network come before the matched one."""
    found = {(int(m[1]), int(m[2])) for layer in layers if (m := re.match(BLOCK, layer))}
    return sorted(found).index((int(match[1]), int(match[2])))


def count_blocks(layers: frozenset[str]) -> int:
    """Returns how many blocks the network has."""
    return len({layer.partition("/")[0] for layer in layers if re.match(BLOCK, layer)})


def count_stages(layers: frozenset[str]) -> int:
    """Returns how many stages the network has."""
    return max(int(m[1]) for layer in layers if (m := re.match(BLOCK, layer)))


def timm_part(match: re.Match, layers: frozenset[str]) -> str:
    """Returns timm's name of a convolution or norm within a block: "conv_pw", "bn3"."""
    there = [part for part in parts(match, layers) if part != "squeeze"]
    if match[4] == "norm":
        return f"bn{there.index(match[3]) + 1}"
    if match[3] is None:
        return "conv"
    return {"expand": "conv_pw" if "depthwise" in there else "conv_exp", "depthwise": "conv_dw",
            "project": "conv_pwl" if "expand" in there else "conv_pw"}[match[3]]


def timm_block(match: re.Match, layers: frozenset[str]) -> str:
    """Returns timm's name of a convolution or norm of a block, "blocks.2.0.conv_pw"."""
    return f"blocks.{int(match[1]) - 1}.{int(match[2]) - 1}.{timm_part(match, layers)}"
