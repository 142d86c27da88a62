"""What every test needs: the CPU, a cold look at the environment, and real data where there is."""

import contextlib
import gc
import hashlib
import os
import signal
import time
from pathlib import Path

import pytest

from cnnjax import garbage

# Before JAX is imported. The tests are about numbers, which should not depend on a GPU at hand.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.pop("TFDS_DATA_DIR", None)
# Half of the time goes into compiling programs that run once. With the variable at 0 they are
# those that users run; `.ci/run` runs the tests both ways.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
garbage.look()  # As in a run: Python would go over all that JAX made of a program at each trace.
# Programs that tests start would inherit what nohup or a shell in the background has ignored, and
# do not inherit a handler.
for _number in (signal.SIGHUP, signal.SIGINT):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

ROOT = Path(__file__).resolve().parents[1]
BEGAN = time.monotonic()


def pytest_collection_modifyitems(items):
    """Takes the files in another order for each CNNJAX_TEST_ORDER, if that is set.

    So that what CNNJAX_TEST_MINUTES leaves no time for is not always the same.
    """
    if order := os.environ.get("CNNJAX_TEST_ORDER"):
        items.sort(key=lambda item: hashlib.sha256(f"{order} {item.path.name}".encode()).digest())


def pytest_runtest_setup(item):
    """Skips what would start later than CNNJAX_TEST_MINUTES after the process, if that is set."""
    minutes = os.environ.get("CNNJAX_TEST_MINUTES")
    if minutes and time.monotonic() - BEGAN > 60 * float(minutes):
        pytest.skip(f"CNNJAX_TEST_MINUTES={minutes} are over")


def pytest_sessionfinish():
    """Leaves pytest no garbage to look for, as it does five times at its end.

    In all that JAX keeps that takes longer than pytest-xdist gives a process to end in.
    """
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory) -> Path:
    """One cache of compiled steps for the session's processes, and none of the user's own."""
    # Workers of pytest-xdist have folders of their own beside one another.
    folder = tmp_path_factory.getbasetemp().parent / "compilation_cache"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    return folder


@pytest.fixture
def cache(tmp_path):
    """A folder for JAX's own cache, in "jax", which then keeps every program."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (str(tmp_path / "jax"), 0), strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield tmp_path
    for name, value in zip(names, before, strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def lowered_for_cuda():
    """(function, *arguments) -> its program for a GPU that is not there, Triton's kernels in it."""
    import jax

    def lowered(function, *arguments):
        with contextlib.ExitStack() as stack:
            if hasattr(jax.sharding, "AbstractDevice"):
                device = jax.sharding.AbstractDevice("NVIDIA H100", None, platform="gpu")
                stack.enter_context(jax.sharding.use_abstract_mesh(
                    jax.sharding.AbstractMesh((1,), ("x",), abstract_device=device)))
            traced = jax.jit(function).trace(*arguments)
            return traced.lower(lowering_platforms=("cuda",)).as_text()

    return lowered


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data that is too large for the repository: the folder CNNJAX_TEST_DATA names."""
    folder = os.environ.get("CNNJAX_TEST_DATA")
    if not folder:
        pytest.skip("CNNJAX_TEST_DATA names no folder of real data")
    return Path(folder)
