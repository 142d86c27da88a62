"""How a network scales, as lines of text: phi beside the published rows, the search, families."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from cnnjax.analysis.scaling import (
    PAPER,
    UNSCALED,
    BaseNetwork,
    Scaled,
    candidates,
    equal_cost,
    scale,
)
from cnnjax.analysis.text import aligned
from cnnjax.models import compound_scaling, list_models, lookup, model_arguments
from cnnjax.models.scaling import Scaling

_PHI = """\
phi: depth, width and px are {alpha:g}^phi, {beta:g}^phi and {gamma:g}^phi, and what rounding leaves
  of the last one. Blocks are rounded up, channels to multiples of 8."""
_PUBLISHED = """\
published: multipliers that the authors rounded by hand, which is why the others differ."""
_SEARCH = """\
error: of the constraint, alpha · beta² · gamma² − 2. predicted: the base's multiply-adds times that
  product; real: counted. The constraint does not choose among these {n}, and neither does the
  cost: the accuracy of the trained networks does."""
_EQUAL = """\
The multipliers with which the multiply-adds that are counted come nearest to the factor."""


def format_phi(base: BaseNetwork, phis: Iterable[float] = range(8)) -> str:
    """Returns a table of the networks of compound scaling, beside the published ones if there are.

    Args:
      base: to be scaled; EfficientNet-B0 and Lite0 have published rows.
      phis: coefficients.
    """
    variants = _published_variants(base)
    head = ("phi", "depth", "width", "px", "parameters", "multiply-adds")
    if variants:
        head += ("published", "depth", "width", "px", "dropout", "parameters", "multiply-adds")
    lines = [head]
    for i, phi in enumerate(phis):
        network = scale(base, compound_scaling(phi, *PAPER), "compound", phi)
        cells = (f"{phi:g}", *_multipliers(network.scaling)[:2], f"{network.pixels}",
                 f"{network.params:,}", f"{network.macs:,}")
        if variants:
            cells += _variant(variants[i]) if i < len(variants) else ("",) * 7
        lines.append(cells)
    legend = _PHI.format(alpha=PAPER.depth, beta=PAPER.width, gamma=PAPER.resolution)
    return (f"{aligned(lines, numbers=(0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12))}\n\n{legend}"
            + (f"\n{_PUBLISHED}" if variants else ""))


def format_candidates(base: BaseNetwork, networks: Sequence[Scaled] | None = None) -> str:
    """Returns a table of the constraint search, the paper's own point marked with a star.

    Args:
      base: to be scaled.
      networks: of `candidates`, by default all of its grid.
    """
    networks = list(candidates(base)) if networks is None else networks
    lines = [("", "alpha", "beta", "gamma", "product", "error", "px", "parameters", "predicted",
              "real", "real / base")]
    for network in networks:
        lines.append(("*" if network.scaling == PAPER else "", *_multipliers(network.scaling),
                      f"{network.scaling.cost:.3f}", f"{network.constraint_error:+.3f}",
                      f"{network.pixels}", f"{network.params:,}", f"{network.predicted:,.0f}",
                      f"{network.macs:,}", _ratio(network, base)))
    return f"{aligned(lines, numbers=range(1, 11))}\n\n{_SEARCH.format(n=len(networks))}"


def format_equal_cost(base: BaseNetwork, factors: Sequence[float] = (2.0, 4.0)) -> str:
    """Returns a table of depth, width, resolution and compound scaling at equal multiply-adds.

    Args:
      base: to be scaled.
      factors: of its cost.
    """
    lines = [("family", "factor", "phi", "depth", "width", "resolution", "px", "parameters",
              "multiply-adds", "real / base")]
    rows = [(1.0, scale(base, UNSCALED, "base"))]
    rows += [(f, network) for f in factors for network in equal_cost(base, f)]
    for factor, network in rows:
        lines.append((network.family, f"{factor:g}",
                      "" if network.phi is None else f"{network.phi:g}",
                      *_multipliers(network.scaling), f"{network.pixels}", f"{network.params:,}",
                      f"{network.macs:,}", _ratio(network, base)))
    return f"{aligned(lines, numbers=range(1, 10))}\n\n{_EQUAL}"


def format_all(base: BaseNetwork) -> Iterator[str]:
    """Yields the three tables, each when it is counted: of large networks that takes a while."""
    yield f"{base.name}, images of {base.pixels}x{base.pixels}x{base.channels}, " \
          f"{base.num_classes} classes\n"
    yield f"Compound scaling\n\n{format_phi(base)}\n"
    yield f"Families at equal cost\n\n{format_equal_cost(base)}\n"
    yield f"The constraint search\n\n{format_candidates(base)}"


def _published_variants(base: BaseNetwork) -> list[str]:
    """Returns efficientnet_b0, b1, … for B0 as published, [] for anything else."""
    found = re.fullmatch(r"(tf_)?efficientnet_(b|lite)0", base.name)
    if not found or base.arguments or base != BaseNetwork.published(base.name):
        return []
    # torchvision tests its B2 at another size than the paper's.
    return list_models(f"tf_efficientnet_{found[2]}[0-9]")


def _variant(name: str) -> tuple[str, ...]:
    arguments, side = model_arguments(name), lookup(name).input_size[0]
    params, macs = BaseNetwork.published(name).count()
    return (name.rpartition("_")[2].capitalize(), f"{arguments['depth']:g}",
            f"{arguments['width']:g}", f"{side}", f"{arguments['dropout_rate']:g}",
            f"{params:,}", f"{macs:,}")


def _multipliers(scaling: Scaling) -> tuple[str, str, str]:
    return tuple(f"{round(value, 3):g}" for value in scaling)


def _ratio(network: Scaled, base: BaseNetwork) -> str:
    return f"{network.macs / base.count()[1]:.3f}"
