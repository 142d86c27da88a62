"""How an image becomes the input of an experiment's model, and whether the model can take it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from ml_collections import ConfigDict

from cnnjax import data, models, trees
from cnnjax.types import Preprocess, UserError


def make_preprocess(config: ConfigDict, dataset: data.Dataset, weights: Preprocess | None = None
                    ) -> Preprocess:
    """Returns the preprocessing: the config's; else that of the weights; else the data set's.

    Three means and standard deviations for grey images make RGB images of them, all channels alike.

    Raises:
      UserError: if nobody says a size, or mean and std are not one number for each channel.
    """
    size, shape = config.data.image_size, dataset.train.image_shape
    if not size and shape is None and weights is None:
        raise UserError(f"The images of {dataset.name} are of different sizes: set "
                        "--config.data.image_size=224 (pixels), to which they are resized.")
    mean, std = (config.data[key] or getattr(weights or dataset, key) for key in ("mean", "std"))
    for key, value in (("mean", mean), ("std", std)):
        if not all(isinstance(v, (int, float)) for v in value):
            raise UserError(f"data.{key} is {tuple(value)}; it is a number for each channel.")
        if not takes_images(len(value), dataset):
            whose = ("the weights take" if weights and not config.data[key]
                     else f"data.{key} is for")
            raise UserError(f"The images of {dataset.name} have {dataset.channels} channels, but "
                            f"{whose} {len(value)}. Give --config.data.mean and std one number "
                            "for each channel.")
    if len(mean) != len(std):
        raise UserError(f"data.mean is {tuple(mean)} and data.std {tuple(std)}: give both one "
                        "number for each channel.")
    if min(std) <= 0:
        raise UserError(f"data.std is {tuple(std)}; a standard deviation is above 0.")
    defaults = weights or Preprocess(size=shape and shape[:2], mean=mean, std=std)
    # Images of one size are resized whole, and so is whatever the model labels later.
    whole = shape is not None
    crop = 1.0 if whole else config.data.crop or defaults.crop
    return Preprocess(size=(size, size) if size else defaults.size, mean=tuple(mean),
                      std=tuple(std), crop=crop,
                      interpolation=config.data.interpolation or defaults.interpolation,
                      whole=whole)


def takes_images(channels: int, dataset: data.Dataset) -> bool:
    """Whether the images of a data set are, as RGB if they are grey, those of a model's channels.
    """
    return channels == dataset.channels or (dataset.channels, channels) == (1, 3)


def check_input_size(config: ConfigDict, module: nn.Module, preprocess: Preprocess,
                     key: str | None = None) -> Any:
    """Returns the shapes of the parameters.

    Args:
      config: of the run.
      module: its model.
      preprocess: of the images, with their size.
      key: of the config, which says that size; None for that of the evaluation.

    Raises:
      UserError: if the images are too small for the model; names the smallest size that is not.
    """
    key = key or ("eval.image_size" if config.eval.image_size else "data.image_size")

    def shapes(size):
        return models.variable_shapes(module, (1, *size, preprocess.channels))["params"]

    try:
        return shapes(preprocess.size)
    except UserError as error:
        side = min(preprocess.size)
        for larger in range(side + 1, 513):
            try:
                shapes((larger, larger))
            except UserError:
                continue
            raise UserError(
                f"Images of {preprocess.size[0]}x{preprocess.size[1]} are too small for "
                f"{config.model.name}: "
                + (f"give --config.{key} no size below {larger}. " if key == "train.progressive"
                   else f"set --config.{key}={larger} or more. ")
                + f"({error})") from None
        raise


def at_eval_size(config: ConfigDict, preprocess: Preprocess) -> Preprocess:
    """Returns the preprocessing with `eval.image_size`, which is for all but training.

    Args:
      config: of the run.
      preprocess: of the config, or of an earlier session (`preprocess_of`).
    """
    side = config.eval.image_size or config.data.image_size
    return dataclasses.replace(preprocess, size=(side, side)) if side else preprocess


def preprocess_of(saved: Mapping[str, Any]) -> Preprocess:
    """Returns the preprocessing of the run that made a checkpoint, without its `eval.image_size`.

    Args:
      saved: the record beside the checkpoint.
    """
    found = Preprocess.from_dict(saved["preprocess"])
    return dataclasses.replace(found, size=tuple(saved.get("own_size", found.size)))


def check_train_size(config: ConfigDict, module: nn.Module, preprocess: Preprocess, params: Any,
                     train_size: tuple[int, int]) -> None:
    """Raises a UserError if images of the training size need other parameters."""
    key = "train.progressive" if config.train.progressive else "data.image_size"
    for size in [(side, side) for _, side in config.train.progressive] or [train_size]:
        shapes = check_input_size(config, module, dataclasses.replace(preprocess, size=size), key)
        if trees.count(shapes) != trees.count(params):
            raise UserError(f"{config.model.name} has other parameters for images of another size: "
                            "set --config.eval.image_size=0 and --config.train.progressive='()'.")
