"""Memory of two processes: one sees what the other wrote, and none is in use twice."""

import subprocess
import sys

import numpy as np
import pytest

from cnnjax.data import shared_memory
from cnnjax.data.shared_memory import SharedMemory, View


@pytest.fixture
def memory():
    memory = SharedMemory()
    yield memory
    memory.close()


def test_another_process_writes_into_a_part(memory, root):
    array = memory.empty((5, 3), np.int32)
    array[:] = 7
    place = memory.offset(array[2:4]), (2, 3), "<i4"
    program = ("from cnnjax.data.shared_memory import View\n"
               f"a = View({memory.descriptor}).array(*{place})\n"
               "assert (a == 7).all()\na[:] = [[1, 2, 3], [4, 5, 6]]")
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True,
                   pass_fds=[memory.descriptor])
    np.testing.assert_array_equal(array, [[7] * 3, [7] * 3, [1, 2, 3], [4, 5, 6], [7] * 3])


def test_memory_comes_again_when_the_last_view_is_gone(memory):
    first = memory.empty((2, 8, 8), np.uint8)
    place, view = memory.offset(first), first[1, :4].T
    del first
    second = memory.empty((100,), bool)
    assert memory.offset(second) != place
    del view
    assert memory.offset(memory.empty((10,), np.float32)) == place


@pytest.mark.parametrize("shape", [(), (0, 4), (3,)])
def test_arrays_of_any_size_begin_where_devices_can_read_them_in_place(memory, shape):
    arrays = [memory.empty(shape, np.float64) for _ in range(3)]
    assert all(a.shape == shape and a.dtype == np.float64 for a in arrays)
    assert len({memory.offset(a) for a in arrays}) == 3
    assert all(a.ctypes.data % 64 == 0 for a in arrays)


def test_a_view_follows_the_file_as_it_grows(memory, monkeypatch):
    monkeypatch.setattr(shared_memory, "_MAPPING", 1 << 16)
    view = View(memory.descriptor)
    arrays = [memory.empty((size,), np.uint8) for size in (10, 1 << 15, 1 << 18, 1 << 15, 5)]
    for value, array in enumerate(arrays):
        view.array(memory.offset(array), array.shape, array.dtype)[:] = value
    for value, array in enumerate(arrays):
        assert (array == value).all()
    assert len({memory.offset(array) for array in arrays}) == len(arrays)


def test_once_closed_it_touches_no_file_that_has_its_number_then(tmp_path):
    memory = SharedMemory()
    number = memory.descriptor
    memory.close()
    with open(tmp_path / "other", "wb") as other:
        assert other.fileno() == number
        with pytest.raises(OSError, match="Bad file descriptor"):
            memory.empty((10,), np.uint8)
    assert not (tmp_path / "other").stat().st_size


def test_without_memory_files_a_temporary_one_is_shared(monkeypatch):
    monkeypatch.delattr(shared_memory.os, "memfd_create", raising=False)
    memory = SharedMemory()
    array = memory.empty((4,), np.int64)
    View(memory.descriptor).array(memory.offset(array), (4,), np.int64)[:] = range(4)
    memory.close()
    assert array.tolist() == [0, 1, 2, 3]
