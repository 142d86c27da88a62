"""Files that are whole or not there, whoever writes them."""

import os
import threading

import pytest

from cnnjax.files import write_whole


def test_of_several_that_write_a_file_at_once_one_has_it_whole(tmp_path):
    path, contents = tmp_path / "file", [bytes([i]) * 100_000 for i in range(4)]
    failed = []

    def write(content):
        for _ in range(50):
            try:
                write_whole(path, content)
                if path.read_bytes() not in contents:
                    failed.append("half a file")
            except OSError as error:
                failed.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and list(tmp_path.iterdir()) == [path]


def test_what_killed_processes_have_left_goes_and_what_another_writes_now_stays(tmp_path):
    left, now, others = (tmp_path / name for name in (
        "a[1].json.0123abcd.new", "a[1].json.4567cdef.new", "b.json.0123abcd.new"))
    for path in (left, now, others):
        path.write_text("half")
    for path in (left, others):
        os.utime(path, (hour_ago := now.stat().st_mtime - 3600, hour_ago))
    write_whole(tmp_path / "a[1].json", "whole")
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a[1].json", now, others])


def test_what_cannot_be_written_leaves_the_old_file_and_no_other(tmp_path):
    folder = tmp_path / "taken"
    (folder / "by").mkdir(parents=True)
    with pytest.raises(OSError):
        write_whole(folder, "content")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
