"""Which pixels a model's answer comes from, by its derivatives.

Every function takes a module of `create_model`'s contract, its variables and images as the model
takes them (N, H, W, C), and asks about the logits of `classes`: integers (N,), or None for the
class that the model itself puts first.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.analysis import rewrite
from cnnjax.types import UserError


class Integrated(NamedTuple):
    """Integrated gradients.

    Attributes:
      values: (N, H, W, C), how much each number of the image moved the logit.
      completeness_error: (N,), |sum of values - (logit - baseline's logit)| as a fraction of
        |logit - baseline's logit|; 0 for an exact integral.
    """

    values: jax.Array
    completeness_error: jax.Array


def predict_classes(module: nn.Module, variables: Any, images: jax.Array) -> jax.Array:
    """Returns (N,) the classes that the model puts first."""
    return logits_of(module, variables, images).argmax(-1)


def input_gradient(module: nn.Module, variables: Any, images: jax.Array,
                   classes: Any = None) -> jax.Array:
    """Returns (N, H, W, C), the derivative of each image's logit by its pixels."""
    return _gradient(module, variables, images, classes_of(module, variables, images, classes))


def saliency(module: nn.Module, variables: Any, images: jax.Array,
             classes: Any = None) -> jax.Array:
    """Returns (N, H, W, C), the magnitude of the derivative (arXiv 1312.6034, section 3)."""
    return jnp.abs(input_gradient(module, variables, images, classes))


def smooth_grad(module: nn.Module, variables: Any, images: jax.Array, classes: Any = None, *,
                noise: float = 0.15, samples: int = 32, seed: int = 0) -> jax.Array:
    """Returns (N, H, W, C), the mean derivative of noisy copies of the image.

    Args:
      module, variables, images, classes: see this file's docstring. The class is that of the
        image without noise.
      noise: standard deviation, as a fraction of each image's range max - min.
      samples: copies of each image.
      seed: of the noise.

    Source: Smilkov et al., "SmoothGrad", arXiv 1706.03825, section 3.1.
    """
    _at_least("smooth_grad", samples=samples)
    classes = classes_of(module, variables, images, classes)
    spread = noise * (images.max((1, 2, 3)) - images.min((1, 2, 3)))[:, None, None, None]
    total = jnp.zeros_like(images)
    for key in jax.random.split(jax.random.key(seed), samples):
        noisy = images + spread * jax.random.normal(key, images.shape, images.dtype)
        total += _gradient(module, variables, noisy, classes)
    return total / samples


def integrated_gradients(module: nn.Module, variables: Any, images: jax.Array,
                         classes: Any = None, *, baseline: Any = 0.0,
                         steps: int = 128) -> Integrated:
    """Returns the derivative integrated along the line from a baseline to the image.

        values = (x - b) * integral from 0 to 1 of f'(b + a (x - b)) da

    The values of an image add up to the difference of the two logits. The integral is a
    Gauss-Legendre sum; its error against that identity comes with it.

    Args:
      module, variables, images, classes: see this file's docstring.
      baseline: what stands for no image, broadcast to the images; 0 is the mean colour where
        images are normalised.
      steps: points of the sum. ReLUs have corners, so that the error falls slowly with them.

    Source: Sundararajan, Taly & Yan, arXiv 1703.01365, section 3.
    """
    _at_least("integrated_gradients", steps=steps)
    classes = classes_of(module, variables, images, classes)
    baseline = jnp.broadcast_to(jnp.asarray(baseline, images.dtype), images.shape)
    points, weights = np.polynomial.legendre.leggauss(steps)
    total = jnp.zeros_like(images)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        between = baseline + jnp.asarray(point, images.dtype) * (images - baseline)
        total += jnp.asarray(weight, images.dtype) * _gradient(module, variables, between, classes)
    values = (images - baseline) * total
    rise = (chosen(logits_of(module, variables, images), classes)
            - chosen(logits_of(module, variables, baseline), classes))
    missed = jnp.abs(values.sum((1, 2, 3)) - rise)
    # An image that is the baseline has neither a rise nor an error.
    return Integrated(values, jnp.where(missed == 0, 0, missed / jnp.abs(rise)))


def guided_backprop(module: nn.Module, variables: Any, images: jax.Array,
                    classes: Any = None) -> jax.Array:
    """Returns (N, H, W, C), the derivative with ReLUs that pass only positive derivatives back.

    ReLU and ReLU6 are replaced wherever the model has them; other activations have no rule in the
    paper and keep their derivatives. The map depends little on the class, and on the weights less
    than it seems (arXiv 1810.03292): see `randomization_check`.

    Source: Springenberg et al., arXiv 1412.6806, section 3.4.
    """
    return _guided(module, variables, images, classes_of(module, variables, images, classes))


def grad_cam(module: nn.Module, variables: Any, images: jax.Array, endpoint: str,
             classes: Any = None) -> jax.Array:
    """Returns (N, h, w) >= 0, where on an endpoint's map the evidence for the class is.

        relu(sum over c of w_c A_c),    w_c = mean over the map of d logit / d A_c

    Args:
      module, variables, images, classes: see this file's docstring.
      endpoint: a name of `module.endpoints` that is a map; the last one is usual. `resized` brings
        the result to the image's size.

    Raises:
      UserError: if `endpoint` is no map of this model.

    Source: Selvaraju et al., arXiv 1610.02391, eqs. 1 and 2.
    """
    a, da = _map_and_gradient(module, variables, images, endpoint, classes)
    return jax.nn.relu((a * da.mean((1, 2), keepdims=True)).sum(-1))


def grad_cam_plus_plus(module: nn.Module, variables: Any, images: jax.Array, endpoint: str,
                       classes: Any = None) -> jax.Array:
    """Returns (N, h, w) >= 0 as `grad_cam`, with weights that find every instance of the class.

        w_c = sum over (i, j) of alpha_cij relu(d logit / d A_cij)
        alpha_cij = g^2 / (2 g^2 + sum over the map of A_c times g^3),    g = d logit / d A_cij

    Arguments and errors are those of `grad_cam`.

    Source: Chattopadhyay et al., arXiv 1710.11063, eqs. 10 and 19, for the exponential of the
    logit, whose own factor is the same for the whole map.
    """
    a, g = _map_and_gradient(module, variables, images, endpoint, classes)
    below = 2 * g**2 + a.sum((1, 2), keepdims=True) * g**3
    alpha = jnp.where(g != 0, g**2 / jnp.where(below == 0, 1, below), 0)
    weights = (alpha * jax.nn.relu(g)).sum((1, 2), keepdims=True)
    return jax.nn.relu((a * weights).sum(-1))


def resized(maps: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Returns maps (N, h, w) at an image's (height, width), bilinearly."""
    return jax.image.resize(maps, (maps.shape[0], *size), "bilinear")


def classes_of(module: nn.Module, variables: Any, images: jax.Array, classes: Any) -> jax.Array:
    """Returns (N,) integers, `classes` or, for None, those that the model puts first.

    Raises:
      UserError: if they are not classes of the model, one for each image or one for all.
    """
    if classes is None:
        return predict_classes(module, variables, images)
    count, given = images.shape[0], np.asarray(classes)
    outputs = jax.eval_shape(logits_of, module, variables, images).shape[-1]
    if (given.shape not in ((), (1,), (count,)) or not np.issubdtype(given.dtype, np.integer)
            or not ((given >= 0) & (given < outputs)).all()):
        raise UserError(f"classes must be integers from 0 to {outputs - 1}, one for each of the "
                        f"{count} images or one for all; got {classes}.")
    return jnp.broadcast_to(jnp.asarray(given), (count,))


@functools.partial(jax.jit, static_argnums=0)
def logits_of(module: nn.Module, variables: Any, images: jax.Array) -> jax.Array:
    """Returns (N, K), the model's answer in evaluation."""
    return module.apply(variables, images, train=False)


def chosen(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """Returns (N,) of (N, K), the value of each row's class."""
    return jnp.take_along_axis(logits, classes[:, None], -1)[:, 0]


def _map_and_gradient(module, variables, images, endpoint, classes):
    """An endpoint (N, h, w, C) and the derivative of the logit by it."""
    shape = jax.eval_shape(lambda: module.apply(
        variables, images, train=False, capture=(endpoint,))[1][endpoint])
    if len(shape.shape) != 4:
        raise UserError(f"{endpoint!r} is no map of (N, h, w, C) but has shape {shape.shape}. The "
                        f"endpoints are: {', '.join(module.endpoints)}.")
    shift = jnp.zeros(shape.shape, shape.dtype)
    return _map_gradient(module, endpoint, variables, images, shift,
                         classes_of(module, variables, images, classes))


@functools.partial(jax.jit, static_argnums=0)
def _gradient(module, variables, images, classes):
    # Images don't influence one another in evaluation, so the sum has each one's own derivative.
    return jax.grad(lambda x: chosen(module.apply(variables, x, train=False), classes).sum())(
        images)


@functools.partial(jax.jit, static_argnums=0)
def _guided(module, variables, images, classes):
    return jax.grad(lambda x: chosen(rewrite.guided_logits(module, variables, x), classes).sum())(
        images)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _map_gradient(module, endpoint, variables, images, shift, classes):
    def summed(shift):
        logits, found = rewrite.logits_and_map(module, variables, images, endpoint, shift)
        return chosen(logits, classes).sum(), found

    gradient, found = jax.grad(summed, has_aux=True)(shift)
    return found, gradient


def _at_least(function: str, **values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise UserError(f"{function}: {name} must be 1 or more, got {value}.")
