"""Reading examples, and reading on without those that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cnnjax.data import dataset
from cnnjax.data.bad_examples import BadExample
from cnnjax.data.dataset import RandomAccess, Split
from cnnjax.types import UserError


def read_each(source: RandomAccess, indices: Sequence[int]
              ) -> Iterator[tuple[np.ndarray, int] | BadExample]:
    """Yields `dataset.read_many`, with the error of a bad example in its place.

    Raises:
      Exception: whatever else is wrong.
    """
    done = 0
    while done < len(indices):
        try:
            for example in dataset.read_many(source, indices[done:]):
                yield example
                done += 1
            return
        except BadExample as error:  # Which has ended the iterator.
            yield error
            done += 1


class Reader:
    """Reads the examples of a split, all of one shape once they are transformed.

    With `skip`, a bad example is replaced by the first good one of those 1, 3, 7, 15, … places
    after it, the split being a ring: a function of its index alone, so that batches do not depend
    on threads, hosts or where a run was resumed. Of a damaged shard the next good example would
    take the place of all n; so none takes that of more than log2(n) + 1.

    Args:
      split: where they come from.
      skip: whether to replace bad examples; else they are raised.
    """

    def __init__(self, split: Split, skip: bool):
        self.skip, self._split = skip, split
        # What was found before, for speed; and libpng would complain anew in each epoch.
        self._replacements: dict[int, int] = {}
        self._bad: dict[int, BadExample] = {}
        self._behind: dict[int, int] = {}  # Of a bad one: all up to this one are bad.

    def read(self, indices: Sequence[int]
             ) -> Iterator[tuple[int, tuple[np.ndarray, int], BadExample | None]]:
        """Yields (index, example, None), or (index, another example, what is wrong with its own).

        Raises:
          BadExample: for the first one, unless they are skipped.
          UserError: if no example of the split can be read.
        """
        for index, example in zip(indices, self.each(indices), strict=True):
            if not isinstance(example, BadExample):
                yield index, example, None
            elif self.skip:
                yield index, self._replacement(index), example
            else:
                raise example.of_a_data_set() from None

    def each(self, indices: Sequence[int]) -> Iterator[tuple[np.ndarray, int] | BadExample]:
        """Yields the examples, or what is wrong with them; an image of another size than all is."""
        known = {i: self._bad[i] for i in indices if i in self._bad}
        examples = read_each(self._split.source, [i for i in indices if i not in known])
        for index in indices:
            example = known.get(index) or self._checked(index, next(examples))
            if isinstance(example, BadExample):
                # A copy, because the traceback of an error holds on to what was read.
                self._bad[index] = BadExample(example.name, example.reason, example.advice)
            yield example

    def _checked(self, index: int, example: tuple[np.ndarray, int] | BadExample
                 ) -> tuple[np.ndarray, int] | BadExample:
        if isinstance(example, BadExample):
            return example
        return self._split.of_another_size(index, example[0]) or example

    def _replacement(self, bad: int) -> tuple[np.ndarray, int]:
        known = self._replacements.get(bad)
        for index in self._others(bad) if known is None else [known]:
            example = next(self.each([index]))
            if not isinstance(example, BadExample):
                self._replacements[bad] = index
                return example
        return self.check_some(len(self._split))

    def _others(self, index: int) -> Iterator[int]:
        """Yields those that may replace a bad example: in steps that double, and then the next."""
        count = len(self._split)
        for doublings in range(1, count.bit_length()):
            yield (index + 2**doublings - 1) % count
        while len(self._bad) < count:
            yield self._first_not_bad(index)

    def _first_not_bad(self, index: int) -> int:
        """Returns the first, from an example on, that is not known to be bad.

        Where nearly all are, the way to it is long, so that each is passed once (a disjoint-set
        forest, of which all that was passed is hung at its root).
        """
        passed, count = [], len(self._split)
        while index in self._bad and len(self._bad) < count:
            passed.append(index)
            index = self._behind.get(index, (index + 1) % count)
        self._behind.update(dict.fromkeys(passed, index))
        return index

    def check_some(self, bad: int) -> None:
        """Raises a UserError if so many bad examples are all there are."""
        if bad == len(self._split):
            first = next(self.each([0]))
            raise UserError(f"None of the {bad:,} examples of {self._split.name} can be read. The "
                            f"first: {first}")
