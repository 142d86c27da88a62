"""The commands and code of the README, the guides, experiments and benchmarks, as they stand."""

import argparse
import contextlib
import importlib
import re
import shlex
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from cnnjax import config as config_lib
from cnnjax.command_flags import Command, Compare, parse
from cnnjax.command_line import main
from cnnjax.models import create_model, list_models
from cnnjax.models.table import TABLE
from cnnjax.types import UserError
from cnnjax.validation import validate

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BASH = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
TEXT = "\n".join([README, *(file.read_text() for file in sorted(ROOT.glob("docs/*.md")))])
DOCSTRINGS = [file.read_text().split('"""')[1] for folder in ("experiments", "benchmarks", "docs")
              for file in sorted(ROOT.glob(f"{folder}/**/*.py"))]


def commands(start):
    """Commands in blocks of code, amid text (where they may wrap) and in docstrings, each once."""
    blocks = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    amid = [" ".join(words.split()) for words in re.findall(r"`(python [^`]+)`", TEXT)]
    text = re.sub(r"\\\n\s*", " ", "\n".join([*blocks, *amid, *DOCSTRINGS]))
    # Two spaces divide a command from what is said of it.
    return sorted({re.split(r"\s\s", line)[0].strip()
                   for line in re.findall(rf"{re.escape(start)}[^\n|&]*", text)})


def code(start):
    return next(block for block in PYTHON if block.startswith(start))


LAUNCHES = [command for command in commands("python launch.py") if "wide.py" not in command]


def test_every_key_of_the_page_on_recipes_can_be_set_as_it_stands_there():
    rows = re.findall(r"^\| `.*", (ROOT / "docs/recipes.md").read_text(), re.MULTILINE)
    words = [word for row in rows for word in re.findall(r"`([a-z]+\.[a-z_]+(?:=[^`]+)?)`", row)]
    assert len(words) > 20
    flags = [f"--config.{w}" for w in words if "=" in w and "PATH" not in w and "NAME" not in w]
    command = parse(["launch.py", f"--config={ROOT / 'experiments/resnet_cifar.py'}", *flags])
    keys = config_lib.flatten(command.config)
    assert {word.partition("=")[0] for word in words} <= set(keys)
    validate(command.config)


@pytest.fixture(scope="module")
def runs():
    """{workdir: its config} of the documented commands that name an experiment."""
    found = {}
    for command in LAUNCHES:
        with contextlib.chdir(ROOT), contextlib.suppress(UserError):  # That has a test of its own.
            if "--config=" in command:
                parsed = parse(shlex.split(command)[1:])
                found |= {parsed.workdir: parsed.config} if isinstance(parsed, Command) else {}
    return found


@pytest.mark.parametrize("command", LAUNCHES)
def test_every_documented_command_is_a_job_of_a_valid_config(command, monkeypatch, tmp_path, runs):
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    for folder, config in runs.items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(config.to_json())
    found = parse(shlex.split(command)[1:])
    if isinstance(found, Compare):
        assert found.config or list_models(found.models)
    elif found.job == "report":
        assert found.workdir.is_dir()
    else:
        validate(found.config)


@pytest.mark.parametrize("command", commands("python -m "))
def test_every_documented_module_takes_the_arguments(command, monkeypatch):
    class Parsed(Exception):
        pass

    def parse_args(parser, *, parse=argparse.ArgumentParser.parse_args):
        parse(parser)
        raise Parsed

    _, _, name, *arguments = shlex.split(command)
    module = importlib.import_module(name)
    if not arguments and module.main:  # Text may name one that needs some.
        return
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    with pytest.raises(Parsed):
        module.main()


def test_the_two_commands_that_do_everything_are_there():
    assert BASH[0].endswith("python launch.py --config=experiments/resnet50.py\n")
    assert BASH[1].endswith("pytest -n 2\n")


def test_the_first_lines_of_code_run():
    exec(code("import jax\n"), {})


def test_a_loop_of_ones_own_runs(capsys):
    block = re.findall(r"```python\n(.*?)```", (ROOT / "docs/library.md").read_text(), re.DOTALL)[0]
    exec(block.replace("size=(300, 64)", "size=(20, 64)"), {"__name__": "library"})
    assert float(capsys.readouterr().out.rstrip("%\n")) > 30


def test_a_model_added_as_the_readme_says_works_with_capture_and_training(monkeypatch):
    names = {}
    exec(compile(code("# cnnjax/models/two_stage.py"), "two_stage.py", "exec"), names)
    from cnnjax.models.table import Entry

    row = eval("{" + code("# cnnjax/models/table.py").partition("\n")[2] + "}",
               names | {"Entry": Entry})
    # The dataclass of a module reads its annotations from its module's names.
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


def test_a_model_that_an_experiment_adds_needs_its_file_in_every_job(
        tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(TABLE, "two_stage", None)  # So that it is as before in the end.
    row = code("# cnnjax/models/table.py").partition("Entry")[2].strip().rstrip(",")
    file, folder = tmp_path / "own.py", tmp_path / "run"
    file.write_text("\n".join([
        code("# cnnjax/models/two_stage.py"), "from cnnjax.models.table import TABLE, Entry",
        f'TABLE["two_stage"] = Entry{row}', code("# experiments/wide.py").replace(
            "simple_cnn", "two_stage").replace("config.model.widths = (64, 128)", "")]))
    command = ["launch.py", f"--config={file}", f"--workdir={folder}", "--config.train.steps=1"]
    assert main(command) == 0
    assert main([*command, "--job=evaluate"]) == 0
    del TABLE["two_stage"]  # As in a process of its own.
    capsys.readouterr()
    assert main(["launch.py", "--job=evaluate", f"--workdir={folder}"]) == 2
    assert "Name the experiment that adds it, too: --config=FILE." in capsys.readouterr().err


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
