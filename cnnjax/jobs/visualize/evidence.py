"""Part 3: where it looks, and whether to trust the pictures of that."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import analysis
from cnnjax.analysis.charts import line_chart
from cnnjax.analysis.rendering import fitted, heat, over, pooled, signed
from cnnjax.jobs.visualize.page import Chart, Figure, Row, Section, Table, Text, Tile
from cnnjax.jobs.visualize.subject import SIDE, Subject

# Layers that are randomised at once are groups of the model's, so that a deep one takes no hours.
_GROUPS, _CHECKED, _CHECK_STEPS = 8, 2, 8
_SAMPLES = 16


def section(subject: Subject) -> Section:
    """Returns the maps of several methods, their scores and the sanity check."""
    chosen = subject.chosen(subject.settings.shown)
    images, classes = subject.inputs(chosen), jnp.asarray(subject.said[np.asarray(chosen)])
    integrated = analysis.integrated_gradients(*_model(subject), images, classes,
                                               steps=subject.settings.integration)
    maps = _maps(subject, images, classes, integrated.values)
    errors = np.asarray(integrated.completeness_error)
    return Section("evidence", "3. Where it looks", (
        Text("The evidence for the class that the model puts first, by five methods. Grad-CAM asks "
             f"the map {subject.last_map!r}; the others ask the pixels. In integrated gradients "
             "and occlusion red speaks for the class and blue against it; the other three are "
             "magnitudes: Grad-CAM from blue over green to red, the others from black to yellow."),
        _figure(subject, chosen, maps, errors),
        Text(f"Integrated gradients promise that a map adds up to the rise of the logit over that "
             f"of a blank image. With {subject.settings.integration} steps it is off by "
             f"{_percent(np.median(errors))} of the rise (median), at most "
             f"{_percent(errors.max())}."),
        *_scores(subject, images, classes, maps),
        *_sanity(subject, images[:_CHECKED], classes[:_CHECKED])))


def grad_cam_tiles(subject: Subject, indices, classes) -> list[np.ndarray]:
    """Returns images with their Grad-CAM for the given classes over them."""
    cam = _cam(subject, subject.model.variables, subject.inputs(indices), jnp.asarray(classes))
    return [fitted(over(subject.pixels[i], values), SIDE)
            for i, values in zip(indices, np.asarray(cam), strict=True)]


def _model(subject: Subject):
    return subject.model.module, subject.model.variables


def _cam(subject: Subject, variables, images, classes) -> jax.Array:
    maps = analysis.grad_cam(subject.model.module, variables, images, subject.last_map, classes)
    return analysis.resized(maps, images.shape[1:3])


def _maps(subject: Subject, images, classes, integrated) -> dict[str, np.ndarray]:
    """{method: (N, H, W)}; signed, but for Grad-CAM and saliency."""
    side = min(images.shape[1:3])
    window = max(2, side // 7)
    smooth = analysis.smooth_grad(*_model(subject), images, classes, samples=_SAMPLES,
                                  seed=subject.settings.seed)
    found = {
        "Grad-CAM": _cam(subject, subject.model.variables, images, classes),
        "integrated gradients": integrated.sum(-1),
        "saliency": analysis.saliency(*_model(subject), images, classes).max(-1),
        # The sign of a derivative means little without that of the pixel.
        "SmoothGrad": jnp.abs(smooth).max(-1),
        "occlusion": analysis.occlusion(*_model(subject), images, classes, window=window,
                                        stride=max(1, window // 2))}
    return {name: np.asarray(values) for name, values in found.items()}


def _figure(subject: Subject, chosen, maps: dict[str, np.ndarray], errors) -> Figure:
    rows = []
    for k, i in enumerate(chosen):
        truth = "" if subject.labels is None else f"{subject.classes[subject.labels[i]]}: "
        tiles = [Tile(subject.tile(i), subject.names[i])]
        for name, values in maps.items():
            if name == "Grad-CAM":
                picture = over(subject.pixels[i], values[k])
            else:  # Averaged before they are coloured: colours of many pixels would turn grey.
                draw = _strong if name in ("saliency", "SmoothGrad") else signed
                picture = draw(pooled(values[k], SIDE))
            caption = name + (f"\nerror {_percent(errors[k])}" if name.startswith("int") else "")
            tiles.append(Tile(fitted(picture, SIDE), caption))
        rows.append(Row(f"{truth}it says {subject.answer(i)}", tiles))
    return Figure("evidence", rows)


def _strong(values: np.ndarray) -> np.ndarray:
    return heat(values, np.percentile(values, 99.5))


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share >= 1e-4 else "below 0.01 %"


def _scores(subject: Subject, images, classes, maps: dict[str, np.ndarray]) -> list:
    """Deletion and insertion of every method, and of a random order for comparison."""
    rng = np.random.default_rng(subject.settings.seed)
    maps = {**maps, "random order": rng.random(images.shape[:3])}
    rows, lines = [], {}
    for name, values in maps.items():
        down, up = (f(*_model(subject), images, values, classes) for f in (
            analysis.deletion, analysis.insertion))
        lines[name] = up.fraction, up.probability.mean(0)
        rows.append((name, f"{down.score.mean():.3f}", f"{up.score.mean():.3f}"))
    return [Text("Which map is right?", heading=True),
            Text("Cover the pixels that a map calls most important first, and the probability of "
                 "the class should fall at once (deletion, lower is better); uncover them first, "
                 "and it should rise at once (insertion, higher is better). The scores are areas "
                 "under these curves (arXiv 1806.07421)."),
            Table(("method", "deletion", "insertion"), rows, numbers=(1, 2)),
            Chart("insertion", line_chart(lines, "share of pixels uncovered",
                                          "probability of the class"),
                  f"Insertion, mean of {len(images)} images.")]


def _sanity(subject: Subject, images, classes) -> list:
    layers = _layer_groups(subject)
    module = subject.model.module
    methods: dict[str, Callable] = {
        "Grad-CAM": lambda v: _cam(subject, v, images, classes),
        "integrated gradients": lambda v: analysis.integrated_gradients(
            module, v, images, classes, steps=_CHECK_STEPS).values.sum(-1),
        "saliency": lambda v: analysis.saliency(module, v, images, classes).max(-1),
        "guided backprop": lambda v: jnp.abs(analysis.guided_backprop(
            module, v, images, classes)).max(-1)}
    lines, ticks = {}, []
    for name, attribute in methods.items():
        found = analysis.randomization_check(attribute, subject.model.variables, layers,
                                             seed=subject.settings.seed)
        ticks = ["none", *(item.layer for item in found)]
        lines[name] = range(len(ticks)), [1.0, *(item.correlation for item in found)]
    return [Text("Does the map depend on the model?", heading=True),
            Text("The weights are shuffled from the last layers to the first. A method that shows "
                 "what the model does must lose its likeness to the map of the trained one; one "
                 "that keeps it shows edges of the image (arXiv 1810.03292)."),
            Chart("randomization", line_chart(lines, "weights shuffled from here to the end",
                                              "rank correlation", ticks),
                  f"Mean of {len(images)} images.")]


def _layer_groups(subject: Subject) -> list[tuple[str, ...]]:
    """The layers with parameters in the order of their calls, in a few groups."""
    params = subject.model.variables["params"]
    names = [name for name in dict.fromkeys(row.name.split("/")[0] for row in subject.summary.rows)
             if name in params]
    return [tuple(group) for group in np.array_split(np.array(names), min(_GROUPS, len(names)))]
