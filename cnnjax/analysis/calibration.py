"""Whether a model's probabilities are right, and which classes it takes for which.

All of it from logits [N, K] and labels [N], as NumPy arrays of one example or more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special

from cnnjax.analysis import fonts, mistakes
from cnnjax.analysis.text import label
from cnnjax.types import UserError

# Rows of a confusion matrix; of more classes it takes gigabytes, and a picture has fewer pixels.
MOST_ROWS = 1000
# Of which power of its share a confusion has the colour. Linear or by the square root, errors of
# half a percent look like none.
ROOT = 1 / 4
_PART = 2**20  # Numbers that are worked on at a time.
_SHARES = (0, 0.001, 0.01, 0.05, 0.2, 0.5, 1)


class Reliability(NamedTuple):
    """Examples by the confidence of their prediction, in bins of equal width over (0, 1].

    Attributes:
      count: of examples, int [bins].
      confidence: mean probability of the predicted class, [bins]; 0 where there is no example.
      accuracy: share of right predictions, [bins]; likewise.
    """

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def ece(self) -> float:
        """The expected calibration error, the mean over examples of |accuracy - confidence|."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.sum(self.count * gaps) / max(1, self.count.sum()))


def reliability(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> Reliability:
    """Returns accuracy against confidence (Guo et al., arXiv 1706.04599, eqs. 1 to 3).

    Args:
      logits: [N, K].
      labels: int [N].
      bins: bin m holds the confidences in ((m - 1) / bins, m / bins].
    """
    _check("reliability", logits, labels)
    found = []
    for part, rows in _parts(logits, labels):
        probabilities = special.softmax(part, axis=-1)
        found.append((probabilities.max(-1), probabilities.argmax(-1) == rows))
    confidence, right = map(np.concatenate, zip(*found, strict=True))
    number = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(number, minlength=bins)

    def means(values):
        return np.bincount(number, values, bins) / np.maximum(count, 1)

    return Reliability(count, means(confidence), means(right.astype(float)))


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray, scale: float = 1.0) -> float:
    """Returns the mean of -log p(label) of logits * scale, in nats."""
    _check("negative_log_likelihood", logits, labels)
    logs = [special.log_softmax(part * scale, axis=-1)[np.arange(len(rows)), rows]
            for part, rows in _parts(logits, labels)]
    return float(-np.concatenate(logs).mean())


def _check(where: str, logits: np.ndarray, labels: np.ndarray) -> None:
    shape, labels = np.shape(logits), np.asarray(labels)
    mistakes.check_examples(where, labels, "logits", shape, dims=2)
    if not len(labels):
        raise UserError(f"{where}: there are no examples.")
    mistakes.check_classes(where, "labels", labels, shape[1])


