"""The geometry of features: alike representations, principal components, and shifted images."""

from __future__ import annotations

import functools
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.analysis.receptive_field import endpoint_fields
from cnnjax.types import UserError


class Principal(NamedTuple):
    """The principal components of a set of features.

    Attributes:
      points: (n, components), the features along them, for a map of the data.
      components: (components, d), of length 1, the one of largest variance first.
      explained: (components,), the fraction of the variance that each explains.
    """

    points: np.ndarray
    components: np.ndarray
    explained: np.ndarray


class TranslationCurve(NamedTuple):
    """How much an endpoint of a shifted image differs from the shifted endpoint of the image.

    Attributes:
      shifts: in pixels, to the right and down alike.
      difference: for each shift, |a - b| / |b| in L2, mean over the images: 0 is equivariance, or
        for features and logits invariance.
    """

    shifts: np.ndarray
    difference: np.ndarray


def linear_cka(x: Any, y: Any) -> float:
    """Returns how alike two representations of the same examples are, from 0 to 1.

        |Y^T X|^2 / (|X^T X| |Y^T Y|)    in the Frobenius norm, columns centred

    It is 1 for representations that are the same but for a rotation, a shift and a scale, and
    compares layers of different widths and models.

    Args:
      x, y: (n, …) of the same n examples; what follows is flattened.

    Raises:
      UserError: if the numbers of examples differ, or one doesn't vary.

    Source: Kornblith, Norouzi, Lee & Hinton, arXiv 1905.00414, section 3.
    """
    return float(cka_matrix((x, y))[0, 1])


def cka_matrix(layers: Sequence[Any]) -> np.ndarray:
    """Returns (n, n), how alike each two of n layers are: `linear_cka` of all pairs.

    Args:
      layers: each (examples, …), of the same examples.

    Raises:
      UserError: as `linear_cka`; or if there is no layer.
    """
    if not len(layers):
        raise UserError("cka_matrix compares layers; give one or more.")
    counts = sorted({len(layer) for layer in layers})
    if len(counts) > 1:
        raise UserError(f"linear_cka compares the same examples in two layers; there are "
                        f"{counts[0]} and {counts[-1]}.")
    # Products of examples rather than of features: there are fewer examples, as a rule.
    grams = [(rows @ rows.T).ravel() for rows in map(_rows, layers)]
    norms = [np.linalg.norm(gram) for gram in grams]
    if min(norms) == 0:
        raise UserError("linear_cka: the features of one layer are the same for all examples.")
    grams = np.stack([gram / norm for gram, norm in zip(grams, norms, strict=True)])
    return grams @ grams.T


def pca(features: Any, components: int = 2) -> Principal:
    """Returns the principal components of features, by a singular value decomposition.

    Args:
      features: (n, …); what follows is flattened.
      components: how many, at most n and the number of features.

    Raises:
      UserError: if there are not as many components.
    """
    x = _rows(features)
    if not 1 <= components <= min(x.shape):
        raise UserError(f"pca: {x.shape[0]} examples of {x.shape[1]} features have 1 to "
                        f"{min(x.shape)} components, not {components}.")
    left, values, right = np.linalg.svd(x, full_matrices=False)
    variances = values**2
    # The sign is arbitrary: the largest entry of each component is made positive.
    signs = np.sign(right[np.arange(len(right)), np.abs(right).argmax(1)])
    points = left * values * signs
    explained = variances / max(variances.sum(), np.finfo(np.float64).tiny)
    return Principal(points[:, :components], (right * signs[:, None])[:components],
                     explained[:components])


def shifted(images: Any, pixels: int) -> jax.Array:
    """Returns images (N, H, W, C) moved right and down; zeros come in at the left and the top."""
    height, width = images.shape[1:3]
    edges = ((0, 0), (pixels, 0), (pixels, 0), (0, 0))
    return jnp.pad(images, edges)[:, :height, :width]


def translation_curve(module: nn.Module, variables: Any, images: Any, endpoint: str,
                      shifts: Sequence[int]) -> TranslationCurve:
    """Returns how an endpoint changes as the images are shifted.

    A map is compared where its positions see neither the border nor what came in: position
    i + s // stride of the shifted image with position i. A convolution of stride 1 is exactly
    equivariant there; a stride or a pooling only for shifts by multiples of it, which shows as a
    saw-tooth. Features and logits are compared whole.

    Args:
      module: any module of `create_model`'s contract.
      variables: of the module.
      images: (N, H, W, C).
      endpoint: a name of `module.endpoints`.
      shifts: from 0 on, in pixels.

    Raises:
      UserError: if there is no such endpoint, a shift is negative or no integer, or the field of no
        position lies within the image.
    """
    field = endpoint_fields(module, images.shape, endpoint)[endpoint]
    if not all(isinstance(shift, numbers.Integral) and shift >= 0 for shift in shifts):
        raise UserError(f"translation_curve: shifts are whole pixels from 0 on, got {shifts}.")
    before = np.asarray(_endpoint(module, endpoint, variables, images), np.float64)
    differences = []
    for shift in shifts:
        after = np.asarray(_endpoint(module, endpoint, variables, shifted(images, shift)),
                           np.float64)
        a, b = after, before
        if not field.sees_all and before.ndim == 4:  # A map that was flattened is none any more.
            a, b = (_inside(m, field, images.shape, shift, moved)
                    for m, moved in ((after, True), (before, False)))
        n = len(a)
        distance = np.linalg.norm((a - b).reshape(n, -1), axis=1)
        length = np.linalg.norm(b.reshape(n, -1), axis=1)
        differences.append(np.mean(distance / np.maximum(length, np.finfo(np.float64).tiny)))
    return TranslationCurve(np.asarray(shifts), np.asarray(differences))


def _inside(found: np.ndarray, field, shape: Sequence[int], shift: int,
            moved: bool) -> np.ndarray:
    """The positions of a map whose fields stay within the image and its content when shifted."""
    for axis in (0, 1):
        start, stride, size = field.start[axis], field.stride[axis], field.size[axis]
        steps = shift // stride
        # Of the image as it was: from its first whole field to the last that is still whole after
        # the shift, whose field there begins up to a stride earlier, in what came in.
        first = -(start // stride) + (shift % stride > 0)
        last = (shape[axis + 1] - size - start) // stride - steps
        # A module that crops has a map without some of these.
        first, last = max(first, 0), min(last, found.shape[axis + 1] - 1 - steps)
        if last < first:
            raise UserError(
                f"translation_curve: no position of a {shape[1]}x{shape[2]} image, shifted by "
                f"{shift} pixels, has its field of {size} pixels inside; use larger images or "
                "smaller shifts.")
        offset = steps if moved else 0
        found = np.take(found, np.arange(first, last + 1) + offset, axis=axis + 1)
    return found


@functools.partial(jax.jit, static_argnums=(0, 1))
def _endpoint(module, endpoint, variables, images):
    return module.apply(variables, images, train=False, capture=(endpoint,))[1][endpoint]


def _rows(features: Any) -> np.ndarray:
    """(n, d) in float64, with columns of mean 0."""
    x = np.asarray(features, np.float64)
    x = x.reshape(len(x), -1)
    return x - x.mean(0)
