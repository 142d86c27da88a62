"""Compiled steps in files, and what runs with other seeds share."""

import collections
import concurrent.futures
import errno
import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import config as config_lib
from cnnjax.jobs import compiled_steps, made_of, overview, train, workdir
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.compiled_steps import CompiledStep
from cnnjax.train import state as state_lib
from cnnjax.train import step as step_lib

pytestmark = pytest.mark.usefixtures("in_a_program")
X = np.arange(6, dtype=np.float32)


def lowered(factor):
    return jax.jit(lambda x: {"y": jnp.sin(factor * x)}).lower(X)


def compile_and_wait(path, factor, monkeypatch):
    """Returns what a CompiledStep gives, after it was written, and how often the compiler ran."""
    futures, in_thread, compiler, text = [], compiled_steps.in_thread, [], lowered(factor)

    class Watched:
        in_tree, out_tree, as_text = text.in_tree, text.out_tree, text.as_text

        def compile(self):
            compiler.append(True)
            return text.compile()

    with monkeypatch.context() as patch:
        patch.setattr(compiled_steps, "in_thread",
                      lambda *of: futures.append(in_thread(*of)) or futures[-1])
        compiled = CompiledStep(path).compile(Watched())
    for future in futures:
        future.result()
    return compiled, len(compiler)


def test_what_was_compiled_is_loaded_the_next_time_if_the_text_is_the_same(cache, monkeypatch):
    path = cache / "steps" / "name"
    for factor, calls in ((2.0, 1), (2.0, 0), (3.0, 1), (3.0, 0), (2.0, 1)):
        compiled, compiler = compile_and_wait(path, factor, monkeypatch)
        assert compiler == calls
        np.testing.assert_allclose(compiled(X)["y"], np.sin(factor * X), rtol=1e-6)
    # The last came out of JAX's cache, whose programs cannot be written again.
    assert compile_and_wait(path, 2.0, monkeypatch)[1] == 1


def stored(path, factor, digest, monkeypatch):
    """A file with what was compiled of a function of this digest, as another process sees it."""
    with monkeypatch.context() as patch:
        patch.setattr(compiled_steps, "in_thread", done)
        return CompiledStep(path).compile(lowered(factor), digest)


def done(function, *arguments, name=""):
    future = concurrent.futures.Future()
    future.set_result(function(*arguments))
    return future


def test_what_is_made_of_the_same_needs_no_trace(cache, monkeypatch):
    path = cache / "steps" / "name"
    stored(path, 2.0, "digest", monkeypatch)
    step = CompiledStep(path)
    assert step.holds("digest") and not step.holds("another") and not step.holds(None)
    np.testing.assert_allclose(step.recall()(X)["y"], np.sin(2 * X), rtol=1e-6)
    with monkeypatch.context() as patch:  # Since it began to load.
        patch.setattr(made_of, "unchanged", lambda code: False)
        assert not step.holds("digest")
    path.write_bytes(path.read_bytes()[:-1])
    assert not CompiledStep(path).holds("digest")
    stored(cache / "steps" / "unknown", 3.0, None, monkeypatch)
    assert not CompiledStep(cache / "steps" / "unknown").holds(None)


def test_code_that_changes_is_traced_once_more(cache, monkeypatch):
    path, code = cache / "steps" / "name", made_of.code
    stored(path, 2.0, "digest", monkeypatch)
    content = path.read_bytes()
    monkeypatch.setattr(made_of, "unchanged", lambda files: "new" in files)
    monkeypatch.setattr(made_of, "code", lambda: code() | {"new": (1, 2)})
    step = CompiledStep(path)
    assert not step.holds("digest")
    monkeypatch.setattr(compiled_steps, "in_thread", done)
    monkeypatch.setattr(jax.stages.Lowered, "compile", None)  # The text is the same.
    np.testing.assert_allclose(step.compile(lowered(2.0), "digest")(X)["y"], np.sin(2 * X),
                               rtol=1e-6)
    assert path.read_bytes() != content and CompiledStep(path).holds("digest")


