"""Weights that a run starts from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from cnnjax import config as config_lib
from cnnjax import models, trees, weights
from cnnjax.data import Dataset
from cnnjax.jobs import pretrained
from cnnjax.jobs.named_data import warn_of_another_division
from cnnjax.jobs.phases import NO_WEIGHTS
from cnnjax.train.state import TrainState
from cnnjax.types import Preprocess, UserError

PyTree = Any
# Arguments of models that change what their parameters compute, and the shape of none.
_NOT_IN_SHAPES = ("activation", "bn_epsilon", "connections", "last_pool", "padding",
                  "response_norm")


@dataclasses.dataclass(frozen=True)
class InitialWeights:
    """What was read from `weights.path`.

    Attributes:
      path: as the config gives it.
      variables: {"params": …, "batch_stats": …}.
      preprocess: how images became this model's input.
      knows_classes: whether their head is for the classes of the data set.
      arguments: of their model.
      adapted_from: channels of the images that they were for, if those are others now.
    """

    path: str
    variables: PyTree
    preprocess: Preprocess
    knows_classes: bool = False
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    adapted_from: int | None = None

    @property
    def what(self) -> str:
        """The path, and what was done to the weights."""
        return self.path + (f", the first layer adapted from {self.adapted_from} to "
                            f"{self.preprocess.channels} channels" if self.adapted_from else "")


def load(config: ConfigDict, dataset: Dataset, trains: bool = True) -> InitialWeights | None:
    """Reads the weights that the config names; None if it names none.

    For images of other channels than theirs they are adapted as `weights.load_weights` does. Grey
    images become what the weights take, unless `data.mean` is one number.

    Args:
      config: names them and their model.
      dataset: whose classes they may know.
      trains: whether a run starts from them, whose config then must have their model's arguments.

    Raises:
      UserError: if they cannot be read or are another model's.
    """
    path = config.weights.path
    if path is None or path == NO_WEIGHTS:
        return None
    overrides = {k: v for k, v in config_lib.model_overrides(config).items() if k != "dtype"}
    channels = len(config.data.mean or ()) or (dataset.channels if dataset.channels > 1 else None)
    try:
        found = weights.load(config.model.name, path, dataset.num_classes, in_chans=channels,
                             tag=config.weights.tag, **overrides)
    except UserError as error:
        raise UserError(f"weights.path={path}: {error}") from error
    warn_of_another_division(dataset, config, found.record, run=path)
    ours = models.create_model(config.model.name, dataset.num_classes, **overrides)
    for key in _NOT_IN_SHAPES if trains else ():
        if (value := getattr(found.module, key, None)) != getattr(ours, key, None):
            raise UserError(f"weights.path={path}: these were trained with {key}={value}: set "
                            f"--config.model.{key}={value}.")
    return InitialWeights(path, found.variables, found.preprocess,
                          pretrained.knows_classes(found, dataset),
                          {k: v for k, v in found.arguments.items() if k != "dtype"},
                          found.adapted_from)


def keep_head(weights: InitialWeights, config: ConfigDict, params: PyTree) -> bool:
    """Whether the head, too, starts as that of the weights.

    So it does if that knows the classes of the data and has the shape of the one in `params`, which
    after flattened maps depends on the size of the images; and no phase of its own trains a new
    one.
    """
    theirs = trees.named_leaves(weights.variables["params"])
    fits = all(_fits(theirs, name, leaf) for name, leaf in trees.named_leaves(params).items()
               if name.startswith("head/"))
    return weights.knows_classes and fits and not config_lib.in_steps(
        config.head, "", batch_size=1, examples=1, where="head")


def check_fit(weights: InitialWeights, state: TrainState) -> None:
    """Raises a UserError unless a state, or its shapes, finds all it needs among the weights.

    The head may be new, and auxiliary heads, see `put_into`.
    """
    for kind, ours, theirs in (
            ("parameters", state.params, weights.variables["params"]),
            ("batch statistics", state.batch_stats, weights.variables.get("batch_stats", {}))):
        theirs = trees.named_leaves(theirs)
        wrong = [f"{name}: {theirs[name].shape if name in theirs else 'not'} there, {leaf.shape} "
                 "here" for name, leaf in trees.named_leaves(ours).items()
                 if not _fits(theirs, name, leaf) and not name.startswith(("head/", "aux"))]
        if wrong:
            raise UserError(f"The {kind} in {weights.path} don't fit this model:\n  "
                            + "\n  ".join(wrong[:20]))


def put_into(state: TrainState, weights: InitialWeights, sharding: jax.sharding.Sharding,
             with_head: bool = False) -> TrainState:
    """Returns the state with the weights; without their head, that is new and, if linear, zero.

    At zero every class is as likely as any other, whatever the scale of the features, as in
    arXiv 2010.11929, section 3.2. The initialisers of some models, such as EfficientNet's uniform
    one, are of order 1 for two classes: on 244 images that cost 2.6 %. A head that is no linear
    layer, SqueezeNet's, starts as its model draws it: before a ReLU zero has no gradient.
    Auxiliary heads are taken as far as they fit. For weights that `check_fit` has seen.
    """
    def put(array):  # Each process has read the same.
        return jax.make_array_from_process_local_data(sharding, array, array.shape)

    linear = state.params["head"]["kernel"].ndim == 2

    def replaced(ours, theirs):
        theirs, leaves = trees.named_leaves(theirs), []
        for name, leaf in trees.named_leaves(ours).items():
            if name.startswith("head/") and not with_head:
                leaf = put(np.zeros(leaf.shape, leaf.dtype)) if linear else leaf
            elif _fits(theirs, name, leaf):
                leaf = put(np.asarray(theirs[name]).astype(leaf.dtype))
            leaves.append(leaf)
        return jax.tree.unflatten(jax.tree.structure(ours), leaves)

    return state.replace(
        params=replaced(state.params, weights.variables["params"]),
        batch_stats=replaced(state.batch_stats, weights.variables.get("batch_stats", {})))


def _fits(theirs: Mapping[str, Any], name: str, leaf: Any) -> bool:
    return name in theirs and theirs[name].shape == leaf.shape
