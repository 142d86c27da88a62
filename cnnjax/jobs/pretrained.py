"""The model that --job=predict, --job=visualize and --job=export work with."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax
import jax
from ml_collections import ConfigDict

from cnnjax import config as config_lib
from cnnjax import weights
from cnnjax.checkpoint import Checkpoints
from cnnjax.data import Dataset
from cnnjax.jobs import workdir
from cnnjax.jobs.model_input import at_eval_size, preprocess_of
from cnnjax.jobs.phases import NO_WEIGHTS
from cnnjax.types import Preprocess, UserError, did_you_mean

# What may differ from the run's config; how its images become the model's input may not.
_WHICH_IMAGES = ("data.name", "data.train_split", "data.eval_split", "data.val_fraction",
                 "data.split_seed")


def open_model(config: ConfigDict, folder: Path, dtype: Any) -> weights.Pretrained:
    """Returns a model with weights and all that belongs to them.

    In this order: 1. the checkpoint `config.eval.checkpoint` of the workdir, if it has any;
    2. `config.weights.path`. A run that started from pretrained weights has its own by then.

    Raises:
      UserError: if there is neither, the config is not that of the workdir, or the model does not
        take images of the size that the config asks for.
    """
    arguments = {"dtype": dtype} | config_lib.model_overrides(config)
    if workdir.has_checkpoints(folder):
        checkpoints = Checkpoints(folder / workdir.CHECKPOINTS, read_only=True,
                                  metric=config.checkpoint.metric)
        step = checkpoints.find(config.eval.checkpoint)
        record = checkpoints.record(step)
        workdir.check_same_experiment(record["config"], config, folder, besides=_WHICH_IMAGES)
        found = weights.load(config.model.name, folder / workdir.CHECKPOINTS / str(step),
                             **arguments)
        return _at_size(found, at_eval_size(config, preprocess_of(record)),
                        "eval.image_size" if config.eval.image_size else "data.image_size")
    if config.weights.path in (None, NO_WEIGHTS):
        workdir.check_one_run(folder)
        raise UserError(f"There is no trained model in {folder}. Give a workdir that has trained, "
                        "--workdir=DIR, or pretrained weights, --model=NAME --weights=FILE.")
    found = weights.load(config.model.name, config.weights.path, tag=config.weights.tag,
                         **arguments)
    return _at_size(found, _overridden(found.preprocess, config), "data.image_size")


def knows_classes(model: weights.Pretrained, dataset: Dataset) -> bool:
    """Whether the outputs of a model are the classes of a data set, as far as anybody says."""
    names = model.class_names
    # Published ImageNet weights get names that a data set's need not equal, for the same classes in
    # the same order.
    own = names and names != weights.imagenet.class_names()
    return (not model.new_head and model.module.num_classes == dataset.num_classes
            and (not own or names == tuple(dataset.class_names)))


def what_differs(names: Sequence[str], others: Sequence[str]) -> str:
    """Returns how a data set's classes differ from those of a model, as sentences."""
    lacks = [name for name in others if name not in names]
    has = [name for name in names if name not in others]
    if not lacks and not has:
        return f"they are {list(names)}, in this order, and those {list(others)}."
    parts = [f"{verb} {', '.join(map(repr, found[:5]))}" + (
        f" and {len(found) - 5:,} more" if len(found) > 5 else "")
        for verb, found in (("it lacks", lacks), ("it has besides", has)) if found]
    return "; ".join(parts) + "." + (did_you_mean(has[0], lacks) if has else "")


def names_of(model: weights.Pretrained) -> tuple[str, ...]:
    """Returns the names of a model's classes: "class 0", … where nobody knows them."""
    return model.class_names or tuple(f"class {i}" for i in range(model.module.num_classes))


def _at_size(found: weights.Pretrained, preprocess: Preprocess, key: str) -> weights.Pretrained:
    """Returns the model with that preprocessing, whose size the key of the config gives."""
    if preprocess.size != found.preprocess.size:
        (height, width), (own, wide) = preprocess.size, found.preprocess.size
        images = jax.ShapeDtypeStruct((1, height, width, preprocess.channels), jax.numpy.float32)
        try:
            jax.eval_shape(functools.partial(found.module.apply, train=False), found.variables,
                           images)
        except (UserError, flax.errors.ScopeParamShapeError) as error:
            raise UserError(f"Images of {height}x{width} do not fit {found.name}: "
                            f"{str(error).splitlines()[0]} Set --config.{key}=0, for the "
                            f"{own}x{wide} that its weights come with.") from None
    return found._replace(preprocess=preprocess)


def _overridden(preprocess: Preprocess, config: ConfigDict) -> Preprocess:
    """Returns the preprocessing with what the config has of its own."""
    changes = {key: tuple(config.data[key]) for key in ("mean", "std") if config.data[key]}
    for key, value in changes.items():
        if len(value) != preprocess.channels:
            raise UserError(f"data.{key} is {value}, but the model takes images of "
                            f"{preprocess.channels} channels: give one number each.")
    if min(changes.get("std", (1,))) <= 0:
        raise UserError(f"data.std is {changes['std']}; a standard deviation is above 0.")
    changes |= {key: config.data[key] for key in ("crop", "interpolation") if config.data[key]}
    if config.data.crop:
        changes["whole"] = False
    if size := config.data.image_size:
        changes["size"] = (size, size)
    return dataclasses.replace(preprocess, **changes)
