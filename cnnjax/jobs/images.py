"""The images that --job=predict and --job=visualize are about: files, or the evaluation split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from cnnjax import data
from cnnjax.data import inputs
from cnnjax.data.folder import list_images, not_read
from cnnjax.files import expanded
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs import pretrained
from cnnjax.jobs.model_input import takes_images
from cnnjax.jobs.named_data import warn_of_another_division
from cnnjax.types import Preprocess, UserError
from cnnjax.weights import Pretrained


@dataclasses.dataclass(frozen=True)
class Images:
    """Images, some of which may turn out to be unreadable.

    Attributes:
      count: how many there are.
      name: index -> the image's file, or "test[7]".
      read: index -> (uint8 [h, w, C], the true class or None); raises a `UserError` for an image
        that cannot be read.
      what: in words.
      classes: the names of the model's classes.
      labelled: whether the true classes are known.
      not_read: how many other files there are, by their extension.
    """

    count: int
    name: Callable[[int], str]
    read: Callable[[int], tuple[np.ndarray, int | None]]
    what: str
    classes: tuple[str, ...]
    labelled: bool
    not_read: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def fitted(self, index: int, preprocess: Preprocess
               ) -> tuple[np.ndarray, int | None] | UserError:
        """Returns an image in a model's size, and its true class; or what is wrong with it."""
        try:
            image, label = self.read(index)
        except UserError as error:
            return error
        return inputs.fitted(image, preprocess), label

    def caption(self, index: int) -> str:
        """Returns the name without folders, or the tar file, before it."""
        return Path(self.name(index).rpartition(": ")[2]).name


def open_images(config: ConfigDict, model: Pretrained, path: str | None) -> Images:
    """Returns the image files of a folder, or the evaluation split of the config if that is None.

    Raises:
      UserError: if there are none, or they are not images of the model's classes or channels.
    """
    if path:
        files = list_images(path)
        channels = model.preprocess.channels
        if channels not in (1, 3):
            raise UserError(f"Image files have 1 or 3 channels; {model.name} takes {channels}. "
                            "Without --images the evaluation split of the config is taken; name "
                            "other images with --config.data.name=npz:PATH.")
        return Images(len(files), lambda i: str(files[i]),
                      lambda i: (data.read_image(files[i], channels=channels), None), path,
                      pretrained.names_of(model), labelled=False, not_read=not_read(expanded(path)))
    dataset = experiment_lib.open_dataset(config)
    if not (pretrained.knows_classes(model, dataset)
            and takes_images(model.preprocess.channels, dataset)):
        raise UserError("Say which images: --images=FOLDER. (Without it the evaluation split of "
                        f"the config is taken, but the classes or channels of {dataset.name} are "
                        f"not those of {model.where}.)")
    warn_of_another_division(dataset, config, model.record)
    split = dataset.eval
    return Images(len(split), split.name_of, lambda i: split.source[i],
                  f"{dataset.name}, {split.name}", dataset.class_names, labelled=True)
