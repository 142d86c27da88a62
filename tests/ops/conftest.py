"""What the tests of several devices share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest


@pytest.fixture
def lines_on_devices(root) -> Callable[[str, int], list[str]]:
    """Runs a program in a process of its own, which has so many devices; returns what it prints."""
    def run(program: str, devices: int) -> list[str]:
        flags = f"--xla_force_host_platform_device_count={devices}"
        done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True,
                              text=True, env=os.environ | {"XLA_FLAGS": flags})
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.splitlines()

    return run
