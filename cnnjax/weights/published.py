"""The preprocessing of published weights, from a table, a timm config, or the model's own size.

published.csv has torchvision 0.28's `Weights.transforms()` and timm 1.0.31's pretrained_cfg (at
timm's test size, by which accuracies are published). GoogLeNet's and Inception's weights want
inputs normalised by ImageNet's statistics and then, within torchvision's model, again by
(0.5, 0.5): one normalisation by (0.5, 0.5), which stands here.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import logging
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

from cnnjax.models import lookup
from cnnjax.types import IMAGENET_MEAN, IMAGENET_STD, Preprocess, UserError, did_you_mean
from cnnjax.weights import namings

_NORMALISATIONS = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "half": ((0.5,) * 3, (0.5,) * 3),
    # Bytes less (123, 117, 104): the VGG that SSDs start from.
    "vgg": ((0.48235, 0.45882, 0.40784), (1 / 255,) * 3),
    "127/128": ((127 / 255,) * 3, (128 / 255,) * 3),  # (x - 127) / 128, of bytes.
}


class Published(NamedTuple):
    """One published set of weights.

    Attributes:
      model: our name of it.
      source: whose weights, as in `Naming.source`.
      tag: of one set among several, such as "IMAGENET1K_V2" or "a1_in1k".
      file: the name of the file that torchvision downloads, else "".
      preprocess: how images become its input.
    """

    model: str
    source: str
    tag: str
    file: str
    preprocess: Preprocess


@functools.cache
def table() -> tuple[Published, ...]:
    """Returns every row of published.csv."""
    text = resources.files("cnnjax.weights").joinpath("published.csv").read_text()
    rows = []
    for row in csv.DictReader(text.splitlines()):
        mean, std = _NORMALISATIONS[row["normalisation"]]
        size, resize = int(row["size"]), int(row["resize"])
        rows.append(Published(row["model"], row["source"], row["tag"], row["file"], Preprocess(
            (size, size), mean, std, crop=size / resize, interpolation=row["interpolation"])))
    return tuple(rows)


def preprocess_of(name: str, *, source: str = "", file: str = "", tag: str | None = None
                  ) -> Preprocess:
    """Returns the preprocessing of a model's published weights.

    In this order: the set that `tag` names; the set whose file has this name; the first set of the
    source whose names the tensors have, saying so if there are others, as another source's with the
    same names; else the model's own input size with ImageNet's statistics.

    Raises:
      UserError: if there is no such tag; the message lists those there are.
    """
    rows = [row for row in table() if row.model == name]
    if tag is not None:
        for row in rows:
            if row.tag == tag:
                return row.preprocess
        tags = [row.tag for row in rows if row.tag]
        raise UserError(f"There are no weights {tag!r} of {name}.{did_you_mean(tag, tags)} Known "
                        f"are: {', '.join(tags) or 'none'}.")
    for row in rows:
        if file and row.file == file:
            return row.preprocess
    rows = [row for whose in namings.sources(lookup(name).module, source) for row in rows
            if row.source == whose] or [row for row in rows if row.source == "timm"][:1]
    if not rows:
        height, width, channels = lookup(name).input_size
        logging.getLogger("cnnjax").warning(
            "%s: no published preprocessing; ImageNet's mean and std are assumed.", name)
        # The small images of CIFAR and MNIST are taken whole.
        return for_channels(Preprocess((height, width), IMAGENET_MEAN, IMAGENET_STD,
                                       crop=0.875 if height >= 224 else 1.0), channels)
    others = [row.tag for row in rows if row.preprocess != rows[0].preprocess]
    if others:
        logging.getLogger("cnnjax").warning(
            "%s: preprocessing of %s taken; if these are %s, say tag=%r.", name, rows[0].tag,
            " or ".join(others), others[0])
    return rows[0].preprocess


def from_timm(config: Mapping[str, Any], where: str) -> Preprocess:
    """Returns the preprocessing that a timm config (config.json of a hub repository) describes.

    The size is that of the test, by which the accuracy is published. timm rounds the side before
    the crop down, so that the crop is a ratio of two integers here. Its crop mode "squash", whole
    images out of proportion, becomes the centre crop.

    Raises:
      UserError: if the config has no size, mean or std.
    """
    cfg = config.get("pretrained_cfg", config)
    try:
        _, height, width = cfg.get("test_input_size") or cfg["input_size"]
        fraction = cfg.get("test_crop_pct") or cfg.get("crop_pct") or 0.875
        interpolation = cfg.get("interpolation", "bicubic")
        return Preprocess(
            size=(int(height), int(width)), mean=tuple(map(float, cfg["mean"])),
            std=tuple(map(float, cfg["std"])), crop=min(height / math.floor(height / fraction), 1),
            interpolation=interpolation if interpolation == "bilinear" else "bicubic")
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{where} is no config of timm: {type(error).__name__}: {error}.") from None


def for_channels(preprocess: Preprocess, channels: int) -> Preprocess:
    """Returns the preprocessing for images of another number of channels.

    Grey takes the mean over the channels, others repeat them in turn, as the first convolution is
    adapted.
    """
    if channels == preprocess.channels:
        return preprocess

    def adapt(values: Sequence[float]) -> tuple[float, ...]:
        if channels == 1:
            return (sum(values) / len(values),)
        return tuple(values[i % len(values)] for i in range(channels))

    return dataclasses.replace(preprocess, mean=adapt(preprocess.mean), std=adapt(preprocess.std))
