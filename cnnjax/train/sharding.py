"""Where the state lies: whole on every device, or its large arrays divided among them.

Dividing parameters, optimiser state and averages (ZeRO, arXiv 1910.02054; "fully sharded data
parallel") leaves each device a share of them. A step gathers the parameters before it computes with
them, and each device updates its own share. The numbers are those of the plain run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cnnjax import trees
from cnnjax.types import UserError

PyTree = Any


def shard_state(state: PyTree, params: PyTree, mesh: Mesh, *, min_size: int = 0,
                rules: Sequence[str] = ()) -> PyTree | None:
    """Returns the sharding of every array of a state; None if all of it is whole everywhere.

    What belongs to a parameter, such as its momentum and its average, lies as the parameter does:
    divided along its longest dimension that the number of devices divides.

    Args:
      state: a `TrainState`, or its shapes.
      params: all parameters, or their shapes; they give the names.
      mesh: with the one axis "data".
      min_size: parameters of at least this many numbers are divided, where a dimension allows
        it; 0 divides none by size.
      rules: regular expressions of the whole names of parameters that are divided besides.

    Raises:
      UserError: if a rule matches no parameter, or one that cannot be divided.
    """
    if not (min_size or rules):
        return None
    # One device, too, tells of a rule that would end the run on several.
    by_rule = trees.named_leaves(trees.regex_mask(params, rules, "sharding.rules"))
    if mesh.size == 1:
        return None
    specs = {}
    for name, leaf in trees.named_leaves(params).items():
        spec = _spec(leaf.shape, mesh.size)
        if by_rule[name] and spec is None:
            raise UserError(f"sharding.rules: {name} has shape {leaf.shape}, and {mesh.size} "
                            "devices divide none of its dimensions. Leave it out: "
                            f"--config.sharding.rules={_without(rules, name)!r}.")
        if spec is not None and (by_rule[name] or 0 < min_size <= leaf.size):
            specs[name] = (spec, leaf.shape)

    def sharding(path, leaf):
        # "opt_state/0/trace/stage1_block1/conv1/kernel" belongs to the parameter it ends in.
        parts = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        owner = next((specs[name] for i in range(len(parts))
                      if (name := "/".join(parts[i:])) in specs), None)
        fits = owner is not None and owner[1] == leaf.shape
        return NamedSharding(mesh, owner[0] if fits else PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, state)


def _spec(shape: Sequence[int], devices: int) -> PartitionSpec | None:
    fitting = [axis for axis, length in enumerate(shape) if length % devices == 0 and length]
    if not fitting:
        return None
    longest = max(fitting, key=lambda axis: (shape[axis], axis))
    return PartitionSpec(*[None] * longest, "data")


def _without(rules: Sequence[str], name: str) -> tuple[str, ...]:
    return tuple(rule for rule in rules if not re.fullmatch(rule, name))
