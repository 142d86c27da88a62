"""How many files this process may have open.

Imports nothing of size: `launch.py` calls it before anything else.
"""

from __future__ import annotations

import contextlib

# Of what the system allows: some programs, started by this one, go through all numbers there are.
_ENOUGH = 65_536


def raise_limit() -> None:
    """Raises the limit as far as this process may itself.

    Some systems and shells begin with 64 to 256, and checkpoints, workers and the compilation cache
    have more files open at a time: a run would hang, or end in errors of the libraries.
    """
    try:
        import resource
    except ImportError:  # Windows.
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # Some systems have a lower one, untold.
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
