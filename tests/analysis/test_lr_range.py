"""The reading of a range test, on losses of which the answer is known."""

import numpy as np
import pytest

from cnnjax.analysis.lr_range import read_range_test, until_broken
from cnnjax.types import UserError


def test_the_suggestion_is_where_the_loss_falls_fastest():
    rates = np.geomspace(1e-5, 10, 600)
    # A descent centred at 1e-2, and a break at 3.
    losses = 2 - np.tanh(np.log10(rates / 1e-2) * 2) + (rates > 3) * 10 * (rates - 3)
    found = read_range_test(rates, losses)
    # The average lags by about ten of its 600 steps.
    assert found.suggestion == pytest.approx(1e-2, rel=0.5)
    assert found.lowest == pytest.approx(3, rel=0.3)


def test_the_suggestion_keeps_away_from_the_break():
    rates = np.geomspace(1e-4, 1, 200)
    losses = np.where(rates < 0.1, 3 - np.log10(rates / 1e-4) ** 3 / 20, 50.0)
    found = read_range_test(rates, losses)
    assert found.suggestion <= found.lowest / 10 < 0.011


def test_a_loss_that_never_fell_suggests_nothing():
    with pytest.raises(UserError, match="never fell"):
        read_range_test(np.geomspace(1e-4, 1, 20), np.linspace(2, 3, 20))


@pytest.mark.parametrize("end", [[100.0], [np.nan], [np.inf]])
def test_the_test_ends_where_the_average_breaks_and_not_at_one_hard_batch(end):
    losses = [1.0] * 50 + [10.0] + [1.0] * 50  # Of which the average is at most 0.9 + 0.1 * 10.
    assert until_broken(iter(losses + end + [1.0] * 50)) == losses


def test_no_rate_below_those_of_the_test_is_suggested():
    found = read_range_test([1e-3, 2e-3, 3e-3, 4e-3], [3.0, 2.5, 2.0, 5.0])
    assert found.suggestion == 1e-3
