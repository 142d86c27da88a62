"""Names of Inception-v3 in torchvision and timm, which agree."""

import dataclasses
import re

from cnnjax.models.inception_v3 import mixed_name
from cnnjax.weights.naming import Naming

_KINDS = {"conv": "conv", "norm": "bn"}
# Of the branches of a block: the first one of its stage, and the others.
_BRANCHES = {
    "1": (("branch1x1", "branch5x5_{}", "branch3x3dbl_{}", "branch_pool"),) * 2,
    "2": (("branch3x3", "branch3x3dbl_{}"),
          ("branch1x1", "branch7x7_{}", "branch7x7dbl_{}", "branch_pool")),
    "3": (("branch3x3_{}", "branch7x7x3_{}"),
          ("branch1x1", "branch3x3_{}", "branch3x3dbl_{}", "branch_pool")),
}
_STEM = ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")


def _stem(match: re.Match, layers: frozenset[str]) -> str:
    return f"Conv2d_{_STEM[int(match[2]) - 1]}.{_KINDS[match[1]]}"


def _branch(match: re.Match, layers: frozenset[str]) -> str:
    stage, block, branch, kind, number = match.groups()
    name = _BRANCHES[stage][block != "1"][int(branch) - 1].format(number)
    return f"{mixed_name(int(stage), int(block))}.{name}.{_KINDS[kind]}"


TORCHVISION = Naming("torchvision", (
    (r"stem_(conv|norm)(\d)", _stem),
    (r"stage(\d)_block(\d)/branch(\d)_(conv|norm)(\d[ab]?)", _branch),
    (r"aux1/conv(\d)", "AuxLogits.conv{1-1}.conv"),
    (r"aux1/norm(\d)", "AuxLogits.conv{1-1}.bn"),
    (r"aux1/head", "AuxLogits.fc"),
    (r"head", "fc"),
))
TIMM = dataclasses.replace(TORCHVISION, source="timm")
