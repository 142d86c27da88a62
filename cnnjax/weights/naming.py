"""What another code base calls the parameters of a family, and how it lays them out.

A `Naming` is a table of regular expressions over the paths of our layers. It is read in one
direction only, from ours to theirs: a model's variables give the paths, so loading looks up each of
its own parameters in the file, and whatever of the file is left over is found by difference.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from cnnjax import trees
from cnnjax.types import UserError

PyTree = Any
# The match, and the paths of all layers of the model, for names that depend on their neighbours.
Rename = Callable[[re.Match, frozenset[str]], str]

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean",
           "var": "running_var"}


class Layout(NamedTuple):
    """How an array of ours becomes one of theirs, and a view of theirs that reshaped is ours."""

    to_torch: Callable[[np.ndarray], np.ndarray]
    from_torch: Callable[[np.ndarray], np.ndarray]


# Convolutions: (height, width, in, out) here, (out, in, height, width) there.
CONV = Layout(lambda a: a.transpose(3, 2, 0, 1), lambda a: a.transpose(2, 3, 1, 0))
# Dense layers: (in, out) here, (out, in) there.
DENSE = Layout(np.transpose, np.transpose)
# A dense layer here that is a 1x1 convolution there.
ONE_BY_ONE = Layout(lambda a: a.T[:, :, None, None], lambda a: a[:, :, 0, 0].T)
# One number a channel, (C,) here and (C, 1, 1) there.
PER_CHANNEL = Layout(lambda a: a[:, None, None], lambda a: a[:, 0, 0])
SAME = Layout(lambda a: a, lambda a: a)


def flattened(height: int, width: int) -> Layout:
    """Returns the layout of a dense layer on a flattened map, which torch flattens channels first.

    The inputs are (height, width, channels) in order here and (channels, height, width) there.
    """
    def to_torch(a):
        a = a.reshape(height, width, -1, a.shape[-1])
        return a.transpose(3, 2, 0, 1).reshape(a.shape[-1], -1)

    def from_torch(a):
        return a.reshape(a.shape[0], -1, height, width).transpose(2, 3, 1, 0)

    return Layout(to_torch, from_torch)


def flattened_square(channels: int) -> Layout:
    """Returns `flattened` for a square map of so many channels, whatever its size.

    Raises:
      UserError: of the layout, for a map that is not square.
    """
    def of(inputs):
        side = math.isqrt(inputs // channels)
        if side * side * channels != inputs:
            raise UserError(f"A dense layer takes {inputs} inputs, which are no square map of "
                            f"{channels} channels: for images that are not square the weights "
                            "have no names in torch. Keep them as a checkpoint.")
        return flattened(side, side)

    return Layout(lambda a: of(a.shape[0]).to_torch(a), lambda a: of(a.shape[1]).from_torch(a))


@dataclasses.dataclass(frozen=True)
class Naming:
    """The names and layouts of one code base for one family of models.

        Naming("torchvision", (
            (r"stem_conv", "conv1"),
            (r"stage(\\d+)_block(\\d+)/conv(\\d)", "layer{1}.{2-1}.conv{3}"),
            (r"head", "fc")))

    Attributes:
      source: whose names they are, such as "torchvision"; unique within a family.
      rules: (pattern, name) of layers. A layer is a parameter's path without collection and leaf,
        such as "stage1_block1/conv1". The first pattern that matches all of it gives the name, in
        which {2} is the second group, {2-1} and {2+1} that number less or more one. A name may
        also be a function of the match and of the set of all layers.
      layouts: (pattern, layout) of the kernels, or other arrays, that are laid out unusually;
        patterns as above. 4-D kernels are otherwise convolutions and 2-D ones dense layers.
      leaves: (our name, theirs) of arrays that are no kernel, scale, bias or statistic, where the
        two differ.
      arguments: (pattern of a name of ours, arguments of `create_model`) of models that compute
        otherwise there than the table's, which the tensors don't show.
    """

    source: str
    rules: Sequence[tuple[str, str | Rename]]
    layouts: Sequence[tuple[str, Layout]] = ()
    leaves: Sequence[tuple[str, str]] = ()
    arguments: Sequence[tuple[str, Mapping[str, Any]]] = ()

    def arguments_of(self, model: str) -> dict[str, Any]:
        """Returns the arguments of `create_model` that this code base's model of a name has."""
        return {key: value for pattern, arguments in self.arguments
                if re.fullmatch(pattern, model) for key, value in arguments.items()}

    def names(self, variables: PyTree) -> dict[str, str]:
        """Returns {"params/stage1_block1/conv1/kernel": "layer1.0.conv1.weight"} of all leaves.

        Args:
          variables: {"params": …, "batch_stats": …} of arrays or their shapes.

        Raises:
          KeyError: if no rule matches a layer. A naming belongs to its family: that is a bug.
        """
        paths = {path: _split(path) for path in trees.named_leaves(variables)}
        layers = frozenset(layer for layer, _ in paths.values())
        prefixes = {layer: self._name(layer, layers) for layer in layers}
        called = {**_LEAVES, **dict(self.leaves)}
        return {path: ".".join(filter(None, (prefixes[layer], called.get(leaf, leaf))))
                for path, (layer, leaf) in paths.items()}

    def layout(self, path: str, ndim: int) -> Layout:
        """Returns the layout of the array of `ndim` axes at a path, as "params/head/kernel"."""
        layer, leaf = _split(path)
        if leaf == "kernel" or leaf not in _LEAVES:
            for pattern, layout in self.layouts:
                if re.fullmatch(pattern, layer):
                    return layout
        if leaf != "kernel":
            return SAME
        return {4: CONV, 2: DENSE}[ndim]

    def _name(self, layer: str, layers: frozenset[str]) -> str:
        for pattern, name in self.rules:
            if match := re.fullmatch(pattern, layer):
                return _filled(name, match) if isinstance(name, str) else name(match, layers)
        raise KeyError(f"the {self.source} naming has no rule for the layer {layer!r}")


