"""A lock on a data set that is being written."""

import contextlib
import errno
import fcntl

import pytest

from cnnjax.data.alone import alone


@pytest.mark.parametrize(("number", "outcome"), [
    (errno.ENOLCK, contextlib.nullcontext()), (errno.EOPNOTSUPP, contextlib.nullcontext()),
    (errno.EIO, pytest.raises(OSError, match="no"))])
def test_where_the_file_system_knows_no_locks_data_are_written_all_the_same(
        number, outcome, tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(number, "no")

    monkeypatch.setattr(fcntl, "flock", flock)
    with outcome, alone(tmp_path / ".lock", tmp_path):
        pass
