"""What is said about a split: `jobs/test_data_summary.py` holds it against the images."""

import weakref

import numpy as np
import pytest

from cnnjax.data.dataset import Split
from cnnjax.data.survey import survey


class Fleeting:
    """Grey images of one value each, which counts those that are in memory."""

    def __init__(self):
        self.held = self.most = 0

    def __len__(self):
        return 200

    def __getitem__(self, index):
        image = np.full((12, 10, 1), index, np.uint8)
        self.held += 1
        self.most = max(self.most, self.held)
        weakref.finalize(image, self._let_go)
        return image, index % 3

    def _let_go(self):
        self.held -= 1


def test_a_thread_holds_few_images_at_a_time_and_all_are_counted():
    source = Fleeting()
    found = survey(Split("train", source, (12, 10, 1)), (6, 5), 1.0, "bilinear", threads=1)
    assert source.most < 20
    values = np.arange(200) / 255
    assert found.mean == pytest.approx([values.mean()]) and found.std == pytest.approx(
        [values.std()])
    assert found.labels.tolist() == [i % 3 for i in range(200)]
