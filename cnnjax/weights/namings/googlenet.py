"""Names of GoogLeNet in torchvision. The paper's form has the same ones, with biases for norms."""

import re

from cnnjax.models.googlenet import inception_name
from cnnjax.weights.naming import Naming, flattened

_KINDS = {"conv": "conv", "norm": "bn"}


def _branch(match: re.Match, layers: frozenset[str]) -> str:
    """The first branch is a unit; the others are rows of them, the last with a pool before."""
    stage, block, branch, kind, number = match.groups()
    place = {"1": "", "4": ".1"}.get(branch, f".{int(number) - 1}")
    return f"{inception_name(int(stage), int(block))}.branch{branch}{place}.{_KINDS[kind]}"


TORCHVISION = Naming("torchvision", (
    (r"stem_conv(\d)", "conv{1}.conv"),
    (r"stem_norm(\d)", "conv{1}.bn"),
    (r"stage(\d)_block(\d)/branch(\d)_(conv|norm)(\d)", _branch),
    (r"(aux\d)/conv1", "{1}.conv.conv"),
    (r"(aux\d)/norm1", "{1}.conv.bn"),
    (r"(aux\d)/fc1", "{1}.fc1"),
    (r"(aux\d)/head", "{1}.fc2"),
    (r"head", "fc"),
), layouts=((r"aux\d/fc1", flattened(4, 4)),))
