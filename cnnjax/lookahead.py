"""A queue of things that have been begun: batches on their way, results that the device makes."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def ahead(items: Iterable[Any], begin: Callable[[Any], T], depth: int = 2) -> Iterator[T]:
    """Yields `begin(item)` for each item, having begun `depth` more before each is yielded."""
    queue = collections.deque()
    for item in items:
        queue.append(begin(item))
        if len(queue) > depth:
            yield queue.popleft()
    while queue:
        yield queue.popleft()
