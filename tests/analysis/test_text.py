"""What tables and figures write of numbers."""

import pytest

from cnnjax.analysis import text


@pytest.mark.parametrize("count,unit,shown", [
    (0, "B", "0 B"), (999, "B", "999 B"), (1_000, "B", "1 kB"), (1_234_567, "B", "1.23 MB"),
    (999_499, "B", "999 kB"), (999_700, "B", "1 MB"), (999_700_000_000, "B", "1 TB"),
    (5e15, "B", "5e+03 TB"), (12, "", "12"), (31_230_000, "", "31.2 M")])
def test_sizes_have_three_digits_and_the_prefix_that_rounding_gives_them(count, unit, shown):
    assert text.size(count, unit) == shown
