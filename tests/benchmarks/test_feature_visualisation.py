"""The benchmark's table, and its own side of a measurement."""

import numpy as np
import pytest

from benchmarks import feature_visualisation, feature_visualisation_cnnjax


def test_ratios_are_of_the_same_round_and_few_images_are_scaled_to_all():
    results = {"cnnjax": [{"first_s": 5.0, "s": 10.0}], "plain": [{"first_s": 0.0, "s": 30.0}],
               "lucent_single": [{"first_s": 0.0, "s": 2.0}], "lucent": [{"error": "no lucent"}]}
    images = {"all": 64, "cnnjax": 64, "plain": 64, "lucent_single": 2, "lucent": 64}
    ours, plain, single, failed = feature_visualisation.rows(results, 10, images)
    assert "| 15.0 (15.0 to 15.0) | 1000 (1000 to 1000) | 1.00" in ours
    assert "| 30.0 (30.0 to 30.0) | 3000 (3000 to 3000) | 2.00 (2.00 to 2.00) | 3.00" in plain
    assert "| 64.0 (64.0 to 64.0) | 6400 " in single
    assert "not available: no lucent" in failed


@pytest.mark.slow
def test_our_side_takes_the_products_own_function():
    found = feature_visualisation_cnnjax.measure("simple_cnn", "stage1", 2, 16, 2, None)
    assert found["s"] > 0 and found["first_s"] > 0 and np.isfinite(found["rise"])
