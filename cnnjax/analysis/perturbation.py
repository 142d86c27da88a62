"""Which pixels a model's answer comes from, by changing them; and whether to trust such a map.

Arguments are those of `attribution`'s functions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.analysis.attribution import chosen, classes_of, logits_of
from cnnjax.analysis.formulas import conv_output_size
from cnnjax.ops.geometry import Pair, pair
from cnnjax.types import UserError


class Curve(NamedTuple):
    """A model's confidence while pixels are taken away or put back.

    Attributes:
      fraction: (steps + 1,) of the pixels that have been changed, from 0 to 1.
      probability: (N, steps + 1) of the class.
      score: (N,) the area below: of a deletion the lower, of an insertion the higher the better.
    """

    fraction: np.ndarray
    probability: np.ndarray
    score: np.ndarray


class Randomized(NamedTuple):
    """How alike a map is to that of a model whose last layers are randomised.

    Attributes:
      layer: the first of those layers; all after it are randomised too, as far as they were given.
      correlation: Spearman's rank correlation of the two maps' magnitudes, mean over images.
    """

    layer: str
    correlation: float


def occlusion(module: nn.Module, variables: Any, images: jax.Array, classes: Any = None, *,
              window: int | Pair = 16, stride: int | Pair = 8, fill: float = 0.0) -> np.ndarray:
    """Returns (N, H, W), how much the logit falls when a window around the pixel is covered.

    A pixel has the mean over the windows that cover it; those at the border are cut off there.

    Args:
      module, variables, images, classes: as in `attribution`.
      window: in pixels, one number or (height, width).
      stride: in pixels, not above the window.
      fill: the value of covered pixels; 0 is the mean colour where images are normalised.

    Raises:
      UserError: if a window or a stride is none, or leaves pixels between two windows.

    Source: Zeiler & Fergus, arXiv 1311.2901, section 4.2.
    """
    window, stride = pair(window, "occlusion: window"), pair(stride, "occlusion: stride")
    if any(s > w for s, w in zip(stride, window, strict=True)):
        raise UserError(f"occlusion: a stride of {stride} leaves pixels between windows of "
                        f"{window}; make it the window's size or less.")
    images = jnp.asarray(images)
    classes = classes_of(module, variables, images, classes)
    whole = chosen(logits_of(module, variables, images), classes)
    fallen = np.zeros(images.shape[:3], np.float64)
    covers = np.zeros(images.shape[1:3], np.float64)
    for rows in _windows(images.shape[1], window[0], stride[0]):
        for cols in _windows(images.shape[2], window[1], stride[1]):
            logits = logits_of(module, variables, images.at[:, rows, cols].set(fill))
            fallen[:, rows, cols] += np.asarray(whole - chosen(logits, classes))[:, None, None]
            covers[rows, cols] += 1
    return (fallen / covers).astype(np.float32)


def deletion(module: nn.Module, variables: Any, images: jax.Array, maps: Any,
             classes: Any = None, *, fill: Any = 0.0, steps: int = 16) -> Curve:
    """Returns the class's probability while the pixels are covered, most important ones first.

    Args:
      module, variables, images, classes: as in `attribution`.
      maps: (N, H, W), the importance of each pixel.
      fill: what covers them, broadcast to the images.
      steps: in how many steps all of them are covered.

    Raises:
      UserError: if `maps` has another shape.

    Source: Petsiuk, Das & Saenko, "RISE", arXiv 1806.07421, section 4.3.
    """
    return _curve(module, variables, images, jnp.broadcast_to(
        jnp.asarray(fill, images.dtype), images.shape), maps, classes, images, steps)


def insertion(module: nn.Module, variables: Any, images: jax.Array, maps: Any,
              classes: Any = None, *, fill: Any = 0.0, steps: int = 16) -> Curve:
    """Returns the class's probability while pixels are uncovered, most important ones first.

    Arguments, errors and source are those of `deletion`; the paper starts from a blurred image,
    which `fill` may be.
    """
    return _curve(module, variables, jnp.broadcast_to(
        jnp.asarray(fill, images.dtype), images.shape), images, maps, classes, images, steps)


def randomization_check(attribute: Callable[[Any], jax.Array], variables: Any,
                        layers: Sequence[str | Sequence[str]], *, seed: int = 0
                        ) -> list[Randomized]:
    """Returns how alike a map stays while a model's layers are randomised, from the last one on.

        check = randomization_check(lambda v: saliency(model, v, images, classes), variables,
                                    ("conv1", "conv2", "head"))

    A method whose maps stay as they are shows edges of the image rather than what the model does.
    Layers are randomised by shuffling each of their parameters, and stay so as the next are.

    Args:
      attribute: variables -> (N, …), the maps.
      variables: of the model, with "params".
      layers: the top-level names of the layers in `params`, first to last; or paths with "/"; or
        groups of such, which are randomised at once.
      seed: of the shuffles.

    Raises:
      UserError: if there is no such layer.

    Source: Adebayo et al., "Sanity checks for saliency maps", arXiv 1810.03292, section 3.1.
    """
    original = np.abs(np.asarray(attribute(variables)))
    rng, found = np.random.default_rng(seed), []
    for group in reversed(layers):
        group = (group,) if isinstance(group, str) else tuple(group)
        for layer in group:
            variables = {**variables,
                         "params": _shuffled(variables["params"], layer.split("/"), rng)}
        maps = np.abs(np.asarray(attribute(variables)))
        found.append(Randomized(group[0], float(np.mean([
            _rank_correlation(a, b) for a, b in zip(original, maps, strict=True)]))))
    return found


def _windows(size: int, window: int, stride: int) -> list[slice]:
    """As many windows as cover all pixels; the last may be cut off."""
    window = min(window, size)
    whole = conv_output_size(size, window, stride)
    starts = [i * stride for i in range(whole + ((size - window) % stride > 0))]
    return [slice(start, min(start + window, size)) for start in starts]


def _curve(module, variables, before, after, maps, classes, images, steps) -> Curve:
    maps = np.asarray(maps)
    if maps.shape != images.shape[:3]:
        raise UserError(f"maps must be (N, H, W) = {images.shape[:3]}, one number for each pixel; "
                        f"got shape {maps.shape}. Sum over channels, or use `resized`.")
    if steps < 1:
        raise UserError(f"steps must be 1 or more, got {steps}.")
    classes = classes_of(module, variables, images, classes)
    n, pixels = maps.shape[0], maps[0].size
    # Of equal pixels the first one in row-major order comes first.
    order = np.argsort(-maps.reshape(n, -1), axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable").reshape(maps.shape)
    counts = np.round(np.linspace(0, pixels, steps + 1))
    probability = np.stack([np.asarray(_probability(
        module, variables, jnp.where((rank < count)[..., None], after, before), classes))
        for count in counts], 1)
    fraction = counts / pixels
    return Curve(fraction, probability, np.trapezoid(probability, fraction, axis=1))


@functools.partial(jax.jit, static_argnums=0)
def _probability(module, variables, images, classes):
    return chosen(jax.nn.softmax(module.apply(variables, images, train=False)), classes)


def _shuffled(params: Any, path: Sequence[str], rng: np.random.Generator) -> Any:
    """The parameters with those below a path shuffled, each array within itself."""
    if not path:
        return jax.tree.map(lambda a: jnp.asarray(
            rng.permutation(np.asarray(a).ravel()).reshape(a.shape)), params)
    if not isinstance(params, Mapping):
        raise UserError(f"There is nothing below an array: leave out {'/'.join(['', *path])!r}.")
    if path[0] not in params:
        raise UserError(f"There is no layer {path[0]!r} here; there are: {', '.join(params)}.")
    return {**params, path[0]: _shuffled(params[path[0]], path[1:], rng)}


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation; equal values share their mean rank."""
    ranks = [_ranks(values.ravel()) for values in (a, b)]
    if any(rank.std() == 0 for rank in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[inverse]
