"""Ghost batch normalisation: statistics of small groups of a large batch, and no model knows.

What a batch norm makes of an image depends on the images beside it, and that noise is weaker the
larger the batch. Taking the statistics of groups of the size that a recipe was tuned for keeps it
(Hoffer et al., arXiv 1705.08741, section 4), and where the groups lie within the devices' rows the
devices exchange no statistics.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import flax.linen as nn

from cnnjax.models.layers import BatchNorm


@contextlib.contextmanager
def ghost_batches(size: int) -> Iterator[None]:
    """Within it, batch norms that train take the statistics of `size` consecutive rows each.

    Running statistics move towards the mean over the groups. 0 leaves the whole batch as one.
    """
    def interceptor(call, args, kwargs, context):
        if isinstance(context.module, BatchNorm) and context.method_name == "__call__":
            return call(*args, **kwargs, ghost_size=size)
        return call(*args, **kwargs)

    with nn.intercept_methods(interceptor) if size else contextlib.nullcontext():
        yield
