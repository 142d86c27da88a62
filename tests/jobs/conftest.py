"""Puts the helpers beside these tests on the import path, and the tests into the repository."""

import pathlib
import sys
import types

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
sys.path.append(str(pathlib.Path(__file__).parents[1] / "data"))  # odd_files.py


@pytest.fixture(autouse=True)
def in_the_repository(root, monkeypatch):
    """Commands name experiments as a user in the repository does."""
    monkeypatch.chdir(root)


@pytest.fixture
def in_a_program(monkeypatch, request):
    """The modules of a program: not those of other tests, nor what these have left behind.

    `__main__` has a file, unlike that of a worker of pytest-xdist.
    """
    from cnnjax.jobs import made_of

    for name, module in list(sys.modules.items()):
        file = made_of._file(module)
        if file and not made_of._is_installed(file) and module is not request.module:
            monkeypatch.delitem(sys.modules, name)
    main = types.ModuleType("__main__")
    main.__file__ = request.module.__file__
    monkeypatch.setitem(sys.modules, "__main__", main)
