"""Puts the helpers beside these tests on the import path, and the tests into the repository."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
sys.path.append(str(pathlib.Path(__file__).parents[1] / "data"))  # odd_files.py


@pytest.fixture(autouse=True)
def in_the_repository(root, monkeypatch):
    """Commands name experiments as a user in the repository does."""
    monkeypatch.chdir(root)
