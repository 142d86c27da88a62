"""What a classifier gets wrong."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


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
    """
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (np.asarray(labels), np.asarray(said)), 1)
    return matrix


def most_confused(matrix: np.ndarray, count: int = 10) -> list[Confused]:
    """Returns the pairs of different classes that are confused most, those most often first."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = (Confused(*divmod(int(i), len(matrix)), int(wrong.flat[i])) for i in order)
    return [pair for pair in pairs if pair.count]


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
