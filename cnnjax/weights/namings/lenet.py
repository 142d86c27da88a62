"""Names of LeNet-5 as a torch.nn.Sequential of features and one of classifier layers."""

import dataclasses

import numpy as np

from cnnjax.models.lenet import TABLE_I
from cnnjax.weights.naming import Layout, Naming, flattened_square

_TARGETS, _SOURCES = np.array([(target, source) for target, sources in enumerate(TABLE_I)
                               for source in sources]).T


def _to_full(slices: np.ndarray) -> np.ndarray:
    """The paper's sparse kernel (5, 5, pairs) as that of a full convolution, zeros elsewhere."""
    full = np.zeros((len(TABLE_I), 6, *slices.shape[:2]), slices.dtype)
    full[_TARGETS, _SOURCES] = slices.transpose(2, 0, 1)
    return full


def _to_sparse(full: np.ndarray) -> np.ndarray:
    slices = full[_TARGETS, _SOURCES].transpose(1, 2, 0)
    if np.any(_to_full(slices) != full):
        raise ValueError("the second convolution connects maps that Table I of the paper leaves "
                         "apart; these are weights of lenet5_full")
    return slices


@dataclasses.dataclass(frozen=True)
class _LeNet5(Naming):
    """As `Naming`, with the sparse kernel, the only one of three axes."""

    def layout(self, path: str, ndim: int) -> Layout:
        return Layout(_to_full, _to_sparse) if ndim == 3 else super().layout(path, ndim)


TORCH = _LeNet5("torch", (
    (r"conv1", "features.0"),
    (r"conv2", "features.3"),
    (r"fc1", "classifier.1"),
    (r"fc2", "classifier.3"),
    (r"head", "classifier.5"),
), layouts=((r"fc1", flattened_square(16)),))
