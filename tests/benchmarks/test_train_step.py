"""The benchmark's table, and its own side of a measurement."""

import sys

import jax
import numpy as np
import pytest

from benchmarks import ablation, train_step, train_step_cnnjax


def test_ratios_are_of_the_same_round_and_a_failure_has_a_row_that_says_so():
    measured = {"first_s": 2.0, "peak_mb": 512.0}
    results = {"cnnjax": [{"ms": 10.0, **measured}, {"ms": 40.0, **measured}],
               "torch": [{"ms": 20.0, **measured}, {"ms": 60.0, **measured}],
               "torch bf16": [{"error": "ImportError: no torch"}]}
    ours, torch, failed = train_step.rows("lenet5:28:100", list(results), results)
    assert ours == ("| lenet5 28 px b100 | cnnjax | 25.0 (10.0 to 40.0) | 6250 | "
                    "1.00 (1.00 to 1.00) | 2.0, then 2.0 | 0.50, then 0.50 |")
    assert "| 40.0 (20.0 to 60.0) |" in torch and "| 1.75 (1.50 to 2.00) |" in torch
    assert "not available: ImportError: no torch" in failed


def test_a_side_that_does_not_start_is_an_error_in_its_result(tmp_path):
    assert "error" in train_step.measure([str(tmp_path / "python")], "stock", timeout=10)
    failed = train_step.measure(["python3", "-c", "raise ValueError('why')"], "hugetlb", timeout=60)
    assert failed == {"error": "ValueError: why"}


def test_our_side_takes_the_products_own_step():
    call, state, batches = train_step_cnnjax.make_step("lenet5_full", 28, 2, 10, "float32")
    before = jax.tree.map(np.asarray, state.params)
    state, losses = call(state, {}, batches)
    assert int(state.step) == 1 and np.isfinite(losses).all()
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(before),
                                              jax.tree.leaves(state.params), strict=True))


@pytest.mark.parametrize("program", [train_step, ablation])
@pytest.mark.parametrize("case", ["resnet18", "resnet18:32", "resnet18:0:8", "resnet18:32:many"])
def test_a_case_that_is_none_is_said_before_anything_is_timed(program, case, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark", "--cases", case])
    with pytest.raises(SystemExit) as end:
        program.main()
    assert end.value.code == 2
    assert f"{case!r} is not model:pixels:batch, such as" in capsys.readouterr().err


def test_a_side_of_pytorch_needs_one(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark", "--sides", "cnnjax", "torch bf16"])
    with pytest.raises(SystemExit) as end:
        train_step.main()
    assert end.value.code == 2
    assert "'torch bf16' needs --torch_python" in capsys.readouterr().err
