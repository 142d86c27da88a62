"""What is set before the first computation."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from dev_folder import Dev

from cnnjax import config as config_lib
from cnnjax import jobs
from cnnjax.command_line import main
from cnnjax.cores import available_cores, cores
from cnnjax.jobs import backend, experiment, launches
from cnnjax.types import Failure

OF_THESE_CORES = f"{available_cores()}_cores"


def test_an_entry_of_the_cache_that_a_kill_left_half_written_is_dropped(tmp_path):
    for name in ("a-cache", "a-atime", "b-cache"):
        (tmp_path / name).write_bytes(b"x")
    backend._drop_interrupted_entries(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} - {".lockfile"} == {"a-cache", "a-atime"}


def test_compiled_steps_are_kept_in_the_folder_that_the_variable_names(root, tmp_path):
    code = ("import jax, jax.numpy as jnp; from cnnjax.jobs import backend;"
            "backend.use_compilation_cache();"
            "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0);"
            "jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8))).block_until_ready()")
    for _ in range(2):
        subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=root, check=True,
                       env=os.environ | {backend.CACHE_VARIABLE: str(tmp_path / "cache")})
    assert list((tmp_path / "cache" / OF_THESE_CORES).glob("*-cache"))


@pytest.mark.skipif(available_cores() == 1, reason="takes two cores")
def test_what_was_compiled_on_one_core_is_not_taken_on_two(root, tmp_path):
    code = ("import os, sys; os.sched_setaffinity(0, cores) if (cores := eval(sys.argv[1])) else 0;"
            "import jax, jax.numpy as jnp; from cnnjax.jobs import backend;"
            "backend.use_compilation_cache();"
            "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0);"
            "f = jax.jit(lambda x: jnp.sin(x) * x + 1).lower(jnp.ones((512, 512))).compile();"
            "print('outer_dimension_partitions' in f.as_text())")
    for pinned, divided in ((cores()[:1], False), ([], True)):
        done = subprocess.run([sys.executable, "-c", code, str(pinned)], cwd=root, check=True,
                              capture_output=True, text=True,
                              env=os.environ | {backend.CACHE_VARIABLE: str(tmp_path)})
        assert done.stdout.strip() == str(divided)


@pytest.fixture
def folder_of_jax():
    """The folder that JAX itself has read from the variable; it is put back."""
    before = jax.config.jax_compilation_cache_dir
    yield lambda folder: jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.parametrize("inaccessible", [None, ".lockfile"])
def test_a_cache_that_cannot_be_written_is_a_warning_and_not_used(
        inaccessible, tmp_path, folder_of_jax, monkeypatch, recwarn):
    where = tmp_path if inaccessible else Path("/proc/nowhere")
    folder = where / OF_THESE_CORES
    if inaccessible:  # As another user's, of whom all else can be read and added to.
        (folder / inaccessible).mkdir(parents=True)
    monkeypatch.setenv(backend.CACHE_VARIABLE, str(where))
    folder_of_jax(str(where))
    backend.use_compilation_cache()
    named = folder / inaccessible if inaccessible else where
    assert f"{folder}: {named}: " in str(recwarn.pop().message)
    assert jax.config.jax_compilation_cache_dir is None


def test_a_user_without_a_home_has_no_cache_unless_the_variable_names_one(
        tmp_path, folder_of_jax, monkeypatch, recwarn):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(backend.files.Path, "home", no_home)
    folder_of_jax(None)
    for folder in ("", str(tmp_path)):
        monkeypatch.setenv(backend.CACHE_VARIABLE, folder)
        backend.use_compilation_cache()
        assert not recwarn and jax.config.jax_compilation_cache_dir == (
            f"{folder}/{OF_THESE_CORES}" if folder else None)
    folder_of_jax(None)
    monkeypatch.delenv(backend.CACHE_VARIABLE)
    backend.use_compilation_cache()
    assert "no home" in str(recwarn.pop().message)
    assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.parametrize(("job", "keys"), [
    ("train", {"train.batch_size", "eval.batch_size", "data.image_size", "train.accumulate"}),
    ("evaluate", {"eval.batch_size"}), ("predict", {"predict.batch_size"}), ("export", set())])
def test_no_memory_is_one_message_with_the_keys_that_it_hangs_on(
        job, keys, root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    monkeypatch.setattr(jobs, "run", lambda *arguments: jax.numpy.zeros(
        (1 << 20, 1 << 20, 1 << 12), "uint8").block_until_ready())
    assert main(["launch.py", "--config=experiments/lenet5.py", f"--job={job}"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("launch.py: Out of memory allocating 4503599627370496 bytes. ")
    assert set(re.findall(r"--config\.([\w.]+\w)", said)) == keys and said.count("\n") == 1
    assert keys <= config_lib.flatten(config_lib.default()).keys()


@pytest.mark.parametrize(("allocate", "said"), [
    (lambda: np.empty(1 << 60, np.uint8), "Unable to allocate 1.00 EiB for an array"),
    (lambda: bytearray(1 << 62), "Python could not allocate what it needs")])
def test_a_host_without_memory_is_a_failure_too(allocate, said):
    with pytest.raises(Failure, match=f"on the host: {said}.*train.batch_size"), \
            backend.explaining_no_memory("train"):
        allocate()


def test_a_tpu_without_memory_is_a_failure_too():
    said = ("RESOURCE_EXHAUSTED: Error allocating device buffer: Attempting to allocate 4.39G. "
            "That was not possible. There are 2.30G free.; (0x0x0_HBM0)")
    with pytest.raises(Failure, match="Attempting.*train.batch_size"), \
            backend.explaining_no_memory("train"):
        raise jax.errors.JaxRuntimeError(said)


def test_an_error_of_jax_about_something_else_stays_what_it_is():
    for said in ("INTERNAL: memory", "RESOURCE_EXHAUSTED: Received message larger than max"):
        with pytest.raises(jax.errors.JaxRuntimeError, match=said), \
                backend.explaining_no_memory("train"):
            raise jax.errors.JaxRuntimeError(said)


def test_the_versions_that_decide_the_numbers_are_named():
    assert {"jax", "flax", "optax", "orbax-checkpoint"} <= set(backend.versions())


def test_deterministic_adds_a_flag_of_xlas_once_and_keeps_the_others(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    for _ in range(2):
        backend.make_deterministic()
    assert os.environ["XLA_FLAGS"] == "--xla_dump_to=x --xla_gpu_deterministic_ops=true"


@pytest.mark.parametrize("platform,flags,warned", [
    ("cpu", {"avx2"}, True), ("cpu", {"avx2", "avx512_bf16"}, False), ("cpu", {"amx_bf16"}, False),
    ("cpu", set(), False), ("gpu", {"avx512_bf16"}, True)])
def test_products_of_bfloat16_are_a_warning_where_nothing_is_gained(platform, flags, warned,
                                                                    monkeypatch, recwarn):
    monkeypatch.setattr(backend, "processor_flags", lambda: flags)
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    for precision in ("auto", "float32", "bfloat16"):
        backend.warn_of_products(precision)
        assert backend.product_type(precision) == "float32" and not recwarn
    backend.warn_of_products("bfloat16_products")
    assert len(recwarn) == warned
    assert backend.product_type("bfloat16_products") == (
        "bfloat16" if platform == "cpu" else "float32")


@pytest.mark.parametrize("platform,dtype", [
    ("cpu", "float32"), ("gpu", "bfloat16"), ("tpu", "bfloat16")])
def test_accelerators_compute_in_bfloat16_unless_told_otherwise(platform, dtype, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    assert config_lib.default().precision == "auto"
    assert experiment.compute_dtype("auto") == dtype
    for told in ("float32", "bfloat16"):
        assert experiment.compute_dtype(told) == told


@pytest.mark.parametrize("names,platforms,used,said", [
    (["nvidia0", "nvidia1", "nvidiactl"], "", "cpu", "pip install -U 'jax[cuda13]'"),
    (["nvidia3", "nvidiactl"], "", "cpu", "pip install -U 'jax[cuda13]'"),
    (["nvidiactl", "nvidia-uvm"], "", "cpu", None),  # A driver, and no GPU given.
    (["accel0"], "", "cpu", "pip install -U 'jax[tpu]'"),
    (["null"], "", "cpu", None),
    (["nvidia0"], "", "gpu", None), (["nvidia0"], "cpu", "cpu", None)])
def test_an_accelerator_that_is_not_used_is_a_warning_with_the_command(names, platforms, used, said,
                                                                       monkeypatch):
    for module in (backend, launches):
        monkeypatch.setattr(module, "Path", Dev(*names))
    monkeypatch.setattr(jax, "default_backend", lambda: used)
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = backend.unused_accelerator()
    assert found is None if said is None else said in found


@pytest.mark.parametrize(("visible", "warned"), [("", False), ("-1", False), ("0", True)])
def test_gpus_that_were_hidden_on_purpose_are_no_warning(visible, warned, monkeypatch):
    for module in (backend, launches):
        monkeypatch.setattr(module, "Path", Dev("nvidia0"))
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setenv("JAX_PLATFORMS", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert bool(backend.unused_accelerator()) == warned
    monkeypatch.setattr(launches, "Path", Dev("null"))  # No GPU, whatever the variable says.
    assert backend.unused_accelerator() is None
