"""Which tensor of a source is which parameter of a model, and whether all of them are there."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import models, trees
from cnnjax.types import UserError
from cnnjax.weights import naming as naming_lib
from cnnjax.weights.naming import Naming
from cnnjax.weights.namings import NAMINGS

PyTree = Any
HEAD = "params/head/kernel"
_LISTED = 20


class _Own(Naming):
    """Our own paths and layouts, as a checkpoint has them."""

    def names(self, variables: PyTree) -> dict[str, str]:
        return {path: path for path in trees.named_leaves(variables)}

    def layout(self, path: str, ndim: int) -> naming_lib.Layout:
        return naming_lib.SAME


OWN = _Own("cnnjax", ())


class Match(NamedTuple):
    """Tensors that fit a model.

    Attributes:
      naming: whose names they have.
      variables: {"params": …, "batch_stats": …} of arrays of any dtype, views of the tensors; the
        kernel of a dense layer on a flattened map is still (height, width, in, out).
      channels: of the images, as the first convolution has them.
    """

    naming: Naming
    variables: PyTree
    channels: int


def shapes(module: nn.Module, size: tuple[int, int], channels: int) -> PyTree:
    """Returns the shapes of a module's variables for images of (height, width), channels."""
    return models.variable_shapes(module, (1, *size, channels))


def differing(one: PyTree, other: PyTree) -> list[str]:
    """Returns the paths of leaves that both trees have, in other shapes."""
    others = trees.named_leaves(other)
    return [path for path, leaf in trees.named_leaves(one).items()
            if path in others and others[path].shape != leaf.shape]


def best_naming(module: nn.Module, tensors: Mapping[str, Any], like: PyTree) -> Naming:
    """Returns the naming under which the fewest names are missing or left over."""
    def misses(naming):
        return len(set(naming.names(like).values()) ^ tensors.keys())
    return min((*NAMINGS.get(type(module), ()), OWN), key=misses)


def classes_of(naming: Naming, tensors: Mapping[str, np.ndarray], like: PyTree) -> int | None:
    """Returns how many outputs the head in `tensors` has; None if there is no such head."""
    kernel = trees.named_leaves(like).get(HEAD)
    found = tensors.get(naming.names(like).get(HEAD, ""))
    if kernel is None or found is None or not found.ndim:
        return None
    # Kernels of torch begin with the outputs, whatever their layout; ours end with them.
    return found.shape[-1] if naming is OWN else found.shape[0]


def lacks_head(naming: Naming, tensors: Mapping[str, Any], like: PyTree) -> bool:
    """Whether a model's head, and nothing else, is missing among the tensors."""
    names = naming.names(like)
    head = {key for path, key in names.items() if path.startswith("params/head/")}
    return bool(head) and set(names.values()) - tensors.keys() == head


def fit(name: str, module: nn.Module, tensors: Mapping[str, np.ndarray], naming: Naming,
        size: tuple[int, int], channels: int, where: str, hint: str = "") -> Match:
    """Returns the variables of a module from a state dict that has exactly its tensors.

    The images may have another number of channels than `channels` if nothing but the first
    convolution shows it. Tensors of auxiliary heads that the module has not are left out, with a
    line in the log.

    Args:
      name: of the model, for messages.
      module: with as many classes as the tensors have.
      tensors: name -> array.
      naming: of the tensors.
      size: (height, width) of the images; parameters of a head on a flattened map depend on it.
      channels: expected of the images.
      where: the tensors are from, for messages.
      hint: for messages.

    Raises:
      UserError: lists the tensors that are missing, left over or of another shape.
    """
    like = shapes(module, size, channels)
    expected = naming_lib.shapes_in_torch(naming, like)
    if other := _channels_of(naming, tensors, like):
        retraced = naming_lib.shapes_in_torch(naming, shapes(module, size, other))
        if not _misshaped(retraced, tensors):
            like, expected, channels = shapes(module, size, other), retraced, other
    extra = sorted(tensors.keys() - expected.keys())
    if extra:
        auxiliary = _auxiliary_names(module, naming, size, channels) & set(extra)
        extra = [key for key in extra if key not in auxiliary]
        if auxiliary:
            logging.getLogger("cnnjax").warning(
                "%s: left out %d tensors of auxiliary heads; aux_logits=True keeps them.", where,
                len(auxiliary))
    missing = [key for key in expected if key not in tensors]
    misshaped = _misshaped(expected, tensors)
    if missing or extra or misshaped:
        raise UserError(_listing(name, naming, where, hint, len(expected), missing, extra,
                                 [f"{key} is {tensors[key].shape}, here {expected[key]}"
                                  for key in misshaped]))
    try:
        variables = naming_lib.views(naming, tensors, like)
    except ValueError as error:
        raise UserError(f"{where} does not fit {name}: {error}.") from None
    return Match(naming, variables, channels)


def adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Returns the kernel of a first convolution for images of another number of channels.

    As timm does: for one channel the sum over the old ones, which on a grey image is what the old
    kernel gave on its three equal channels; for more, the old ones repeated in turn, times
    old / new.

    Args:
      kernel: (height, width, old channels, features).
      channels: the new ones.
    """
    kernel = np.asarray(kernel, np.float32)
    old = kernel.shape[2]
    if channels == 1:
        return kernel.sum(2, keepdims=True)
    repeated = kernel[:, :, np.arange(channels) % old]
    return repeated * np.float32(old / channels)


def fresh(module: nn.Module, size: tuple[int, int], channels: int,
          paths: Sequence[str], rng: jax.Array) -> dict[str, jax.Array]:
    """Returns some leaves of module.init(rng, …): no others are computed."""
    def pick(key):
        leaves = trees.named_leaves(module.init(key, jnp.zeros((1, *size, channels)), train=False))
        return {path: leaves[path] for path in paths}
    return jax.jit(pick)(rng)


def _misshaped(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, np.ndarray]
               ) -> list[str]:
    return [key for key, shape in expected.items()
            if key in tensors and tensors[key].shape != shape]


def _channels_of(naming: Naming, tensors: Mapping[str, np.ndarray], like: PyTree) -> int | None:
    """Returns the input channels of the one 4-D kernel that differs in nothing else, or None."""
    found, names = set(), naming.names(like)
    for path, leaf in trees.named_leaves(like).items():
        array = tensors.get(names[path])
        if array is None or array.ndim != 4 or len(leaf.shape) != 4 or not path.endswith("kernel"):
            continue
        *there, inputs, outputs = naming.layout(path, 4).from_torch(array).shape
        if inputs != leaf.shape[2] and (*there, outputs) == (*leaf.shape[:2], leaf.shape[3]):
            found.add(inputs)
    return found.pop() if len(found) == 1 else None


def _auxiliary_names(module: nn.Module, naming: Naming, size: tuple[int, int], channels: int
                     ) -> set[str]:
    """Returns the names that the module would have more with auxiliary heads."""
    if getattr(module, "aux_logits", True):
        return set()
    return set(naming.names(shapes(module.clone(aux_logits=True), size, channels)).values())


def _listing(name: str, naming: Naming, where: str, hint: str, total: int, *kinds: list[str]
             ) -> str:
    lines = [f"{where} does not fit {name} (of whose {total} tensors, by the names of "
             f"{naming.source}, {total - len(kinds[0]) - len(kinds[2])} are there as they should "
             "be):"]
    left = _LISTED
    for what, keys in zip(("missing", "not in the model", "of another shape"), kinds, strict=True):
        if keys:
            shown = keys[:max(left, 3)]
            left -= len(shown)
            more = f", and {len(keys) - len(shown)} more" if len(keys) > len(shown) else ""
            lines.append(f"  {len(keys)} {what}: {', '.join(shown)}{more}")
    return "\n".join([*lines, *([hint] if hint else [])])
