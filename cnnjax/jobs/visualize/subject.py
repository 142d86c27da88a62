"""What the page is about: a model with weights, and images that it has looked at."""

from __future__ import annotations

import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cnnjax.analysis import LayerField, endpoint_fields, summarize
from cnnjax.analysis.receptive_field import UnknownOperation
from cnnjax.analysis.rendering import as_rgb, colors_shown, fitted
from cnnjax.analysis.summary import Summary
from cnnjax.analysis.survey import Survey, map_endpoints, survey
from cnnjax.cores import available_cores
from cnnjax.data import inputs
from cnnjax.jobs.images import Images
from cnnjax.types import UserError
from cnnjax.weights import Pretrained

SIDE = 112  # Of a tile, in pixels.


@dataclasses.dataclass(frozen=True)
class Settings:
    """The numbers of `config.visualize`, and the run's seed."""

    shown: int
    channels: int
    patches: int
    ascent: int
    integration: int
    umap: bool
    seed: int


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model and what it has seen.

    Attributes:
      model: with its weights.
      settings: how much is shown.
      pixels: uint8 (N, H, W, C), of the model's size.
      names: of the images.
      labels: (N,) int, or None where nobody knows.
      classes: the names of the classes.
      what: the images, in words.
      fields: of the map endpoints; none where they are not known.
      maps: the endpoints to show, in order.
      seen: what the model made of the images.
      remarks: for the reader: what is left out, and why.
    """

    model: Pretrained
    settings: Settings
    pixels: np.ndarray
    names: tuple[str, ...]
    labels: np.ndarray | None
    classes: tuple[str, ...]
    what: str
    fields: dict[str, LayerField]
    maps: tuple[str, ...]
    seen: Survey
    remarks: tuple[str, ...]

    @functools.cached_property
    def summary(self) -> Summary:
        """The model layer by layer, for one of the images."""
        return summarize(self.model.module, (1, *self.pixels.shape[1:]))

    @functools.cached_property
    def said(self) -> np.ndarray:
        """(N,) the classes that the model puts first."""
        return self.seen.logits.argmax(1)

    @property
    def last_map(self) -> str:
        """The last map that has more than one position, if one has."""
        sizes = {name: tuple(self.seen.map_size[name]) for name in self.maps}
        return next((name for name in reversed(self.maps) if sizes[name] != (1, 1)), self.maps[-1])

    def inputs(self, indices) -> jax.Array:
        """Returns images as the model takes them."""
        return inputs.normalized(jnp.asarray(self.pixels[np.asarray(indices)]),
                                     self.model.preprocess)

    def tile(self, index: int) -> np.ndarray:
        """Returns an image as a picture of about a tile's size."""
        return fitted(as_rgb(self.pixels[index]), SIDE)

    def answer(self, index: int) -> str:
        """Returns what the model says about an image, and how sure it is."""
        probability = self.seen.probabilities[index]
        return f"{self.classes[probability.argmax()]}, {probability.max():.0%}"

    def chosen(self, count: int) -> list[int]:
        """Returns images of as many classes as there are, the first one of each.

        Where the true classes are not known they are what the model says most often.
        """
        first = self.classes_seen()
        chosen = [int(np.flatnonzero(self.kinds == kind)[0]) for kind in first[:count]]
        rest = [i for i in range(len(self.kinds)) if i not in chosen]
        return chosen + rest[:count - len(chosen)]

    @property
    def kinds(self) -> np.ndarray:
        """(N,) the true classes, or if nobody knows them what the model says."""
        return self.said if self.labels is None else self.labels

    def classes_seen(self) -> list[int]:
        """Returns the classes of the images, in order, or the most frequent first if said."""
        classes, counts = np.unique(self.kinds, return_counts=True)
        if self.labels is None:
            classes = classes[np.argsort(-counts, kind="stable")]
        return classes.tolist()


def look(config: ConfigDict, model: Pretrained, images: Images) -> Subject:
    """Reads the images and shows them to the model.

    Raises:
      UserError: if fewer than two images can be read, or the model has no endpoint that is a map.
    """
    options = config.visualize
    pixels, labels, names, bad = _read(images, model, options.count)
    remarks = [f"{len(bad)} images could not be read and are left out: {bad[0]}"] if bad else []
    if note := colors_shown(pixels.shape[-1]):
        remarks.append(note)
    shape = (1, *pixels.shape[1:])
    maps = map_endpoints(model.module, model.variables, shape, tuple(options.endpoints) or None)
    if not maps:
        raise UserError(f"{model.name} has no endpoint that is a map of (N, h, w, C), so that "
                        "there is nothing to look into. Its endpoints: "
                        f"{', '.join(model.module.endpoints)}.")
    try:
        fields = endpoint_fields(model.module, shape, maps)
    except UnknownOperation as error:
        fields, remarks = {}, [*remarks, f"Receptive fields are left out: {error}"]
    if not images.labelled:
        remarks.append("The true classes of these images are not known, so the parts that need "
                       "them are left out: accuracy, confusions and mistakes. Colours on the map "
                       "are what the model says.")
    size = options.batch_size
    seen = survey(model.module, model.variables, (
        inputs.normalized(jnp.asarray(pixels[i:i + size]), model.preprocess)
        for i in range(0, len(pixels), size)), maps)
    return Subject(model, _settings(config), pixels, names, labels if images.labelled else None,
                   images.classes, images.what, fields, maps, seen, tuple(remarks))


def _settings(config: ConfigDict) -> Settings:
    options = config.visualize
    return Settings(seed=config.seed, **{
        key.name: options[key.name] for key in dataclasses.fields(Settings) if key.name != "seed"})


def _read(images: Images, model: Pretrained, count: int):
    """Pixels, labels and names of evenly spaced images, and messages about the unreadable ones."""
    total = images.count
    indices = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()

    with ThreadPoolExecutor(available_cores()) as pool:
        found = list(pool.map(lambda i: images.fitted(i, model.preprocess), indices))
    good = [(i, item) for i, item in zip(indices, found, strict=True)
            if not isinstance(item, UserError)]
    bad = [str(item) for item in found if isinstance(item, UserError)]
    if len(good) < 2:
        raise UserError(f"{images.what}: --job=visualize compares images and needs two or more; "
                        f"{len(good)} can be read." + (f"\n  {bad[0]}" if bad else ""))
    labels = np.array([-1 if label is None else label for _, (_, label) in good])
    return (np.stack([image for _, (image, _) in good]), labels,
            tuple(images.caption(i) for i, _ in good), bad)
