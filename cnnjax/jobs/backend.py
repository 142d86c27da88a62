"""What has to be set before the first computation, and what to say about the devices."""

from __future__ import annotations

import contextlib
import os
import subprocess
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import filelock
import jax

from cnnjax import files
from cnnjax.cores import available_cores
from cnnjax.jobs.launches import visible_gpus
from cnnjax.types import Failure, UserError

CACHE_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
# The precision that rounds the factors of products, and what a processor has that gains by it.
PRODUCTS = "bfloat16_products"
_INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}  # One or the other.
# It implies --xla_gpu_exclude_nondeterministic_ops, and no choice of kernels by measuring.
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
# What helps where there is no memory; `memory` says the like of what can be known before.
_HELP = {
    **dict.fromkeys(("train", "lr_finder", "benchmark"), (
        "Set a smaller --config.train.batch_size, --config.eval.batch_size or "
        "--config.data.image_size, or take the batch in --config.train.accumulate parts.")),
    "evaluate": "Set a smaller --config.eval.batch_size.",
    "predict": "Set a smaller --config.predict.batch_size.",
    "visualize": "Set a smaller --config.visualize.batch_size."}


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that a second start skips the compiler.

    The folder is JAX_COMPILATION_CACHE_DIR, or ~/.cache/cnnjax/xla, at most 2 GB; the least
    recently used entries go first. Set the variable to nothing to have no cache. On a CPU it is a
    folder within, of this number of cores: XLA divides a program's loops among those it has when it
    compiles, and what was compiled for a trial of a sweep, on one core, would take one everywhere.
    """
    folder = os.environ.get(CACHE_VARIABLE, files.cache("xla"))
    if folder is None:
        warnings.warn(f"No compilation cache: this user has no home. Set {CACHE_VARIABLE} to a "
                      "folder that can be written.", stacklevel=2)
    if not folder:
        return
    if jax.default_backend() == "cpu":
        folder = os.path.join(folder, f"{available_cores()}_cores")
    try:
        _drop_interrupted_entries(Path(folder))
    except OSError as error:
        warnings.warn(f"No compilation cache in {folder}: {error.filename}: {error.strerror}. Set "
                      f"{CACHE_VARIABLE} to a folder of your own.", stacklevel=2)
        # JAX has read the variable, too, and would fail to write every program.
        jax.config.update("jax_compilation_cache_dir", None)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", 2_000_000_000)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@contextlib.contextmanager
def without_compilation_cache() -> Iterator[None]:
    """A context in which every compilation is the compiler's own work."""
    from jax.experimental.compilation_cache import compilation_cache

    before = jax.config.jax_enable_compilation_cache
    try:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()  # JAX asks once in a process whether there is one.
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


@contextlib.contextmanager
def explaining_no_memory(job: str) -> Iterator[None]:
    """A context in which an error of no memory, JAX's or Python's, is a Failure that says what
    helps.
    """
    try:
        yield
    except MemoryError as error:
        said = str(error).rstrip(".") or "Python could not allocate what it needs"
        raise Failure(f"Out of memory on the host: {said}. "
                      f"{_HELP.get(job, 'It takes a machine with more.')}") from error
    except jax.errors.JaxRuntimeError as error:
        said = str(error).partition("\n")[0]
        # Messages between processes may exhaust another resource.
        of_memory = any(word in said for word in ("memory", "HBM", "llocat"))
        if not (said.startswith("RESOURCE_EXHAUSTED") and of_memory):
            raise
        said = said.removeprefix("RESOURCE_EXHAUSTED: ").rstrip(".")
        raise Failure(f"{said}. {_HELP.get(job, 'It takes a device with more.')}") from error


def product_type(precision: str) -> str:
    """Returns the type of the factors of products in training, "float32" or "bfloat16"."""
    return "bfloat16" if precision == PRODUCTS and jax.default_backend() == "cpu" else "float32"


def warn_of_products(precision: str) -> None:
    """Warns, before training, where products of their own precision gain nothing."""
    if precision != PRODUCTS:
        return
    if jax.default_backend() != "cpu":
        warnings.warn(f"precision={PRODUCTS} is for CPUs; here all is float32. A new run is faster "
                      "with --config.precision=bfloat16.", stacklevel=2)
        return
    flags = processor_flags()
    if flags and not flags & _INSTRUCTIONS:
        warnings.warn(f"precision={PRODUCTS}: this processor has neither of "
                      f"{', '.join(sorted(_INSTRUCTIONS))}. A new run is faster with "
                      "--config.precision=float32.", stacklevel=2)


def processor_flags() -> set[str]:
    """Returns what the processor can do, as Linux names it; nothing where Linux does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


def make_deterministic() -> None:
    """Lets XLA use only operations on GPUs that give the same bits in every run.

    Without it the fastest convolutions and scatters add in whatever order their threads end, and
    each process chooses the fastest by measuring anew. A small residual net on an H200 trained 28 %
    fewer images/s with it (docs/performance.md). On CPUs runs are equal to the bit without it, and
    it changes nothing.

    To be called before JAX's first computation, which reads the flags; afterwards it does nothing.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if DETERMINISTIC not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {DETERMINISTIC}".strip()


def _drop_interrupted_entries(folder: Path) -> None:
    """Deletes entries that a killed process left half written, which would spoil every later write.

    JAX writes an entry and then its time of use: one without the other is the trace of a kill.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / ".lockfile"):  # The one that JAX takes to write.
        for entry in folder.glob("*-cache"):
            if not entry.with_name(entry.name.removesuffix("-cache") + "-atime").exists():
                entry.unlink()


def unused_accelerator() -> str | None:
    """Returns a warning if there is a GPU or TPU that JAX does not use, else None.

    Raises:
      UserError: if JAX finds no device at all.
    """
    try:
        backend = jax.default_backend()
    except (RuntimeError, AssertionError) as error:  # The latter without a message.
        platforms = os.environ.get("JAX_PLATFORMS", "")
        said = str(error).splitlines()[0] if str(error) else "no such device"
        raise UserError(f"JAX cannot start with JAX_PLATFORMS={platforms!r} ({said}). Unset it, "
                        "or install JAX for that device, such as jax[cuda13].") from None
    if backend != "cpu" or os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return None
    if visible_gpus(os.environ):
        return "There is an NVIDIA GPU that JAX does not use: pip install -U 'jax[cuda13]'"
    if Path("/dev/accel0").exists() or Path("/dev/vfio/0").exists():
        return "There is a TPU that JAX does not use: pip install -U 'jax[tpu]'"
    return None


def describe_devices(devices: list[jax.Device]) -> str:
    """Returns "8 x cpu", or "1 x gpu (NVIDIA H100)"."""
    kind = devices[0].device_kind
    platform = devices[0].platform
    return f"{len(devices)} x {platform}" + ("" if kind == platform else f" ({kind})")


def versions() -> dict[str, str]:
    """Returns the versions of the libraries that decide the numbers."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets",
             "ml-collections", "numpy")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            warnings.warn(f"{name} is not installed as a package", stacklevel=2)
    return found


def git_commit() -> str | None:
    """Returns the commit of this code, with "+" if the tree differs from it, or None."""
    root = Path(__file__).resolve().parents[2]
    try:
        if _git(root, "rev-parse", "--show-toplevel") != str(root):
            return None
        dirty = _git(root, "status", "--porcelain", "--untracked-files=no")
        return _git(root, "rev-parse", "HEAD") + ("+" if dirty else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True,
                          timeout=5, check=True).stdout.strip()
