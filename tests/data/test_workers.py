"""Processes that read: the same batches as threads, and none of them left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from odd_files import Unfit, Unsendable
from test_feed import assert_same, collect

from cnnjax.data import (
    CopySettings,
    make_eval_feed,
    make_train_feed,
    open_dataset,
    workers,
    write_copy,
)
from cnnjax.types import Failure, UserError

CROP = (0.2, 0.9)
linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")


@pytest.fixture
def make(mesh, image_folder):
    """Makes a streaming feed of 4 rows a batch of images of 8x8."""
    def make(name=f"folder:{image_folder}", **changes):
        dataset = open_dataset(name)
        return make_train_feed(dataset.train, **({
            "batch_size": 4, "seed": 5, "mesh": mesh, "image_size": (8, 8), "workers": 2,
            "random_resized_crop": CROP} | changes))
    return make


def children(parent="self"):
    """Returns the process ids of the children of a process."""
    found = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        with contextlib.suppress(OSError):  # A thread may just have ended.
            found += map(int, (task / "children").read_text().split())
    return found


def gone(pid, seconds=20):
    """Whether a process ends within this time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("changes", [{}, {"batch_size": 20, "repeats": 2}])
def test_workers_give_the_batches_of_threads(make, changes):
    processes, threads = (collect(make(workers=n, **changes), 1, 5, k=3) for n in (2, 0))
    assert_same(processes, threads)


def test_workers_evaluate_as_threads_do(image_folder, mesh):
    dataset = open_dataset(f"folder:{image_folder}")
    feeds = [make_eval_feed(dataset.eval, batch_size=5, mesh=mesh, image_size=(8, 8), workers=n,
                            placement="stream") for n in (0, 1)]
    for a, b in zip(*(feed.batches() for feed in feeds), strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


@linux
@pytest.mark.parametrize("kind", ["folder", "records"])
def test_a_worker_has_no_jax_and_leaves_signals_to_its_parent(make, image_folder, tmp_path, kind):
    name = f"folder:{image_folder}"
    if kind == "records":
        copy = write_copy(open_dataset(name), image_folder, tmp_path / "copy", CopySettings(24))
        name = f"records:{copy}"
    before = set(children())
    batches = make(name).batches(0, 10**6)
    next(batches)
    own = set(children()) - before
    assert len(own) == 2
    for pid in own:
        assert "jaxlib" not in Path(f"/proc/{pid}/maps").read_text()
        assert "JAX_PLATFORMS=cpu" in Path(f"/proc/{pid}/environ").read_text().split("\0")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            os.kill(pid, number)
    for _ in range(20):
        next(batches)
    assert set(children()) - before == own
    batches.close()
    assert set(children()) == before


@linux
def test_a_killed_worker_is_one_message(make):
    before = set(children())
    batches = make().batches(0, 10**6)
    next(batches)
    os.kill((set(children()) - before).pop(), signal.SIGKILL)
    with pytest.raises(Failure, match="was killed .SIGKILL.*data.workers to fewer, or to 0"):
        for _ in range(1000):
            next(batches)
    assert set(children()) == before


def test_what_is_wrong_with_an_image_is_said_as_by_threads(make, image_folder):
    (image_folder / "train/dog/3.png").write_bytes(b"broken")
    with pytest.raises(UserError, match="train/dog/3.png is a text file, not an image"):
        list(make().batches(0, 5))


def test_a_stream_that_cannot_be_sent_is_explained():
    with pytest.raises(UserError, match="--config.data.workers=0"), \
            workers.started(Unfit(lambda: None), 1):
        pass


@pytest.mark.parametrize(("error", "raised"), [(KeyError, KeyError), (Unsendable, RuntimeError)])
def test_the_error_of_a_source_comes_with_where_it_was_raised(error, raised):
    with workers.started(Unfit(error), 1) as pool, pytest.raises(raised) as caught:
        pool.read_into(np.arange(2), np.zeros(2, int), {"label": pool.empty((2,), np.int32)})
    said = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert "In a worker process of the loader:" in said and "what a source may raise" in said
    assert "odd_files.py" in said and "read_into" in said


# Prints its children once they read, and then trains on, or does what a line of its input says.
READING = """
import signal, sys
from pathlib import Path
import jax, numpy as np
from cnnjax import data
if __name__ == "__main__":
    # A shell that started the tests in the background had it ignored, for its children too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("data",))
    dataset = data.open_dataset("folder:" + sys.argv[1])
    feed = data.make_train_feed(dataset.train, batch_size=4, seed=0, mesh=mesh, image_size=(8, 8),
                                random_resized_crop=(0.2, 0.9), workers=2)
    batches = feed.batches(0, 10**9)
    for i, _ in enumerate(batches):
        if i == 3:
            print(*[pid for task in Path("/proc/self/task").iterdir()
                    for pid in (task / "children").read_text().split()], flush=True)
"""


@linux
def test_a_program_that_leaves_a_loop_early_ends_quietly(image_folder, root):
    source = READING + "            break  # The iterator stays open."
    process = subprocess.run([sys.executable, "-c", source, str(image_folder)], cwd=root,
                             capture_output=True, text=True, timeout=120)
    assert (process.returncode, process.stderr) == (0, "")
    assert all(gone(int(pid)) for pid in process.stdout.split())


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_its_parent(image_folder, root, number):
    process = subprocess.Popen([sys.executable, "-c", READING, str(image_folder)], cwd=root,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        own = [int(pid) for pid in process.stdout.readline().split()]
        assert len(own) == 2
        process.send_signal(number)
        try:
            _, errors = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:  # Python ignores an interrupt within a finalizer.
            assert number == signal.SIGINT
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode, errors
    assert all(gone(pid) for pid in own)
