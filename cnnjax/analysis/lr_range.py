"""What a range test of the learning rate says: losses while the rate rises exponentially."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from cnnjax.analysis import fonts, text
from cnnjax.types import UserError

_DECAY = 0.9  # Of the average over steps.
# An average of so many times its least is broken for good.
_BROKEN = 4.0


class RangeTest(NamedTuple):
    """Reading of a range test (Smith, arXiv 1506.01186, section 3.3).

    Attributes:
      smooth: the losses, averaged exponentially, [N].
      lowest: the rate where the smooth loss is least, just before it breaks.
      suggestion: the rate at which it falls fastest per factor of the rate, at most a tenth of
        `lowest`, which is too near the break to train with.
    """

    smooth: np.ndarray
    lowest: float
    suggestion: float


def until_broken(losses: Iterable[float]) -> list[float]:
    """Returns the losses before the one with which their average breaks, or that is not finite.

    The average is that of `read_range_test`: one hard batch is no break.
    """
    kept, least = [], math.inf
    for loss, smooth in _smoothed(losses):
        least = min(least, smooth)
        if not math.isfinite(loss) or smooth > _BROKEN * least:
            break
        kept.append(loss)
    return kept


def _smoothed(losses: Iterable[float]) -> Iterator[tuple[float, float]]:
    """Yields each loss with the average up to it, whose weights sum to 1 from the first on."""
    average = 0.0
    for i, loss in enumerate(losses, 1):
        average = _DECAY * average + (1 - _DECAY) * loss
        yield loss, average / (1 - _DECAY ** i)


def read_range_test(rates: Sequence[float], losses: Sequence[float]) -> RangeTest:
    """Returns what the losses say.

    Args:
      rates: ascending, [N].
      losses: finite, [N], N at least 3.

    Raises:
      UserError: if the loss never fell.
    """
    rates = np.asarray(rates, float)
    smooth = np.array([average for _, average in _smoothed(losses)])
    best = int(smooth.argmin())
    if not best:
        raise UserError(f"The loss was least at the first rate, {rates[0]:.3g}, and never fell: "
                        "there is no rate to suggest. Take more steps, --config.lr_finder.steps, "
                        "or begin lower, --config.lr_finder.lowest.")
    slope = np.gradient(smooth, np.log(rates))[:best + 1]
    # The average of the first steps is that of a few losses, and its slope is noise.
    skip = min(len(slope) // 4, 10)
    steepest = rates[skip + int(slope[skip:].argmin())]
    return RangeTest(smooth, float(rates[best]), float(
        max(min(steepest, rates[best] / 10), rates[0])))


def plot_range_test(rates: Sequence[float], losses: Sequence[float], found: RangeTest, path: str,
                    title: str, suggestion: str) -> None:
    """Writes a PNG of the losses over the rate, with the suggestion and the words for it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, linewidth=0.6, alpha=0.5, label="loss of a step")
    axes.plot(rates, found.smooth, label="smoothed")
    axes.axvline(found.suggestion, color="black", linestyle="--", linewidth=1,
                 label=f"suggestion {suggestion}")
    top = max(found.smooth[0], float(np.median(losses)))
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss (nats)", title=text.label(title),
             ylim=(0.9 * min(losses), 1.5 * top))
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    fonts.save(figure, path, dpi=110)