def _parts(logits: np.ndarray, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields some rows at a time, of the logits in float64: all of ImageNet's take gigabytes."""
    rows = max(1, _PART // np.shape(logits)[-1])
    for i in range(0, len(labels), rows):
        yield np.asarray(logits[i:i + rows], np.float64), labels[i:i + rows]


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the T > 0 for which logits / T have the least negative log-likelihood.

    Temperature scaling (arXiv 1706.04599, section 4.2). The likelihood is convex in 1 / T, so
    there is one minimum; it is looked for between 0.01 and 100. Where every example is right there
    is none, as less is better down to T = 0: nothing is known then, and 1 is returned.
    """
    _check("fit_temperature", logits, labels)
    if (np.argmax(logits, axis=-1) == labels).all():
        return 1.0
    found = optimize.minimize_scalar(
        lambda log: negative_log_likelihood(logits, labels, np.exp(-log)), method="bounded",
        bounds=(np.log(0.01), np.log(100)), options={"xatol": 1e-6})
    return float(np.exp(found.x))


def temperature_scaled(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns logits / T with a T that was fitted on other examples: [N, K].

    The even examples get the temperature of the odd ones and the other way round, so that what is
    measured of the result is not what it was fitted on.
    """
    _check("temperature_scaled", logits, labels)
    scaled = np.array(logits, np.float64)
    for half in (0, 1):
        if len(labels) > 1:
            scaled[half::2] /= fit_temperature(logits[1 - half::2], labels[1 - half::2])
    return scaled


def most_confused(logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str], number: int
                  ) -> list[dict[str, Any]]:
    """Returns `mistakes.most_confused` by name: {"class", "taken_for", "count"} each."""
    return [{"class": class_names[pair.true], "taken_for": class_names[pair.said],
             "count": pair.count}
            for pair in mistakes.most_confused(labels, logits.argmax(-1), number)]


def calibration_report(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Returns calibration and results by class, as plain numbers and lists.

    Args:
      logits: [N, K].
      labels: int [N].

    Returns:
      "nll", "ece"; "temperature", fitted on all examples, for use elsewhere; "nll_scaled" and
      "ece_scaled", of `temperature_scaled`, which has seen no example that it is measured on;
      "per_class_accuracy" [K], the recall of each, None for a class without examples;
      "balanced_accuracy", the mean of the others; "confusion" [K][K], in which of more than
      `MOST_ROWS` classes neighbours share a row and a column; and "reliability", the bins.
    """
    bins, scaled = reliability(logits, labels), temperature_scaled(logits, labels)
    labels, said, classes = np.asarray(labels, np.int64), logits.argmax(-1), logits.shape[-1]
    rows = min(classes, MOST_ROWS)
    confusion = mistakes.confusion_matrix(labels * rows // classes, said * rows // classes, rows)
    totals = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[labels == said], minlength=classes)
    recalls = [float(hits / total) if total else None
               for hits, total in zip(right, totals, strict=True)]
    return {
        "nll": negative_log_likelihood(logits, labels), "ece": bins.ece,
        "temperature": fit_temperature(logits, labels),
        "nll_scaled": negative_log_likelihood(scaled, labels),
        "ece_scaled": reliability(scaled, labels).ece,
        "per_class_accuracy": recalls,
        "balanced_accuracy": float(np.mean([r for r in recalls if r is not None])),
        "confusion": confusion.tolist(),
        "reliability": {name: values.tolist() for name, values in bins._asdict().items()},
    }


def plot_calibration(report: dict[str, Any], class_names: tuple[str, ...], path: str,
                     title: str) -> None:
    """Writes a PNG of the reliability diagram, the examples in its bins and the confusion matrix.

    Args:
      report: of `calibration_report`.
      class_names: K of them; written at the matrix up to 20, and cut to 18 letters.
      path: of the PNG.
      title: above it.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right, below = figure.subplot_mosaic(
        [["accuracy", "confusion"], ["share", "confusion"]], height_ratios=(4, 1)).values()
    bins = {name: np.asarray(values) for name, values in report["reliability"].items()}
    edges, width = np.arange(len(bins["count"])) / len(bins["count"]), 1 / len(bins["count"])
    left.bar(edges, bins["accuracy"], width, align="edge", edgecolor="white", label="accuracy")
    shown = bins["count"] > 0
    left.plot(bins["confidence"][shown], bins["accuracy"][shown], "k.", markersize=4,
              label="mean confidence of a bin")
    left.plot([0, 1], [0, 1], "--", color="gray", linewidth=1)
    left.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy", xticklabels=(),
             title=f"ECE {report['ece']:.2%}, after temperature scaling "
                   f"{report['ece_scaled']:.2%}")
    # A bar of one example looks like one of all of them.
    share = 100 * bins["count"] / max(1, bins["count"].sum())
    below.bar(edges, share, 0.9 * width, align="edge", color="gray")
    below.set(xlim=(0, 1), xlabel="confidence", ylabel="% of\nexamples")
    # Below, because bars may reach any place above.
    below.legend(*left.get_legend_handles_labels(), loc="upper center",
                 bbox_to_anchor=(0.5, -0.6), ncols=2, frameon=False)
    matrix = np.asarray(report["confusion"], float)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    end = len(class_names) - 0.5  # A row stands for several of very many classes.
    picture = right.imshow(shares, cmap="Blues", norm=PowerNorm(ROOT, 0, 1),
                           extent=(-0.5, end, end, -0.5))
    bar = figure.colorbar(picture, ax=right, shrink=0.8)
    bar.set_ticks(_SHARES, labels=[f"{share:.4g} %" for share in 100 * np.array(_SHARES)])
    right.set(xlabel="taken for", ylabel="class",
              title="confusion, as shares of a class: colours by the fourth root")
    if len(class_names) <= 20:
        ticks = range(len(class_names))
        names = [label(name, 18) for name in class_names]
        right.set_xticks(ticks, names, rotation=90, fontsize=8)
        right.set_yticks(ticks, names, fontsize=8)
    figure.suptitle(label(title))
    fonts.save(figure, path, dpi=110)
