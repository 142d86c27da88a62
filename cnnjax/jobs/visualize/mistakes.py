"""Part 4: what it gets wrong."""

from __future__ import annotations

import numpy as np

from cnnjax.analysis.calibration import ROOT
from cnnjax.analysis.charts import matrix_chart
from cnnjax.analysis.mistakes import confident_mistakes, confusion_matrix, most_confused
from cnnjax.jobs.visualize.evidence import grad_cam_tiles
from cnnjax.jobs.visualize.page import Chart, Figure, Row, Section, Table, Text, Tile
from cnnjax.jobs.visualize.subject import Subject

_SHOWN, _MATRIX = 12, 30


def section(subject: Subject) -> Section:
    """Returns confusions and the most confident mistakes; of labelled images only."""
    right, total = int((subject.labels == subject.said).sum()), len(subject.labels)
    parts = [Text(f"It is right about {right:,} of {total:,} images of {subject.what}: "
                  f"{right / total:.2%}.")]
    if len(subject.classes) <= _MATRIX:
        matrix = confusion_matrix(subject.labels, subject.said, len(subject.classes))
        parts.append(Chart("confusion", matrix_chart(matrix, subject.classes, subject.classes,
                                                     "it says", "it is", hide_zero=True,
                                                     power=ROOT),
                           "Rows are the true classes, columns what the model says. Colours go by "
                           "the fourth root of the numbers."))
    if pairs := most_confused(subject.labels, subject.said):
        parts.append(Table(("it is", "it says", "times"), [
            (subject.classes[p.true], subject.classes[p.said], str(p.count)) for p in pairs],
            numbers=(2,), title="Most confused"))
    wrong = confident_mistakes(subject.seen.probabilities, subject.labels, _SHOWN)
    return Section("mistakes", "4. What it gets wrong", (*parts, *_worst(subject, wrong)))


def _worst(subject: Subject, wrong: np.ndarray) -> list:
    if not len(wrong):
        return [Text("None of these images is called by a wrong name.")]
    said, truth = subject.said[wrong], subject.labels[wrong]
    for_said, for_truth = (grad_cam_tiles(subject, wrong, classes) for classes in (said, truth))
    rows = [Row(f"It is {subject.classes[truth[k]]}; it says {subject.answer(i)}", (
        Tile(subject.tile(i), subject.names[i]), Tile(for_said[k], "for what it says"),
        Tile(for_truth[k], "for what it is"))) for k, i in enumerate(wrong)]
    return [Text("Its most confident mistakes", heading=True),
            Text("With Grad-CAM for the class that it says and for the true one."),
            Figure("mistakes", rows)]
