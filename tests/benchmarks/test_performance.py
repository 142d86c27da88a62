"""The benchmarks of cost: what they compare is what they say, on small sizes."""


import numpy as np
import pytest

from benchmarks import ablation, accuracy_of_ops, cost_growth, roofline
from cnnjax import files, sweeps
from cnnjax.command_flags import parse
from cnnjax.sweeps import Trial
from cnnjax.validation import validate


def test_a_roofline_counts_operations_and_bytes(monkeypatch):
    monkeypatch.setattr(roofline, "timed", lambda call, rounds, seconds: [2.0, 1.0, 4.0])
    found = roofline.measure((64,), (1,), rounds=3, seconds=0.1)
    assert found["product, float32, 64"] == {"best": 2 * 64**3, "median": 64**3, "unit": "FLOP"}
    assert found["copy, 1 MB"]["best"] == found["scale, 1 MB"]["best"] == 2 * 2**20
    assert found["sum, 1 MB"]["best"] == 2**20


def test_a_roofline_times_what_it_names():
    a = roofline.product(32, "bfloat16")()
    assert a.shape == (32, 32) and np.isfinite(np.asarray(a, np.float32)).all()
    scale, _ = roofline.traffic("scale", 1)
    first = np.asarray(scale())
    np.testing.assert_allclose(np.asarray(scale()), first * 0.999, rtol=1e-6)
    total, _ = roofline.traffic("sum", 1)
    assert float(total()) == 2**18
    assert all(s > 0 for s in roofline.timed(total, 2, 0.001))


@pytest.mark.slow
def test_an_ablation_has_a_row_for_each_formulation_that_changes_the_program():
    found = ablation.programs("lenet5_full:28:2", "float32")
    assert {"-", "`rows`", "all of them"} <= found.keys()
    assert not {"`winograd`", "`depthwise`", "`patches`"} & found.keys()
    for program in found.values():
        program.run(1)
    measured = {title: program.ms for title, program in found.items()}
    lines = ablation.rows("lenet5_full:28:2", measured, dict.fromkeys(measured, 1.0))
    assert len(lines) == len(found) and "| 1.00 (1.00 to 1.00) |" in lines[0]


def test_a_ratio_of_an_ablation_is_of_the_same_round():
    _, line = ablation.rows("n:1:1", {"-": [1.0, 10.0], "`taps`": [2.0, 40.0]},
                            {"-": 1.0, "`taps`": 1.0})
    assert "| 3.00 (2.00 to 4.00) |" in line


@pytest.mark.parametrize("axis", cost_growth.AXES)
def test_every_point_of_the_growth_of_cost_is_a_command(axis, root, monkeypatch):
    monkeypatch.chdir(root)
    _, values, few = cost_growth.AXES[axis]
    assert set(few) <= set(values)
    configs = []
    for value in values:
        words, flags = cost_growth.command(axis, value)
        configs.append(str((parsed := parse(["launch.py", *words])).config) + str(flags))
        validate(parsed.config)
    assert len(set(configs)) == len(values)
    common, _ = cost_growth.command("batch", 64)
    assert cost_growth.command(axis, cost_growth.COMMON[axis])[0] == common
    config = parse(["launch.py", *common]).config
    assert (config.train.batch_size, config.data.image_size) == (64, 32)


def test_the_growth_of_cost_has_a_line_and_a_mark_for_every_point(tmp_path):
    def point(rate, macs):
        return {"batch_size": 8, "image_size": [32, 32], "multiply_adds_per_image": macs,
                "achieved_flops_per_second": 6 * macs * rate, "compilation": {
                    "compile_seconds": 1.0}, "xla_per_device": {"temp_bytes": 2e6},
                "times": {"step": {"ms": 8e3 / rate, "ms_least": 7e3 / rate,
                                   "ms_most": 9e3 / rate, "images_per_second": rate}}}

    points = {"batch": {8: point(100.0, 10), 16: point(120.0, 10)},
              "phi": {0: point(100.0, 10), 1: point(60.0, 20)}}
    assert "| phi 1 | 8 x 32 px | 60 | 133.3 (116.7 to 150.0) |" in cost_growth.row(
        "phi", 1, points["phi"][1])
    cost_growth.draw(points, tmp_path / "growth.png", "title")
    assert (tmp_path / "growth.png").stat().st_size > 10_000


@pytest.mark.parametrize("rounded", [1 - 1e-15, 1 + 1e-15])
def test_the_growth_of_cost_is_drawn_of_a_single_round(rounded, tmp_path):
    """Whose rate and least and most time are the same, but for rounding."""
    step = {"ms_least": 4.0, "ms_most": 4.0}
    points = {n: {"batch_size": n, "multiply_adds_per_image": 10, "times": {"step": step | {
        "images_per_second": n / 4e-3 * rounded}}} for n in (8, 16)}
    cost_growth.draw({"batch": points}, tmp_path / "growth.png", "title")
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_the_difference_of_ops_is_that_of_pairs_of_a_seed(tmp_path):
    trials = [Trial(f"net_{ops}", {"ops": ops}, {"net": "net", "formulations": ops})
              for ops in ("auto", "xla", "products")]
    sweeps.write(tmp_path, trials, range(4))
    top1 = {"auto": (0.90, 0.92, 0.97, 0.5), "xla": (0.91, 0.91, 0.95), "products": (0.93,)}
    for trial in trials:
        for seed, value in enumerate(top1[trial.tags["formulations"]]):  # Not all are done.
            folder = sweeps.folder_of(tmp_path, trial.name, seed)
            folder.mkdir(parents=True)
            files.write_json(folder / "summary.json", {"status": "done", "top1": value})
    pairs = accuracy_of_ops.pairs(sweeps.read(tmp_path)[1])
    assert pairs == {("net", "auto"): [(0.90, 0.91), (0.92, 0.91), (0.97, 0.95)],
                     ("net", "products"): [(0.93, 0.91)]}
    # Differences -1, 1 and 2 %: mean 0.667, standard deviation 1.528, t 4.303 of 2 degrees.
    assert accuracy_of_ops.row("net", "auto", pairs["net", "auto"]) == (
        "| net | auto | 93.00 ± 3.61 | 92.33 ± 2.31 | +0.67 (-3.13 to +4.46) | 3 |")
