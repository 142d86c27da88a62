"""Part 5: the geometry of its features, and what a shift of the image does to them."""

from __future__ import annotations

from cnnjax.analysis import pca, translation_curve
from cnnjax.analysis.charts import line_chart, matrix_chart, scatter_chart
from cnnjax.analysis.embedding import has_umap, umap
from cnnjax.analysis.features import cka_matrix
from cnnjax.jobs.visualize.page import Chart, Section, Text
from cnnjax.jobs.visualize.subject import Subject
from cnnjax.types import UserError

# Examples that layers are compared by, and images that are shifted.
_COMPARED, _SHIFTED, _MOST_SHIFT = 200, 8, 16


def section(subject: Subject, number: int) -> Section:
    """Returns the map of the embeddings, the likeness of layers, and the translation curve."""
    return Section("geometry", f"{number}. How it arranges images", (
        *_map(subject), *_likeness(subject), *_translation(subject)))


def _map(subject: Subject) -> list:
    groups = subject.said if subject.labels is None else subject.labels
    colours = "what the model says" if subject.labels is None else "the true class"
    features = subject.seen.features
    parts = [Text("A map of the embeddings", heading=True),
             Text(f"Each point is an image: the {features.shape[1]:,} numbers that the head sees, "
                  f"in two dimensions. Colours are {colours}.")]
    if min(features.shape) >= 2:
        found = pca(features)
        parts.append(Chart("pca", scatter_chart(
            found.points, groups, subject.classes, f"component 1 ({found.explained[0]:.0%})",
            f"component 2 ({found.explained[1]:.0%})"),
            "Principal components, with the share of the variance that each explains."))
    if subject.settings.umap and has_umap() and len(features) >= 4:
        parts.append(Chart("umap", scatter_chart(
            umap(features, seed=subject.settings.seed), groups, subject.classes),
            "UMAP: neighbours are near one another, distances beyond say little."))
    return parts


def _likeness(subject: Subject) -> list:
    layers = {name: subject.seen.pooled[name][:_COMPARED] for name in subject.maps}
    layers |= {"features": subject.seen.features[:_COMPARED],
               "logits": subject.seen.logits[:_COMPARED]}
    layers = {name: values for name, values in layers.items() if (values != values[0]).any()}
    if len(layers) < 2:
        return []
    names = list(layers)
    return [Text("How alike its layers are", heading=True),
            Text(f"Linear CKA of {len(next(iter(layers.values())))} images (arXiv 1905.00414): 1 "
                 "where two layers arrange them in the same way. Maps are averaged to at most 7x7 "
                 "positions first."),
            Chart("cka", matrix_chart(cka_matrix(list(layers.values())), names, names, decimals=2))]


def _translation(subject: Subject) -> list:
    module, variables = subject.model.module, subject.model.variables
    images = subject.inputs(subject.chosen(_SHIFTED))
    most = min(_MOST_SHIFT, min(images.shape[1:3]) // 4)
    lines = {}
    for name in (*subject.maps, "features", "logits"):
        try:
            found = translation_curve(module, variables, images, name, range(most + 1))
        except UserError:  # No position of this map has its field within the image.
            continue
        lines[name] = found.shifts, found.difference
    if not lines:
        return []
    worst = {name: max(values) for name, (_, values) in lines.items()}
    exact = [name for name, value in worst.items() if value < 1e-3 and name in subject.maps]
    said = f" Exactly equivariant here: {', '.join(exact)}." if exact else ""
    return [Text("What a shift does", heading=True),
            Text("Images are moved right and down. Maps are compared with their shifted selves "
                 "away from the border, where they see nothing new: 0 means that the map moves "
                 "along with the image. A stride or a pooling allows that for multiples of its "
                 "step alone, hence the saw-teeth. Features and logits are compared as they are: "
                 "0 means that they don't notice." + said),
            Chart("translation", line_chart(lines, "shift (pixels)", "relative change"),
                  f"Mean of {len(images)} images. Maps whose field no position has within the "
                  "image are left out.")]
