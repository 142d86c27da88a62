"""Names of VGG in torchvision and in timm, whose hidden dense layers are convolutions."""

import re

from cnnjax.weights.naming import ONE_BY_ONE, Layout, Naming, flattened


def _feature(match: re.Match, layers: frozenset[str]) -> str:
    """Convolutions, norms, ReLUs and pools are counted together."""
    stage, kind, place = int(match[1]), match[2], int(match[3])
    convs = [re.match(r"stage(\d+)_conv", layer) for layer in layers]
    earlier = place - 1 + sum(int(conv[1]) < stage for conv in convs if conv)
    step = 3 if "stage1_norm1" in layers else 2
    return f"features.{step * earlier + stage - 1 + (kind == 'norm')}"


_FEATURES = (r"stage(\d+)_(conv|norm)(\d+)", _feature)
_SEVEN_BY_SEVEN = Layout(
    lambda a: a.reshape(7, 7, -1, a.shape[-1]).transpose(3, 2, 0, 1),
    lambda a: a.transpose(2, 3, 1, 0))

TORCHVISION = Naming("torchvision", (
    _FEATURES,
    (r"fc1", "classifier.0"),
    (r"fc2", "classifier.3"),
    (r"head", "classifier.6"),
), layouts=((r"fc1", flattened(7, 7)),))
TIMM = Naming("timm", (
    _FEATURES,
    (r"fc(\d)", "pre_logits.fc{1}"),
    (r"head", "head.fc"),
), layouts=((r"fc1", _SEVEN_BY_SEVEN), (r"fc2", ONE_BY_ONE)))
