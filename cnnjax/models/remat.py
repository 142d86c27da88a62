"""Rematerialisation: parts of a model are computed again in the backward pass, not remembered.

A training step remembers, for the backward pass, what every layer got. A part that is
rematerialised (Chen et al., arXiv 1604.06174) remembers only its own input and runs forward a
second time when its gradient is due. Gradients and batch statistics are the same; memory falls by
nearly what is inside the parts, and a step that does so everywhere makes a third more arithmetic.
No model knows of it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Sequence

import flax.linen as nn

from cnnjax.types import UserError


def modules_to_rematerialise(names: Collection[str], patterns: Sequence[str],
                             what: str = "train.remat") -> frozenset[str]:
    """Returns the paths of the modules that some pattern matches wholly, outermost ones alone.

    Args:
      names: of all parameters, such as "stage1_block1/conv1/kernel".
      patterns: regular expressions of module paths, such as "stage[12]_.*".
      what: where the patterns come from, for the message.

    Raises:
      UserError: if a pattern matches no module; the message lists them.
    """
    paths = {"/".join(parts[:i]) for parts in (name.split("/") for name in names)
             for i in range(1, len(parts))}
    found = set()
    for pattern in patterns:
        try:
            hits = {path for path in paths if re.fullmatch(pattern, path)}
        except re.error as error:
            raise UserError(f"{what}: {pattern!r} is not a regular expression: {error}.") from None
        if not hits:
            listing = ", ".join(sorted(path for path in paths if "/" not in path))
            raise UserError(f"{what}: {pattern!r} matches the whole path of no part of the model. "
                            f"It consists of {listing}, and of what is in them.")
        found |= hits
    return frozenset(path for path in found
                     if not any(path.startswith(outer + "/") for outer in found))


@contextlib.contextmanager
def rematerialised(paths: Collection[str]) -> Iterator[None]:
    """Within it, the backward pass of `apply` computes the modules with these paths again.

    Contexts that add arguments to calls, such as `ghost_batches`, are entered within this one.
    """
    inside = []

    def interceptor(call, args, kwargs, context):
        module = context.module
        if context.method_name != "__call__" or inside or "/".join(module.path) not in paths:
            return call(*args, **kwargs)
        inside.append(module)  # The lifted call below comes back here.
        try:
            return nn.remat(type(module).__call__)(module, *args, **kwargs)
        finally:
            inside.pop()

    with nn.intercept_methods(interceptor) if paths else contextlib.nullcontext():
        yield
