"""The teacher of a run that distils: any model with weights."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
from ml_collections import ConfigDict

from cnnjax import data, weights
from cnnjax.data import augment
from cnnjax.jobs import pretrained
from cnnjax.jobs.model_input import takes_images
from cnnjax.jobs.named_data import warn_of_another_division
from cnnjax.train.distillation import Distillation
from cnnjax.types import Preprocess, UserError

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A model to learn from, and its variables, {"params": …, "batch_stats": …}."""

    distillation: Distillation
    variables: PyTree


def load_teacher(config: ConfigDict, dataset: data.Dataset, student: Preprocess, dtype: Any
                 ) -> Teacher | None:
    """Reads the teacher that the config names; None if it names none.

    Raises:
      UserError: if it cannot be read, or knows other classes than the data set has.
    """
    section = config.distill
    if section.weights is None:
        return None
    try:
        found = weights.load(section.model, section.weights, tag=section.tag, dtype=dtype)
    except UserError as error:
        advice = (" Set --config.distill.model."
                  if isinstance(error, weights.UnnamedError) else "")
        raise UserError(f"distill.weights={section.weights}: {error}{advice}") from None
    if not pretrained.knows_classes(found, dataset):
        raise UserError(f"The teacher in {section.weights} knows {found.module.num_classes} "
                        f"classes, and they are not the {dataset.num_classes} of {dataset.name}: "
                        "a student learns what its teacher knows. Give a teacher that was trained "
                        "on these.")
    warn_of_another_division(dataset, config, found.record, run=section.weights)
    if found.preprocess.channels != student.channels:
        advice = ("set --config.data.mean and std to one number for each of the teacher's"
                  if takes_images(found.preprocess.channels, dataset) else
                  "give a teacher of images like those of " + dataset.name)
        raise UserError(f"The teacher in {section.weights} takes images of "
                        f"{found.preprocess.channels} channels, and the student of "
                        f"{student.channels}: {advice}.")
    prepare = functools.partial(_prepare, student, found.preprocess)
    return Teacher(Distillation(found.module, prepare, section.weight, section.temperature),
                   found.variables)


def _prepare(student: Preprocess, teacher: Preprocess, images: jax.Array) -> jax.Array:
    """Returns the student's input as the teacher's: another size, another normalisation."""
    images = augment.resize(images, teacher.size, teacher.interpolation)
    if (student.mean, student.std) == (teacher.mean, teacher.std):
        return images
    array = functools.partial(jax.numpy.asarray, dtype=images.dtype)
    images = images * array(student.std) + array(student.mean)
    return (images - array(teacher.mean)) / array(teacher.std)
