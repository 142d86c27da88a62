"""One restart with huge pages, and never a second."""

import os
import subprocess
import sys

import pytest

CODE = """
import os, sys
from cnnjax.allocator import restart_with_huge_pages
print("start", os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], flush=True)
restart_with_huge_pages()
"""


def starts(root, tmp_path, **variables):
    program = tmp_path / "program.py"
    program.write_text(CODE)
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"} | variables
    done = subprocess.run([sys.executable, str(program), "--a=b c"], cwd=root, text=True,
                          env=environment | {"PYTHONPATH": str(root)}, capture_output=True,
                          check=True, timeout=60)
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's setting")
def test_the_program_starts_again_once_with_the_same_arguments(root, tmp_path):
    assert starts(root, tmp_path) == ["start None ['--a=b c']",
                                      "start glibc.malloc.hugetlb=1 ['--a=b c']"]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's setting")
def test_other_tunables_stay_and_a_choice_of_the_users_is_respected(root, tmp_path):
    assert starts(root, tmp_path, GLIBC_TUNABLES="glibc.malloc.check=1")[1] == (
        "start glibc.malloc.check=1:glibc.malloc.hugetlb=1 ['--a=b c']")
    assert len(starts(root, tmp_path, GLIBC_TUNABLES="glibc.malloc.hugetlb=0")) == 1
