"""Part 1: what the model is, and how much of an image its layers see."""

from __future__ import annotations

from cnnjax.analysis import EffectiveField, effective_field, text
from cnnjax.analysis.rendering import PALETTE, as_rgb, fitted, framed, heat
from cnnjax.analysis.summary import Summary
from cnnjax.jobs.visualize.page import Figure, Row, Section, Table, Text, Tile
from cnnjax.jobs.visualize.subject import SIDE, Subject
from cnnjax.types import UserError

# Random images that an effective field is averaged over.
_IMAGES = 8
_SMALLEST = 7.0  # Side of a frame that leaves a few pixels of the picture inside.


def section(subject: Subject, effective: dict[str, EffectiveField]) -> Section:
    """Returns the table of layers, and the growing field on an image."""
    parts = [_stages(subject, effective), _layers(subject.summary)]
    if subject.fields:
        parts += [
            Text("How far it sees", heading=True),
            Text("The theoretical receptive field of a position is every pixel that can reach it. "
                 "The effective one is what does: how much each pixel moves the middle position "
                 "of the map, in the net as it is trained, averaged over random images; its size "
                 "is that of a square with the area of the pixels that matter (arXiv 1701.04128). "
                 "In deep nets it is much smaller, and grows more slowly."),
            _growth(subject, effective)]
    return Section("model", "1. What it is", parts)


def effective_fields(subject: Subject) -> dict[str, EffectiveField]:
    """Returns the effective field of each map whose theoretical one is known."""
    height, width, channels = subject.pixels.shape[1:]
    batch = max(1, min(_IMAGES, 2**21 // (height * width)))
    found = {}
    for name in subject.fields:
        try:
            found[name] = effective_field(
                subject.model.module, subject.model.variables, (batch, height, width, channels),
                name, batches=-(-_IMAGES // batch), seed=subject.settings.seed)
        except UserError:  # A map that sees all, or a position that nothing reaches.
            continue
    return found


def _stages(subject: Subject, effective: dict[str, EffectiveField]) -> Table:
    rows = []
    for name in subject.maps:
        height, width = subject.seen.map_size[name]
        field, found = subject.fields.get(name), effective.get(name)
        known = field is not None and not field.sees_all
        rows.append((name, f"{height}x{width}x{subject.seen.largest[name].shape[1]}",
                     f"{field.size[0]}x{field.size[1]}" if known else "all" if field else "",
                     f"{found.size:.0f}" if found else "", f"{field.stride[0]}" if known else ""))
    return Table(("map", "output", "sees (px)", "effectively", "step"), rows,
                 numbers=(1, 2, 3, 4), title="Stages")


def _layers(summary: Summary) -> Table:
    rows = [(row.name, row.kind, "x".join(map(str, row.output_shape[1:])),
             "x".join(map(str, row.kernel)) if row.kernel else "", f"{row.params:,}",
             f"{row.macs:,}", _seen(row.field)) for row in summary.rows]
    total = ("total", "", "", "", f"{summary.params:,}", f"{summary.macs:,}", "")
    return Table(("layer", "type", "output", "kernel", "parameters", "multiply-adds", "sees (px)"),
                 [*rows, total], numbers=(2, 3, 4, 5, 6), title=f"All {len(rows)} layers, "
                 f"{summary.params:,} parameters, {text.size(summary.macs, '')} multiply-adds "
                 "an image", folded=True)


def _seen(field) -> str:
    if field is None:
        return ""
    return "all" if field.sees_all else "x".join(map(str, field.size))


def _growth(subject: Subject, effective: dict[str, EffectiveField]) -> Figure:
    """All frames on one image, then for each map its frame and its effective field."""
    index = subject.chosen(1)[0]
    picture = fitted(as_rgb(subject.pixels[index]), SIDE)
    scale = picture.shape[0] / subject.pixels.shape[1]
    nested, pairs = picture, []
    # Frames that are the same, or around the whole image, would hide one another.
    for k, (name, found) in enumerate(effective.items()):
        color = PALETTE[k % len(PALETTE)]
        box = _visible([v * scale for v in found.box])
        nested = framed(nested, box, color)
        clipped = "" if _inside(found) else ",\nmore than the image"
        pairs.append(Row(f"{name}", (
            Tile(framed(picture, box, color),
                 f"sees {found.field.size[0]} px{clipped}"),
            Tile(framed(fitted(heat(found.sensitivity), SIDE), box, color),
                 f"effectively {found.size:.0f} px"))))
    return Figure("receptive_fields", (
        Row("All of them", (Tile(nested, "from first to last"),)), *pairs),
        "The frame is the theoretical field of the middle position. Where it is larger than the "
        "image, only its part inside is drawn.", beside=True)


def _visible(box: list[float]) -> tuple[float, float, float, float]:
    """A frame around (top, left, height, width) that is not too small to see into."""
    top, left, height, width = box
    more = [max(0.0, _SMALLEST - size) for size in (height, width)]
    return top - more[0] / 2, left - more[1] / 2, height + more[0], width + more[1]


def _inside(found: EffectiveField) -> bool:
    top, left, height, width = found.box
    rows, cols = found.sensitivity.shape
    return top >= 0 and left >= 0 and top + height <= rows and left + width <= cols