def to_torch(naming: Naming, variables: PyTree) -> dict[str, np.ndarray]:
    """Returns variables as a state dict: their names, their layouts, the same dtypes."""
    leaves = trees.named_leaves(variables)
    return {key: np.ascontiguousarray(naming.layout(path, np.ndim(leaves[path])).to_torch(
        np.asarray(leaves[path]))) for path, key in naming.names(variables).items()}


def shapes_in_torch(naming: Naming, variables: PyTree) -> dict[str, tuple[int, ...]]:
    """Returns the shape that each tensor has in a state dict; `variables` may be shapes alone."""
    leaves = trees.named_leaves(variables)
    return {key: naming.layout(path, len(leaves[path].shape)).to_torch(
        np.broadcast_to(np.float32(0), leaves[path].shape)).shape
        for path, key in naming.names(variables).items()}


def from_torch(naming: Naming, state: Mapping[str, np.ndarray], like: PyTree) -> PyTree:
    """Returns variables in the structure of `like`, read from a state dict that has all of them.

    Args:
      naming: of the state dict.
      state: name -> array. Names that `like` has no use for are ignored.
      like: variables, or their shapes.

    Raises:
      KeyError: if a name is not there.
      ValueError: if an array has another size.
    """
    return jax.tree.map(lambda leaf, view: view.reshape(leaf.shape), like,
                        views(naming, state, like))


def views(naming: Naming, state: Mapping[str, np.ndarray], like: PyTree) -> PyTree:
    """Returns what `from_torch` does, but for a reshape, which may take a copy: views."""
    names, leaves = naming.names(like), trees.named_leaves(like)
    found = [naming.layout(path, len(leaf.shape)).from_torch(np.asarray(state[names[path]]))
             for path, leaf in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(like), found)


def _split(path: str) -> tuple[str, str]:
    """"params/stage1_block1/conv1/kernel" -> ("stage1_block1/conv1", "kernel")."""
    scope, _, leaf = path.rpartition("/")
    return scope.partition("/")[2], leaf


def _filled(name: str, match: re.Match) -> str:
    """Returns a template with its groups filled in, plus or minus one where it says so."""
    def fill(token):
        group, shift = match[int(token[1])], token[2]
        return group if shift is None else str(int(group) + int(shift))
    return re.sub(r"\{(\d+)([+-]\d+)?\}", fill, name)
