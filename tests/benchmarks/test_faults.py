"""The faults that are done to runs."""

import errno
import subprocess
import sys
import threading

import pytest

from benchmarks.faults import make_read_only


def test_a_folder_becomes_read_only_though_a_file_is_just_being_written_there(
        tmp_path, monkeypatch):
    writing, mount = [], subprocess.run
    if mount(["mount", "--bind", tmp_path, tmp_path], capture_output=True).returncode:
        pytest.skip("no right to mount")
    mount(["umount", tmp_path], check=True)

    def run(words, **options):
        if "remount,bind,ro" in words and not writing:
            writing.append((tmp_path / "file").open("w"))
            threading.Timer(0.2, writing[0].close).start()
        return mount(words, **options)

    monkeypatch.setattr(subprocess, "run", run)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        try:
            make_read_only(tmp_path, process)
            with pytest.raises(OSError) as error:
                (tmp_path / "more").touch()
            assert error.value.errno == errno.EROFS and process.poll() is None
        finally:
            mount(["umount", "--lazy", tmp_path], check=False)
            process.kill()
