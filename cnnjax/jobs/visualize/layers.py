"""Part 2: layer by layer, what it looks for."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from cnnjax.analysis import EffectiveField, crop_field, first_kernel
from cnnjax.analysis.pictures import kernel_colors
from cnnjax.analysis.rendering import as_rgb, fitted, framed, ranged
from cnnjax.analysis.survey import Peak
from cnnjax.jobs.visualize import dreams
from cnnjax.jobs.visualize.page import Figure, Row, Section, Text, Tile
from cnnjax.jobs.visualize.subject import SIDE, Subject
from cnnjax.types import UserError

_FILTERS, _GREY = 64, 200


def section(subject: Subject, effective: dict[str, EffectiveField]) -> Section:
    """Returns filters, strongest patches and feature maps."""
    parts = [*_filters(subject),
             Text("What moves its channels", heading=True),
             Text("A few channels of every map, evenly spaced rather than picked for their looks. "
                  + ("First an image made by gradient ascent to move the channel as much as it "
                     "can, then the " if subject.settings.ascent else "The ")
                  + "images of the set that move it most, cut to what the strongest position "
                  "sees. The yellow frame is as large as the effective field. What is beyond the "
                  "image is grey; where a position sees more than the image, all of it is shown.")]
    channels = {name: subject.seen.live_channels(name, subject.settings.channels)
                for name in subject.maps}
    made = dreams.of_channels(subject, channels)
    parts += [_patches(subject, name, channels[name], made, effective.get(name))
              for name in subject.maps]
    parts += dreams.of_classes(subject)
    parts += [Text("What it makes of one image", heading=True), _feature_maps(subject)]
    return Section("layers", "2. What it looks for", parts)


def _filters(subject: Subject) -> list:
    try:
        kernel = first_kernel(subject.model.module, subject.model.variables,
                              (1, *subject.pixels.shape[1:]))
    except UserError:
        return []
    if kernel.shape[2] not in (1, 3):
        return []
    shown = kernel_colors(kernel)
    # By strength, so that those that do nothing come last.
    order = np.argsort(-np.square(kernel).sum((0, 1, 2)), kind="stable")[:_FILTERS]
    height, width, channels, count = kernel.shape
    colours = "colour" if channels == 3 else "grey"
    tiles = [Tile(fitted(as_rgb(shown[..., i]), 56), f"{i}") for i in order]
    return [Text("Its first filters", heading=True),
            Text(f"{count} filters of {height}x{width} pixels on {colours} images, the strongest "
                 "first. Grey is a weight of 0; each has a scale of its own."),
            Figure("filters", (Row("", tiles),), side=56)]


def _patches(subject: Subject, name: str, channels: Sequence[int],
             made: dict[tuple[str, int], np.ndarray], effective: EffectiveField | None) -> Figure:
    rows = []
    for channel in channels:
        peaks = subject.seen.strongest(name, channel, subject.settings.patches)
        image = made.get((name, channel))
        rows.append(Row(f"{name}, channel {channel}", [
            *([] if image is None else [Tile(image, "made for it")]),
            *(Tile(_cut(subject, name, peak, effective), f"{peak.value:.3g}") for peak in peaks)]))
    return Figure(f"patches_{name}", rows or (Row(f"{name}: no channel is alive", ()),))


def _cut(subject: Subject, name: str, peak: Peak, effective: EffectiveField | None) -> np.ndarray:
    """What the position of a peak sees, with the extent of the effective field in its middle."""
    image = as_rgb(subject.pixels[peak.image])
    field = subject.fields.get(name)
    if field is None or field.sees_all:
        return fitted(image, SIDE)
    top, left = field.first_pixel(peak.position)
    middle = top + field.size[0] / 2, left + field.size[1] / 2
    if all(size <= side for size, side in zip(field.size, image.shape, strict=False)):
        picture, middle = crop_field(image, field, peak.position, _GREY), (middle[0] - top,
                                                                           middle[1] - left)
    else:
        picture = image
    shown = fitted(picture, SIDE)
    side = effective.size if effective else 0
    if not 0 < side < 0.9 * max(picture.shape[:2]):
        return shown
    scale = shown.shape[0] / picture.shape[0]
    return framed(shown, tuple(scale * v for v in (
        middle[0] - side / 2, middle[1] - side / 2, side, side)), (255, 210, 0))


def _feature_maps(subject: Subject) -> Figure:
    index = subject.chosen(1)[0]
    module, variables = subject.model.module, subject.model.variables
    found = jax.jit(lambda v, x: module.apply(v, x, train=False, capture=subject.maps)[1])(
        variables, subject.inputs([index]))
    rows = [Row("The image", (Tile(subject.tile(index), subject.names[index]),))]
    for name in subject.maps:
        values = np.asarray(found[name][0], np.float32)
        order = np.argsort(-np.abs(values).mean((0, 1)), kind="stable")
        rows.append(Row(f"{name}: {values.shape[0]}x{values.shape[1]}, {values.shape[2]} channels",
                        [Tile(fitted(ranged(values[..., i]), SIDE), f"channel {i}")
                         for i in order[:subject.settings.channels + 2]]))
    return Figure("feature_maps", rows, "The most active channels of each map, dark to bright from "
                  "the smallest to the largest value.")
