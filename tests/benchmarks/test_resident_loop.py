"""The benchmark's table, and its own side of a measurement."""

from benchmarks import resident_loop, resident_loop_cnnjax


def test_a_row_has_the_ratio_of_the_same_round_or_says_what_failed():
    lines = resident_loop.rows("small", {
        "cnnjax": [{"steps_per_second": 40.0}, {"steps_per_second": 60.0}],
        "torch eager": [{"steps_per_second": 10.0}, {"steps_per_second": 20.0}],
        "torch compile": [{"error": "no torch"}]})
    assert lines == ["| small | cnnjax | 50.0 (40.0 to 60.0) | 1.00 (1.00 to 1.00) |",
                     "| small | torch eager | 15.0 (10.0 to 20.0) | 3.50 (3.00 to 4.00) |",
                     "| small | torch compile | not available: no torch | |"]


def test_our_side_is_the_presets_own_step_on_images_that_lie_on_the_device(tmp_path):
    experiment = resident_loop_cnnjax.make_experiment("fashion_mnist", 300, 8, tmp_path)
    assert experiment.total_steps == 8 and len(experiment.phases) == 1
    assert experiment.phases[0].task.average_decay and experiment.input_shape[1:] == (28, 28, 1)
    assert experiment.config.data.placement in ("auto", "device")
