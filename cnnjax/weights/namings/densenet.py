"""Names of the DenseNets in torchvision and timm, which agree."""

import dataclasses

from cnnjax.weights.naming import Naming

TORCHVISION = Naming("torchvision", (
    (r"stem_(conv|norm)", "features.{1}0"),
    (r"stage(\d+)_block(\d+)/(conv|norm)(\d)", "features.denseblock{1}.denselayer{2}.{3}{4}"),
    (r"transition(\d+)_(conv|norm)", "features.transition{1}.{2}"),
    (r"final_norm", "features.norm5"),
    (r"head", "classifier"),
))
TIMM = dataclasses.replace(TORCHVISION, source="timm")
# The files that torchvision publishes are older than its names: "denselayer1.norm.1". It renames
# them while loading.
PUBLISHED = dataclasses.replace(TORCHVISION, source="torchvision's published files", rules=tuple(
    (pattern, name.replace("{3}{4}", "{3}.{4}")) for pattern, name in TORCHVISION.rules))
