"""Parameters as names: flattening, regex selection that must match, counting and digests."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from cnnjax.types import UserError

PyTree = Any


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Returns {"stage1/block1/conv1/kernel": leaf}, in the tree's own order."""
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def regex_mask(tree: PyTree, patterns: str | Sequence[str], what: str) -> PyTree:
    """Returns a tree of booleans: whether some pattern matches the whole name of the leaf.

    Args:
      tree: the parameters.
      patterns: one regular expression or several; none selects nothing.
      what: where the patterns come from, for the message, such as "optimizer.decay".

    Raises:
      UserError: if a pattern matches no name; the message lists the names. A pattern that
        silently selects nothing is how layers stay unfrozen or undecayed unnoticed.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    names = list(named_leaves(tree))
    matched = set()
    for pattern in patterns:
        try:
            hits = [n for n in names if re.fullmatch(pattern, n)]
        except re.error as error:
            raise UserError(f"{what}: {pattern!r} is not a regular expression: {error}.") from None
        if not hits:
            listing = "\n  ".join(names)
            raise UserError(f"{what}: {pattern!r} matches the whole name of no parameter. "
                            f"The names are:\n  {listing}")
        matched.update(hits)
    flags = [n in matched for n in names]
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(tree), flags)


def partition(tree: Mapping[str, Any], names: Collection[str]) -> tuple[PyTree, PyTree]:
    """Returns the leaves of a nested dictionary that have these names, and all others.

    Both are nested dictionaries without the branches that they have nothing of; `merge` puts them
    together again.
    """
    chosen, others = {}, {}
    for path, leaf in traverse_util.flatten_dict(tree).items():
        (chosen if "/".join(path) in names else others)[path] = leaf
    return traverse_util.unflatten_dict(chosen), traverse_util.unflatten_dict(others)


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> PyTree:
    """Returns the nested dictionary with the leaves of both; where both have one, the second's."""
    return traverse_util.unflatten_dict(traverse_util.flatten_dict(first)
                                        | traverse_util.flatten_dict(second))


def count(tree: PyTree) -> int:
    """Returns the number of scalars in the tree."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def _whole(leaf: Any) -> np.ndarray:
    """Returns an array as a whole, wherever its parts are."""
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(jax.device_get(leaf))


def sha256(tree: PyTree) -> str:
    """Returns a hex digest over path, dtype, shape and little-endian bytes, in sorted path order.

    Equal digests mean bit-equal trees, on any machine and any number of devices. Where several
    processes hold parts of an array, all of them must ask.
    """
    digest = hashlib.sha256()
    for name, leaf in sorted(named_leaves(tree).items()):
        array = _whole(leaf)
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name}\0{array.dtype.name}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(little).tobytes())
    return digest.hexdigest()
