"""Compound scaling: depth, width and resolution of a network from one coefficient.

What the networks that result really cost is counted in `cnnjax.analysis.scaling`.
"""

from __future__ import annotations

import itertools
import math
import numbers
from typing import NamedTuple

import flax.linen as nn

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

    @property
    def cost(self) -> float:
        """What multiply-adds grow by before anything is rounded: depth · width² · resolution²."""
        return self.depth * self.width**2 * self.resolution**2

    def pixels(self, base: int) -> int:
        """Returns the side of the images of a network whose base takes `base` pixels."""
        return max(1, round(self.resolution * base))


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


def constraint_candidates(step: float = 0.05, tolerance: float = 0.1, cost: float = 2.0
                          ) -> list[Scaling]:
    """Returns the points (alpha, beta, gamma) of a grid that fulfil the constraint of equation 3.

    |alpha · beta² · gamma² - cost| <= tolerance, with alpha, beta and gamma from 1 in equal steps.
    The paper searches such a grid on B0 with phi fixed at 1, and takes the point whose network is
    the most accurate, (1.2, 1.1, 1.15): the constraint leaves many, and accuracy alone chooses.

    Args:
      step: of the grid, above 0.
      tolerance: 0 or more.
      cost: what the cost is to be multiplied by, 1 or more.

    Returns:
      The points as the multipliers of phi = 1, in the order of the grid, alpha first.

    Raises:
      UserError: if an argument cannot be, or the grid has more than a million points.
    """
    if not (_finite(step) and step > 0 and _finite(tolerance) and tolerance >= 0 and _finite(cost)
            and cost >= 1):
        raise UserError(f"constraint_candidates: step={step!r} must be above 0, tolerance="
                        f"{tolerance!r} 0 or more and cost={cost!r} 1 or more.")
    # A hair more than asked for, so that 1.2 · 1.1² · 1.15² is what it is on paper.
    most = cost + tolerance + 1e-9
    sides = [int((most**power - 1) / step) + 1 for power in (1, 0.5, 0.5)]
    if math.prod(sides) > 1e6:
        raise UserError(f"constraint_candidates: a grid of step={step!r} up to a cost of {most:g} "
                        f"has {math.prod(sides):,} points; take a larger step, such as 0.05.")
    grid = (Scaling(*(round(1 + i * step, 10) for i in point))
            for point in itertools.product(*map(range, sides)))
    return [point for point in grid if abs(point.cost - cost) <= most - cost]


def round_channels(channels: float, divisor: int = 8) -> int:
    """Returns the multiple of `divisor` nearest to `channels`, but not below 90 % of it.

    The rule of the MobileNets' and EfficientNets' reference code; at least one `divisor`.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


def round_repeats(repeats: float) -> int:
    """Returns the number of blocks of a stage: rounded up, as in EfficientNet's reference code.

    A product such as 10 · 1.1, which floats make a hair more than 11, is 11.
    """
    return max(1, math.ceil(repeats - 1e-9))


def check_multipliers(net: nn.Module, *names: str) -> None:
    """Raises a UserError if one of a network's multipliers is not a finite number above 0."""
    for name in names:
        value = getattr(net, name)
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"{type(net).__name__}: {name} multiplies that of the published "
                            f"network and must be a finite number above 0, got {value}.")


def _finite(value: object) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value)
