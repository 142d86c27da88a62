"""What the tables of a run are written with."""

import pytest

from cnnjax.jobs import console


@pytest.mark.parametrize("count,text", [
    (0, "0 B"), (999, "999 B"), (1_000, "1 kB"), (1_234_567, "1.23 MB"), (999_499, "999 kB"),
    (999_700, "1 MB"), (999_700_000_000, "1 TB"), (5e15, "5e+03 TB")])
def test_sizes_have_three_digits_and_the_prefix_that_rounding_gives_them(count, text):
    assert console.size(count) == text
