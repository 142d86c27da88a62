"""The order of training examples, as a pure function of a seed and a position."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

# One Philox stream is (key, counter). A counter block of its own for each use keeps, say, the
# crop of example 0 from being a function of the numbers that shuffled epoch 0.
ORDER, SPLIT, CROP = 0, 1, 2


def random_bits(seed: int, stream: int, purpose: int, count: int) -> np.ndarray:
    """Returns `count` uint64 random numbers: a pure function of the first three arguments.

    These are the raw words of Philox, which NumPy promises never to change (NEP 19); what its
    `Generator` makes of them, such as `permutation`, may change with any release.

    Args:
      seed: any integer; taken modulo 2**64.
      stream: 0 to 2**64 - 1, such as an epoch.
      purpose: `ORDER`, `SPLIT` or `CROP`.
      count: how many.
    """
    key = np.array([seed % 2**64, stream], np.uint64)
    counter = np.array([0, 0, 0, purpose], np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(count)


def permutation(seed: int, stream: int, purpose: int, count: int) -> np.ndarray:
    """Returns a random permutation of 0..count-1, int32 [count]."""
    bits = random_bits(seed, stream, purpose, count)
    return np.argsort(bits, kind="stable").astype(np.int32)


class TrainOrder:
    """Which example stands at which position of an endless shuffled training stream.

    Position p = step * batch_size + row belongs to epoch p // n and holds example
    permutation(seed, epoch)[p % n]. So every example comes exactly once an epoch, a batch may
    straddle two epochs, and any position is reached without state: a run that resumes at step
    s asks for the positions from s * batch_size on, and gets what it would have got. Neither
    the number of devices nor that of hosts or threads enters.

    With repeated augmentation (arXiv 1901.09335; 1902.05509) an example stands at `repeats`
    positions in a row, to be augmented differently at each, and an epoch of n positions holds
    n / repeats of the examples: position p holds permutation(seed, epoch)[(p % n) // repeats].
    That is the order of DeiT's and timm's sampler.

    Args:
      seed: any integer.
      n: number of examples, 1 or more.
      repeats: how often each example of an epoch comes, 1 or more.
    """

    def __init__(self, seed: int, n: int, repeats: int = 1):
        if n < 1 or repeats < 1:
            raise ValueError("TrainOrder needs at least one example and one repeat, got "
                             f"n={n}, repeats={repeats}.")
        self.seed, self.n, self.repeats = seed, n, repeats
        # Two, because a batch that straddles epochs, and threads that read ahead, use both.
        self._epoch = functools.lru_cache(maxsize=2)(
            lambda epoch: permutation(seed, epoch, ORDER, n))

    def at(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Returns the examples at any positions, int32 with the shape of `positions`."""
        epochs, offsets = np.divmod(np.asarray(positions, np.int64), self.n)
        offsets //= self.repeats
        if epochs.size and epochs.min() == epochs.max():  # Nearly every batch.
            return self._epoch(int(epochs.flat[0]))[offsets]
        out = np.empty(epochs.shape, np.int32)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            out[here] = self._epoch(int(epoch))[offsets[here]]
        return out

    def passes(self, positions: np.ndarray) -> np.ndarray:
        """Returns int64 numbers that differ wherever one example comes again: without repeats the
        epoch. What the host draws for an example is a function of this and of its index."""
        epochs, offsets = np.divmod(np.asarray(positions, np.int64), self.n)
        return epochs * self.repeats + offsets % self.repeats
