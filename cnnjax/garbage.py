"""How often Python looks for garbage: objects that are unreachable, but refer to each other.

Imports and traces make a million objects that stay. To look for garbage among them every 700 new
ones, as Python would, takes a sixth of a start, and every 50,000 a fifteenth. So until a run has
started it hardly looks at all. What is made later, such as figures, may be garbage that holds much
memory; a training step makes none.
"""

from __future__ import annotations

import gc

_AT_START, _LATER = 1_000_000, 50_000


def look_seldom() -> None:
    """Has Python look for garbage every million new objects, until `look` is called."""
    gc.set_threshold(_AT_START)


def look() -> None:
    """Has Python look for garbage from now on."""
    gc.set_threshold(_LATER)