def test_what_can_never_be_recognised_is_not_written_at_each_start(cache, monkeypatch):
    path, inodes = cache / "steps" / "name", set()
    for _ in range(2):
        monkeypatch.setattr(made_of, "code", lambda: None)  # Of a module in an archive.
        stored(path, 2.0, "digest", monkeypatch)
        inodes.add(path.stat().st_ino)
    assert len(inodes) == 1


@pytest.mark.parametrize("content", [
    ("text", b"program", jax.tree.structure(()), jax.tree.structure(0)), ("text",), "text", 4])
def test_a_file_of_another_version_holds_nothing(content, cache, monkeypatch):
    path, content = cache / "steps" / "name", pickle.dumps(content)
    path.parent.mkdir(parents=True)
    path.write_bytes(hashlib.sha256(content).digest() + content)
    assert not CompiledStep(path).holds("digest")
    np.testing.assert_allclose(stored(path, 2.0, "digest", monkeypatch)(X)["y"], np.sin(2 * X),
                               rtol=1e-6)


def test_a_program_that_cannot_be_loaded_is_removed(cache, monkeypatch):
    path = cache / "steps" / "name"
    stored(path, 2.0, "digest", monkeypatch)
    monkeypatch.setattr(compiled_steps.serialize_executable, "deserialize_and_load", None)
    step = CompiledStep(path)
    assert step.holds("digest") and step.recall() is None and not path.exists()


def test_a_second_run_traces_neither_its_step_nor_the_drawing_of_its_state(cache, monkeypatch):
    # What counts the traces passes for a library's.
    monkeypatch.setattr(made_of, "_INSTALLED", (*made_of._INSTALLED, os.path.dirname(__file__)))
    monkeypatch.setattr(compiled_steps, "in_thread", done)
    traces = collections.Counter()

    def counted(function):
        def counting(*arguments, **options):
            traces[function.__name__] += 1
            return function(*arguments, **options)

        return counting

    monkeypatch.setattr(step_lib, "train_step", counted(step_lib.train_step))
    monkeypatch.setattr(state_lib, "create_state", counted(state_lib.create_state))

    def run(name, seed):
        config = config_lib.default()
        config.model.name, config.data.image_size, config.train.steps = "lenet5", 16, 3
        config.seed = seed
        traces.clear()
        assert train.run(config, cache / name) == 0
        return workdir.read_json(cache / name / "summary.json")["params_sha256"]

    first = run("first", 0)
    assert traces == {"train_step": 1, "create_state": 2}  # Once for its shapes.
    assert run("second", 0) == first and traces == {"create_state": 1}
    assert run("third", 1) != first and traces == {"create_state": 1}


@pytest.mark.parametrize("spoil", [lambda content: b"", lambda content: content[:-1],
                                   lambda content: content[:-9] + b"\0" + content[-8:],
                                   lambda content: content[32:]],
                         ids=["empty", "cut", "another byte", "no checksum"])
def test_a_spoilt_file_is_compiled_again(spoil, cache, monkeypatch):
    path = cache / "steps" / "name"
    compile_and_wait(path, 2.0, monkeypatch)
    content = path.read_bytes()
    path.write_bytes(spoil(content))
    assert path.read_bytes() != content
    compiled, compiler = compile_and_wait(path, 2.0, monkeypatch)
    assert compiler == 1
    np.testing.assert_allclose(compiled(X)["y"], np.sin(2 * X), rtol=1e-6)


def test_a_folder_that_cannot_be_made_costs_nothing_but_time(cache, monkeypatch):
    (cache / "file").write_bytes(b"")
    compiled, _ = compile_and_wait(cache / "file" / "name", 2.0, monkeypatch)
    np.testing.assert_allclose(compiled(X)["y"], np.sin(2 * X), rtol=1e-6)


def test_a_folder_that_cannot_be_searched_costs_nothing_but_time(cache, monkeypatch):
    stat = os.stat

    def denied(path, *args, **options):
        if "steps" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, *args, **options)

    monkeypatch.setattr(os, "stat", denied)
    assert not CompiledStep(cache / "steps" / "name").holds("digest")


