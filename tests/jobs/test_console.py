"""What the tables of a run are written with."""

import pytest

from cnnjax.jobs import console


@pytest.mark.parametrize("count,text", [
    (0, "0 B"), (999, "999 B"), (1_000, "1 kB"), (1_234_567, "1.23 MB"), (999_499, "999 kB"),
    (999_700, "1 MB"), (999_700_000_000, "1 TB"), (5e15, "5e+03 TB")])
def test_sizes_have_three_digits_and_the_prefix_that_rounding_gives_them(count, text):
    assert console.size(count) == text


def test_tables_print_what_looks_like_markup_as_it_is(capsys):
    console.print_table("w[/old]", {"file": "0[copy].png", "class": ":smile:"})
    out = capsys.readouterr().out
    assert "w[/old]" in out and "0[copy].png" in out and ":smile:" in out
