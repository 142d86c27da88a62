"""Output that cannot be written ends nothing."""

import os
import subprocess
import sys

import pytest

WHERE = {"a reader that has gone": "| true", "a full disk": ">/dev/full", "closed": ">&-",
         "both on a full disk": ">/dev/full 2>&1", "all three closed": "<&- >&- 2>&-"}
LINES = """
import resource
from cnnjax.streams import never_fail
never_fail()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for line, room in (("one", hard), ("two", 4), ("three", hard)):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    print(line)
"""
FILE = """
import subprocess, sys
from cnnjax.streams import never_fail
never_fail()
with open(sys.argv[1], "w"):
    print("a line", flush=True)
    print("another", file=sys.stderr)
    subprocess.run(["sh", "-c", "echo of a child; echo of its >&2"], check=True)
"""


def shell(command, root, *words, redirected=""):
    """Runs a command, `$@` being the words, redirected; returns its exit code and all it said."""
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$@" {redirected}', "bash", sys.executable, *command,
         *words], cwd=root, capture_output=True, text=True, timeout=60,
        env=os.environ | {"PYTHONPATH": str(root)})
    return done.returncode, done.stdout + done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a disk that is full")
@pytest.mark.parametrize("where", WHERE)
def test_a_command_whose_output_nobody_takes_ends_quietly_with_its_code(where, root):
    assert shell(["launch.py"], root, "--help", redirected=WHERE[where]) == (0, "")


def test_what_there_was_no_room_for_is_missing_and_the_next_line_is_not(root, tmp_path):
    log = tmp_path / "log"
    assert shell(["-c", LINES], root, redirected=f">'{log}'") == (0, "")
    assert log.read_text() == "one\nthree\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_file_does_not_get_what_is_printed_where_output_is_closed(closed, root, tmp_path):
    file = tmp_path / "file"
    code, _ = shell(["-c", FILE, str(file)], root, redirected=closed)
    assert code == 0 and file.read_text() == ""


def test_names_that_are_not_text_are_printed(root):
    code = "from cnnjax.streams import never_fail; never_fail(); print(chr(0xdcff))"
    assert shell(["-c", code], root) == (0, "\\udcff\n")
