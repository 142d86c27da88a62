"""The tutorial: its outputs are there and tell nobody's folders, and it runs as it stands."""

import ast
import runpy

import pytest

nbformat = pytest.importorskip("nbformat")


@pytest.fixture(scope="module")
def notebook(root):
    return nbformat.read(root / "docs" / "tutorial.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def constants(notebook):
    """The names that cells assign literals to."""
    found = {}
    for cell in code_cells(notebook):
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                try:
                    found[node.targets[0].id] = ast.literal_eval(node.value)
                except ValueError:
                    continue
    return found


def text_of(notebook):
    return "\n".join(output.get("text", "") for output in outputs(notebook))


def test_the_notebook_is_valid_and_every_cell_compiles(notebook):
    nbformat.validate(notebook)
    for number, cell in enumerate(code_cells(notebook)):
        compile(cell.source, f"cell {number}", "exec")


def test_every_code_cell_has_run_without_an_error_or_a_warning(notebook):
    kinds = {output.output_type for output in outputs(notebook)}
    assert kinds <= {"stream", "display_data"}, kinds
    assert all(output.name == "stdout" for output in outputs(notebook)
               if output.output_type == "stream")
    assert [cell.execution_count for cell in code_cells(notebook)] == list(
        range(1, len(code_cells(notebook)) + 1))


def test_no_folder_of_the_machine_that_ran_it_is_in_the_notebook(notebook):
    everything = text_of(notebook) + "".join(cell.source for cell in notebook.cells)
    for word in ("/home/", "/root/", "/tmp/", "/work/", "/usr/", "site-packages"):
        assert word not in everything


def test_the_notebook_is_small_enough_for_a_repository(root):
    assert (root / "docs" / "tutorial.ipynb").stat().st_size < 600_000


def test_the_twins_are_those_of_the_sweep_of_the_history(notebook, root):
    nets = runpy.run_path(str(root / "experiments" / "sweeps" / "history.py"))["NETS"]
    twins = constants(notebook)["TWINS"]
    for name, arguments in twins.items():
        of_the_sweep = {key.removeprefix("model."): value for key, value in nets[name][1].items()
                        if key.startswith("model.")}
        assert arguments == of_the_sweep, name


@pytest.mark.parametrize("words", [
    "alexnet    sees 195 pixels, published 195", "vgg16      sees 212 pixels, published 212",
    "resnet50   sees 427 pixels, published 427", "150,528,000",
    "see 5x5: 18 C^2 weights, one 5x5: 25 C^2"])
def test_the_worked_numbers_are_printed(notebook, words):
    assert words in text_of(notebook)


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom_in_an_empty_folder(notebook, root, tmp_path,
                                                                 monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    fresh = nbformat.from_dict({**notebook, "cells": [dict(cell) for cell in notebook.cells]})
    for cell in code_cells(fresh):
        cell.outputs = []
    epochs = constants(notebook)["EPOCHS"]
    first = code_cells(fresh)[0]
    lowered = first.source.replace(f"EPOCHS = {epochs} ", "EPOCHS = 1 ")
    assert lowered != first.source
    first.source = lowered
    nbclient.NotebookClient(fresh, timeout=1800, kernel_name="python3",
                            resources={"metadata": {"path": str(tmp_path)}}).execute()
    kinds = {output.output_type for output in outputs(fresh)}
    assert kinds <= {"stream", "display_data"}
    for words in ("lenet5: 60,806 parameters", "twin of efficientnet_b0", "no pooling, flattened"):
        assert words in text_of(fresh)
    pictures = sum("image/png" in output.get("data", {}) for output in outputs(fresh))
    assert pictures == sum("image/png" in output.get("data", {}) for output in outputs(notebook))
