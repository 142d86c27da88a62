"""Compound scaling: depth, width and resolution of a network from one coefficient."""

from __future__ import annotations

import math
import numbers
from typing import NamedTuple

from cnnjax.types import UserError


class Scaling(NamedTuple):
    """What the sizes of a base network are multiplied by.

    Attributes:
      depth: layers of each stage.
      width: channels.
      resolution: height and width of the images.
    """

    depth: float
    width: float
    resolution: float


def compound_scaling(phi: float, alpha: float = 1.2, beta: float = 1.1,
                     gamma: float = 1.15) -> Scaling:
    """Returns the multipliers (alpha^phi, beta^phi, gamma^phi) of depth, width and resolution.

    Equation 3 of arXiv 1905.11946. Multiply-adds grow with depth · width² · resolution², that is
    with (alpha · beta² · gamma²)^phi, and the defaults, which that paper found by a grid search on
    EfficientNet-B0, make the base about 2: each unit of phi doubles the cost.

        depth, width, resolution = compound_scaling(1.5)
        model = create_model("efficientnet_b0", depth=depth, width=width)
        pixels = round(224 * resolution)

    The published B1 to B7 are near such multiples, not on them: their multipliers were rounded by
    hand (B1 is 1.1, 1.0 and 240 / 224), and are rows of the table of models.

    Args:
      phi: any finite number; 0 is the base network, and a negative one shrinks it.
      alpha, beta, gamma: bases, each 1 or more.

    Raises:
      UserError: if phi is not finite, a base is below 1, or a power is too large for a float.
    """
    if not _finite(phi):
        raise UserError(f"compound_scaling: phi must be a finite number, got {phi!r}; 0 is "
                        "EfficientNet-B0 and 7 about its B7.")
    for name, base in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        if not _finite(base) or base < 1:
            raise UserError(f"compound_scaling: {name} must be a finite number from 1, got "
                            f"{base!r}: a larger phi may not shrink the network.")
    try:
        scaling = Scaling(*(float(base) ** float(phi) for base in (alpha, beta, gamma)))
    except OverflowError:
        raise UserError(f"compound_scaling: phi={phi!r} scales beyond what a float can hold; "
                        "7 is about EfficientNet-B7.") from None
    return scaling


def _finite(value: object) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value)
