"""What scaled networks really cost: the constraint search, and families at equal multiply-adds.

The arithmetic of compound scaling (arXiv 1905.11946, equation 3) predicts that multiply-adds grow
with depth · width² · resolution². Rounding, strides and the layers that stay as they are (the
squeeze-excitations, the first convolution, the head) make the real ones differ, more so the smaller
the network: here they are counted.

    base = BaseNetwork.published("efficientnet_b0")
    candidates(base)          every (alpha, beta, gamma) of the grid, predicted and real
    equal_cost(base, 4.0)     depth, width, resolution and compound scaling to 4 times the cost
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn

from cnnjax.analysis.summary import summarize
from cnnjax.models import create_model, list_models, lookup, model_arguments
from cnnjax.models.scaling import Scaling, compound_scaling, constraint_candidates
from cnnjax.types import UserError

PAPER = Scaling(1.2, 1.1, 1.15)  # alpha, beta and gamma of EfficientNet.
UNSCALED = Scaling(1.0, 1.0, 1.0)
FAMILIES = ("depth", "width", "resolution", "compound")


@dataclasses.dataclass(frozen=True)
class BaseNetwork:
    """A network that can be scaled: a model with `depth` and `width`, for images of some size.

    Attributes:
      name: of the table of models.
      pixels: side of the images.
      channels: of the images.
      num_classes: outputs.
      arguments: of `create_model`; its depth and width are what others are multiples of.
    """

    name: str
    pixels: int
    channels: int = 3
    num_classes: int = 1000
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    _counted: dict = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self):
        if not {"depth", "width"} <= set(model_arguments(self.name)):
            able = [name for name in list_models()
                    if {"depth", "width"} <= set(model_arguments(name))]
            raise UserError(f"{self.name} cannot be scaled: it has no arguments depth and width. "
                            f"These have: {', '.join(able)}.")

    @classmethod
    def published(cls, name: str) -> BaseNetwork:
        """Returns a model of the table with the images and the classes it was published for."""
        height, width, channels = lookup(name).input_size
        return cls(name, height, channels, 1000 if max(height, width) > 32 else 10)

    def overrides(self, scaling: Scaling) -> dict[str, Any]:
        """Returns the keys of a config that scale this network: model.depth, and so on."""
        own = {**model_arguments(self.name), **self.arguments}
        return {"model.depth": own["depth"] * scaling.depth,
                "model.width": own["width"] * scaling.width,
                "data.image_size": scaling.pixels(self.pixels)}

    def module(self, scaling: Scaling = UNSCALED) -> nn.Module:
        """Returns the scaled network."""
        keys = self.overrides(scaling)
        return create_model(self.name, self.num_classes, **{
            **self.arguments, "depth": keys["model.depth"], "width": keys["model.width"]})

    def sizes(self, scaling: Scaling) -> tuple:
        """Returns what is left of a scaling after rounding: equal sizes are the same network."""
        return self.module(scaling).sizes, scaling.pixels(self.pixels)

    def count(self, scaling: Scaling = UNSCALED) -> tuple[int, int]:
        """Returns (parameters, multiply-adds for one image) of the scaled network."""
        key = self.sizes(scaling)
        if key not in self._counted:
            side = scaling.pixels(self.pixels)
            summary = summarize(self.module(scaling), (1, side, side, self.channels), fields=False)
            self._counted[key] = summary.params, summary.macs
        return self._counted[key]


@dataclasses.dataclass(frozen=True)
class Scaled:
    """A network of one family.

    Attributes:
      family: one of `FAMILIES`, "base", or "candidate" of the constraint search.
      scaling: the multipliers of the base network.
      phi: of compound scaling, else None.
      pixels: side of the images.
      params: number of trainable scalars.
      macs: multiply-adds for one image, counted.
      predicted: multiply-adds without rounding: the base's · depth · width² · resolution².
    """

    family: str
    scaling: Scaling
    phi: float | None
    pixels: int
    params: int
    macs: int
    predicted: float

    @property
    def constraint_error(self) -> float:
        """alpha · beta² · gamma² − 2, for a candidate of the search."""
        return self.scaling.cost - 2


def scale(base: BaseNetwork, scaling: Scaling, family: str = "candidate", phi: float | None = None
          ) -> Scaled:
    """Returns a scaled network with what it costs."""
    params, macs = base.count(scaling)
    return Scaled(family, scaling, phi, scaling.pixels(base.pixels), params, macs,
                  base.count()[1] * scaling.cost)


def candidates(base: BaseNetwork, step: float = 0.05, tolerance: float = 0.1) -> Iterator[Scaled]:
    """Yields every (alpha, beta, gamma) that fulfils the constraint, as a network of phi = 1.

    Section 3.3 of arXiv 1905.11946, step 1. The constraint does not choose among them, and neither
    do the real multiply-adds: the accuracy of the trained networks does.

    Args:
      base: to be scaled.
      step, tolerance: of `constraint_candidates`.
    """
    for scaling in constraint_candidates(step, tolerance):
        yield scale(base, scaling, phi=1.0)


def equal_cost(base: BaseNetwork, factor: float, families: Sequence[str] = FAMILIES,
               bases: Scaling = PAPER) -> list[Scaled]:
    """Returns a network of each family, all of them `factor` times as costly as the base.

    As Table 7 and Figure 8 of arXiv 1905.11946 compare them, but with multiply-adds that are
    counted: of the networks that rounding leaves, each family's nearest to the target.

    Args:
      base: to be scaled.
      factor: of the base's real multiply-adds, above 1.
      families: of `FAMILIES`.
      bases: (alpha, beta, gamma) of compound scaling.

    Raises:
      UserError: if a family or a factor cannot be.
    """
    if not (math.isfinite(factor) and factor > 1):
        raise UserError(f"equal_cost: factor={factor!r} must be a finite number above 1.")
    found = []
    for family in families:
        multipliers = _family(family, bases)
        coefficient = _solve(base, multipliers, factor)
        found.append(scale(base, multipliers(coefficient), family,
                           coefficient if family == "compound" else None))
    return found


def _family(family: str, bases: Scaling) -> Callable[[float], Scaling]:
    """Returns coefficient -> multipliers: a multiplier of one dimension, or phi."""
    if family == "compound":
        return functools.partial(compound_scaling, alpha=bases.depth, beta=bases.width,
                                 gamma=bases.resolution)
    if family not in FAMILIES:
        raise UserError(f"There is no family {family!r} of scaled networks; there are: "
                        f"{', '.join(FAMILIES)}.")
    return lambda coefficient: UNSCALED._replace(**{family: coefficient})


def _solve(base: BaseNetwork, multipliers: Callable[[float], Scaling], factor: float) -> float:
    """Returns the coefficient whose network is the nearest to `factor` times the base's cost.

    The cost is a staircase that never falls. Bisection ends on the two sides of the step that
    crosses the target; the nearer one counts, and of its coefficients one of few digits.
    """
    target = factor * base.count()[1]

    def cost(coefficient):
        return base.count(multipliers(coefficient))[1]

    low, high = 0.0 if multipliers(0.0).cost == 1 else 1.0, 2.0
    while cost(high) < target:
        low, high = high, 2 * high
        if high > 1000:
            raise UserError(f"{base.name} reaches {factor:g} times its cost with no multiplier: "
                            "is it one that does not change the network?")
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if cost(middle) > target else (middle, high)
    below, above = cost(low), cost(high)
    nearest = low if target / below < above / target else high
    sizes = base.sizes(multipliers(nearest))
    for digits in (1, 2, 3, 4):
        for rounding in (round, math.floor, math.ceil):
            short = rounding(nearest * 10**digits) / 10**digits
            if base.sizes(multipliers(short)) == sizes:
                return short
    return nearest
