"""What a classifier gets wrong."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cnnjax.types import UserError


class Confused(NamedTuple):
    """Two classes that are taken for one another: the true one, the one said, how many times."""

    true: int
    said: int
    count: int


def confusion_matrix(labels: Any, said: Any, classes: int) -> np.ndarray:
    """Returns (classes, classes) int: row i and column j count the examples of i called j.

    Args:
      labels: (N,) integers, the true classes.
      said: (N,) integers, what the model put first.
      classes: how many there are.

    Raises:
      UserError: if they are not as many numbers from 0 to classes - 1.
    """
    labels, said = np.asarray(labels), np.asarray(said)
    if labels.shape != said.shape:
        raise UserError(f"confusion_matrix: labels {labels.shape} and said {said.shape} are of the "
                        "same examples; give as many.")
    for name, values in (("labels", labels), ("said", said)):
        if wrong := values[~np.isin(values, np.arange(classes))].tolist():
            raise UserError(f"confusion_matrix: {name} has {wrong[0]}; of {classes} classes they "
                            f"are whole numbers from 0 to {classes - 1}.")
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (labels.astype(np.int64), said.astype(np.int64)), 1)
    return matrix


def most_confused(labels: Any, said: Any, count: int = 10) -> list[Confused]:
    """Returns the pairs of different classes that are confused most, those most often first.

    Of those as often, the lower classes come first. Takes no matrix, which of 20,000 classes
    would be 3 GB.

    Args:
      labels: (N,) integers, the true classes.
      said: (N,) integers, what the model put first.
      count: how many pairs at most.
    """
    pairs = np.stack([np.asarray(labels), np.asarray(said)], axis=1)
    pairs, counts = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:count]
    return [Confused(*pairs[i].tolist(), int(counts[i])) for i in order]


def confident_mistakes(probabilities: Any, labels: Any, count: int = 12) -> np.ndarray:
    """Returns the numbers of the wrong answers, those that the model was surest of first.

    Args:
      probabilities: (N, classes).
      labels: (N,) integers.
      count: how many at most.
    """
    probabilities = np.asarray(probabilities)
    wrong = np.flatnonzero(probabilities.argmax(1) != np.asarray(labels))
    return wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")][:count]