def test_what_there_was_no_room_for_is_not_kept(cache, monkeypatch):
    def full(path, content, write=Path.write_bytes):
        write(path, content[:9])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    compiled, compiler = compile_and_wait(cache / "steps" / "name", 2.0, monkeypatch)
    np.testing.assert_allclose(compiled(X)["y"], np.sin(2 * X), rtol=1e-6)
    assert compiler == 1 and not list((cache / "steps").iterdir())


def test_the_least_recently_used_are_removed(cache, monkeypatch):
    folder = cache / "steps"
    folder.mkdir()
    for day, name in enumerate(("a", "b", "c")):
        (folder / name).write_bytes(bytes(1_000_000))
        os.utime(folder / name, (day, day))
    monkeypatch.setattr(compiled_steps, "_MOST_BYTES", 2_500_000)
    monkeypatch.setattr(made_of, "code", dict)  # It is long where much is imported.
    CompiledStep(folder / "a").wait()  # What was of no use does not become newer.
    compile_and_wait(folder / "d", 2.0, monkeypatch)
    assert {path.name for path in folder.iterdir()} == {"b", "c", "d"}


def test_runs_with_other_seeds_are_the_same_programs():
    def texts(seed):
        config = config_lib.default()
        config.model.name, config.train.batch_size, config.train.steps = "lenet5", 8, 4
        config.data.image_size, config.seed = 16, seed
        config.augment.flip, config.augment.mixup = True, 0.2
        experiment = experiment_lib.build(config)
        draw = jax.jit(experiment.create_state).lower(experiment.seed)
        return draw.as_text(), overview.lower(experiment)[1].as_text()

    assert texts(0) == texts(2**31 - 1)


def test_other_seeds_draw_other_states_and_have_the_same_names(cache):
    configs, leaves = [], []
    for seed in (0, 1):
        config = config_lib.default()
        config.model.name, config.data.image_size, config.seed = "lenet5", 16, seed
        config.train.steps = 4
        configs.append(config)
        experiment = experiment_lib.build(config)
        state = jax.jit(experiment.create_state)(experiment.seed)
        leaves.append(state.params["conv1"]["kernel"])
        expected = experiment.module.init(jax.random.fold_in(jax.random.key(seed), 2**31 - 1),
                                          jnp.zeros(experiment.input_shape))["params"]
        np.testing.assert_allclose(leaves[-1], expected["conv1"]["kernel"], rtol=1e-5, atol=1e-7)
    assert not np.array_equal(*leaves)
    first, second = (compiled_steps.of(config, 0).path for config in configs)
    assert first == second != compiled_steps.of(configs[0], 1).path
    configs[0].schedule.lr = 0.123
    assert compiled_steps.of(configs[0], 0).path != first


def test_a_new_run_finds_the_step_that_began_to_load_before_it_was_built(cache, tmp_path):
    config = config_lib.default()
    config.model.name = "vgg11"
    compiled_steps.begin(config, tmp_path)  # Of a run that ends before it asks.
    config.model.name = "lenet5"
    compiled_steps.begin(config, tmp_path)
    draw, begun = compiled_steps._begun.values()
    assert compiled_steps.of(config, 1) is not begun is compiled_steps.of(config, 0)
    assert compiled_steps.of(config, compiled_steps.DRAW) is draw
    assert compiled_steps.of(config, 0) is not begun  # Which has been given away.
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)  # A run that may be in any phase.
    compiled_steps.begin(config, tmp_path)
    assert not compiled_steps._begun


def test_what_a_file_names_is_imported_before_it_loads_beside_other_imports(root):
    config = config_lib.default()
    config.model.name, config.data.image_size, config.train.steps = "lenet5", 16, 4
    state = jax.tree.structure(experiment_lib.build(config).abstract_state)
    code = """import pickle, sys
from cnnjax.jobs import compiled_steps
before = set(sys.modules)
pickle.loads(sys.stdin.buffer.read())
print(sorted(set(sys.modules) - before))"""
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(state), cwd=root,
                          capture_output=True, check=True)
    assert done.stdout == b"[]\n"
