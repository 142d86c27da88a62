"""What a classifier gets wrong."""

from __future__ import annotations

from collections.abc import Sequence
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
    check_examples("confusion_matrix", labels, "said", said.shape)
    check_classes("confusion_matrix", "labels", labels, classes)
    check_classes("confusion_matrix", "said", said, classes)
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

    Raises:
      UserError: if they are not as many.
    """
    labels, said = np.asarray(labels), np.asarray(said)
    check_examples("most_confused", labels, "said", said.shape)
    pairs = np.stack([labels, said], axis=1)
    pairs, counts = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:count]
    return [Confused(*pairs[i].tolist(), int(counts[i])) for i in order]


def confident_mistakes(probabilities: Any, labels: Any, count: int = 12) -> np.ndarray:
    """Returns the numbers of the wrong answers, those that the model was surest of first.

    Args:
      probabilities: (N, classes).
      labels: (N,) integers.
      count: how many at most.

    Raises:
      UserError: if they are not as many.
    """
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    check_examples("confident_mistakes", labels, "probabilities", probabilities.shape, dims=2)
    wrong = np.flatnonzero(probabilities.argmax(1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")][:count]


def check_examples(where: str, labels: np.ndarray, name: str, shape: Sequence[int], dims: int = 1
                   ) -> None:
    """Raises a UserError unless labels (N,) and what has a name and shape are as many.

    Args:
      where: a function, for the message.
      dims: of the shape, whose first is the examples.
    """
    if len(shape) != dims or labels.shape != (shape[0],):
        raise UserError(f"{where}: labels {labels.shape} and {name} {tuple(shape)} are of the same "
                        "examples; give as many.")


def check_classes(where: str, name: str, values: np.ndarray, classes: int) -> None:
    """Raises a UserError that names the first value that is not one of 0 to classes - 1."""
    if wrong := values[~np.isin(values, np.arange(classes))].tolist():
        raise UserError(f"{where}: {name} has {wrong[0]}; of {classes} classes they are whole "
                        f"numbers from 0 to {classes - 1}.")
