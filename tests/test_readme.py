"""The commands and code of the README, the guides and the experiments, as they stand."""

import re
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from cnnjax.command_line import main, parse
from cnnjax.jobs import JOBS
from cnnjax.models import create_model
from cnnjax.models.table import TABLE
from cnnjax.validation import validate

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BASH = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
DOCS = [file.read_text() for file in sorted(ROOT.glob("docs/*.md"))]
DOCSTRINGS = [file.read_text().split('"""')[1]
              for file in sorted(ROOT.glob("experiments/**/*.py"))]


def commands():
    guides = [block for text in DOCS for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)]
    text = "\n".join([*BASH, *guides, *DOCSTRINGS]).replace("\\\n", " ")
    found = re.findall(r"python launch\.py[^\n|&]*", text)
    return sorted({line.partition("  #")[0].strip() for line in found})


def code(start):
    return next(block for block in PYTHON if block.startswith(start))


@pytest.mark.parametrize("command", commands())
def test_every_documented_command_names_a_job_and_a_valid_config(command, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    words = shlex.split(command)[1:]
    if any("wide.py" in word for word in words):
        pytest.skip("the experiment that the README adds has a test of its own")
    if not any(word.startswith("--config=") for word in words):
        assert words[1].removeprefix("--job=") in JOBS
        return
    validate(parse(words).config)


def test_the_two_commands_that_do_everything_are_there():
    assert BASH[0].endswith("python launch.py --config=experiments/resnet50.py\n")
    assert BASH[1].endswith("pytest -n 2\n")


def test_the_first_lines_of_code_run():
    exec(code("import jax\n"), {})


def test_a_model_added_as_the_readme_says_works_with_capture_and_training(monkeypatch):
    names = {}
    exec(compile(code("# cnnjax/models/two_stage.py"), "two_stage.py", "exec"), names)
    from cnnjax.models.table import Entry

    row = eval("{" + code("# cnnjax/models/table.py").partition("\n")[2] + "}",
               names | {"Entry": Entry})
    # The dataclass of a module reads its annotations from its module's names.
    import sys
    import types

    module = types.ModuleType("two_stage")
    vars(module).update(names)
    monkeypatch.setitem(sys.modules, "two_stage", module)
    monkeypatch.setitem(TABLE, "two_stage", row["two_stage"])
    model = create_model("two_stage", num_classes=5, width=8)
    x = jnp.ones((2, 16, 16, 3))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    logits, found = model.apply(variables, x, train=True, capture=("stage2",))
    assert logits.shape == (2, 5) and found["stage2"].shape == (2, 4, 4, 16)


def test_an_experiment_added_as_the_readme_says_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    file = tmp_path / "wide.py"
    file.write_text(code("# experiments/wide.py"))
    assert main(["launch.py", f"--config={file}", "--dry_run"]) == 0
    assert "Dry run" in capsys.readouterr().out


def test_every_model_of_the_readme_is_in_the_table():
    table = README.partition("| names |")[2].partition("Parameter counts")[0]
    for name in re.findall(r"`([a-z]\w*)`", table):
        assert name in TABLE or name in ("widths", "hidden", "width", "depth")
