"""The limit of open files, as a system that begins with a low one has it."""

import resource

import pytest

from cnnjax.open_files import raise_limit


@pytest.mark.parametrize(("soft", "hard", "raised"), [
    (64, 4096, 4096), (256, 2**20, 65_536), (1024, resource.RLIM_INFINITY, 65_536),
    (2**17, 2**20, None), (64, 64, None), (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None)])
def test_the_limit_is_raised_as_far_as_the_process_may_and_is_enough(
        soft, hard, raised, monkeypatch):
    set_to = []
    monkeypatch.setattr(resource, "getrlimit", lambda what: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: set_to.append(limits))
    raise_limit()
    assert set_to == ([] if raised is None else [(raised, hard)])


def test_a_system_that_refuses_keeps_its_limit(monkeypatch):
    def refuse(what, limits):
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda what: (64, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    raise_limit()
