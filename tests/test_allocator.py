"""One restart with huge pages, and never a second."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cnnjax import allocator

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


@pytest.fixture
def tried(monkeypatch):
    """The restarts that were tried, all of which fail; on Linux with glibc and without devices."""
    tried = []

    def execve(*arguments):
        tried.append(arguments)
        raise OSError("no memory")

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("glibc", "2.41"))
    monkeypatch.setattr(Path, "exists", lambda path: False)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    return tried


def test_a_start_that_fails_is_not_repeated_and_said_at_debug_level_alone(tried, caplog):
    caplog.set_level(logging.DEBUG)
    allocator.restart_with_huge_pages()
    assert len(tried) == 1 and tried[0][2]["GLIBC_TUNABLES"] == allocator.SETTING
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("DEBUG", f"Starting again with GLIBC_TUNABLES={allocator.SETTING}"),
        ("DEBUG", "Cannot start again: no memory")]


@pytest.mark.parametrize(("device", "platforms", "restarts"), [
    ("/dev/nvidia0", None, 0), ("/dev/accel0", None, 0), ("/dev/nvidia0", "cpu", 1)])
def test_a_machine_with_an_accelerator_starts_again_only_to_leave_it_alone(
        device, platforms, restarts, tried, monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == device)
    if platforms:
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
    allocator.restart_with_huge_pages()
    assert len(tried) == restarts


def test_another_system_or_library_is_left_alone(tried, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    allocator.restart_with_huge_pages()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))
    allocator.restart_with_huge_pages()
    assert not tried
