"""Images that start from an image: DeepDream, and the inversion of features."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnnjax import ops
from cnnjax.analysis import image_space, wobble
from cnnjax.analysis.maximisation import Setting, endpoint_shapes, image_size, normalisation
from cnnjax.types import Preprocess, UserError


class Inverted(NamedTuple):
    """An image made from features.

    Attributes:
      image: (H, W, C) in [0, 1].
      history: (steps,), |features - those of the image|^2 / |features|^2.
    """

    image: np.ndarray
    history: np.ndarray


def deep_dream(module: nn.Module, variables: Any, image: Any, endpoint: str, *,
               channel: int | None = None, octaves: int = 3, octave_scale: float = 1.4,
               steps: int = 20, step_size: float = 0.01, shift: float = 16.0, seed: int = 0,
               preprocess: Preprocess | None = None) -> np.ndarray:
    """Returns an image in which whatever a layer sees in it is made stronger.

    Ascent of the mean square of the endpoint, from a small copy of the image to its full size: what
    was added at one size is enlarged to the next. Each gradient is smoothed, its components divided
    by the root of their frequency and its mean taken away, and divided by its mean magnitude.

    Args:
      module: any module of `create_model`'s contract.
      variables: of the module.
      image: (H, W, C) in [0, 1].
      endpoint: a name of `module.endpoints`.
      channel: one channel of it; None is all.
      octaves: sizes.
      octave_scale: from one size to the next.
      steps: at each size.
      step_size: of a pixel in one step, on average, in units of [0, 1].
      shift: pixels by which the image is moved at random before each step, in a circle, which
        spreads the seams of the network's own grid.
      seed: of the shifts.
      preprocess: whose mean and std the network wants; None shows it the image as it is.

    Returns:
      (H, W, C) in [0, 1].

    Raises:
      UserError: if there is no such endpoint or channel, or the image is no image.

    Source: Mordvintsev, Olah & Tyka, "Inceptionism", Google Research blog, June 2015.
    """
    image = _image(image)
    for name, value in (("octaves", octaves), ("steps", steps)):
        if value < 1:
            raise UserError(f"deep_dream: {name} must be 1 or more, got {value}.")
    height, width, channels = image_size(image.shape[:2], preprocess, image.shape[2])
    setting = Setting(module, (endpoint,), (height, width), wobble.STILL, 0.0, False)
    features = endpoint_shapes(setting, variables, channels)[endpoint][-1]
    if channel is not None and not 0 <= channel < features:
        raise UserError(f"{endpoint!r} has {features} channels, 0 to {features - 1}; there is no "
                        f"{channel}.")
    wanted = jnp.ones(features) if channel is None else jnp.zeros(features).at[channel].set(1.0)
    normal, key = normalisation(preprocess, channels), jax.random.key(seed)
    added = jnp.zeros((1, 1, 1, channels))
    for octave in range(octaves):
        factor = octave_scale ** (octave + 1 - octaves)
        shape = (1, round(height * factor), round(width * factor), channels)
        base = jax.image.resize(jnp.asarray(image)[None], shape, "bilinear")
        added = jax.image.resize(added, shape, "bilinear")
        for step in range(steps):
            drawn = jax.random.fold_in(key, octave * steps + step)
            added = _dream(module, endpoint, variables, normal, wanted, base, added, drawn, shift,
                           step_size)
    return np.clip(np.asarray(base + added)[0], 0, 1)


def invert_features(module: nn.Module, variables: Any, image: Any, endpoint: str, *,
                    steps: int = 256, tv_weight: float = 0.05, seed: int = 0,
                    preprocess: Preprocess | None = None,
                    parameterisation: image_space.Parameterisation = "fourier",
                    colors: Any = "imagenet", lr: float = 0.05) -> Inverted:
    """Makes an image whose features are those of a given image: what a layer has kept of it.

    Adam on

        |features - target|^2 / |target|^2  +  tv_weight * mean |difference of neighbours|

    from faint noise. The first term is the paper's; its prior, the total variation, is taken with
    the power 1, and the frequencies of `image_space` are a prior as well.

    Args:
      module: any module of `create_model`'s contract.
      variables: of the module.
      image: (H, W, C) in [0, 1].
      endpoint: a name of `module.endpoints`.
      steps: of Adam.
      tv_weight: of the total variation.
      seed: of the noise.
      preprocess, parameterisation, colors, lr: as in `maximise`.

    Raises:
      UserError: if there is no such endpoint, or the image is no image.

    Source: Mahendran & Vedaldi, "Understanding deep image representations by inverting them",
    arXiv 1412.0035, eqs. 1 to 3.
    """
    image = _image(image)
    if steps < 1:
        raise UserError(f"invert_features: steps must be 1 or more, got {steps}.")
    height, width, channels = image_size(image.shape[:2], preprocess, image.shape[2])
    setting = Setting(module, (endpoint,), (height, width), wobble.STILL, lr, False)
    endpoint_shapes(setting, variables, channels)
    normal = normalisation(preprocess, channels)
    basis = jnp.asarray(image_space.normalised_colors(colors, channels))
    target = _features(module, endpoint, variables, (image[None] - normal[0]) / normal[1])
    if not np.any(np.asarray(target)):
        raise UserError(f"Nothing of {endpoint!r} is active for this image: there is nothing to "
                        "make an image of.")
    coordinates = image_space.start(jax.random.key(seed), 1, height, width, channels,
                                    parameterisation)
    state, history = (coordinates, optax.adam(lr).init(coordinates)), []
    for _ in range(steps):
        state, seen = _inversion(setting, variables, basis, normal, target, tv_weight, state)
        history.append(seen)
    found = image_space.rendered(state[0], basis, height, width)[0]
    return Inverted(np.asarray(found), np.array(jax.device_get(history)))


def _image(image: Any) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim != 3 or image.dtype == np.uint8 or image.min() < 0 or image.max() > 1:
        raise UserError("The image must be (H, W, C) of numbers from 0 to 1 (divide uint8 by 255); "
                        f"got {image.dtype} of shape {image.shape}.")
    return image.astype(np.float32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _features(module, endpoint, variables, images):
    with ops.training():  # See maximisation._activations.
        return module.apply(variables, images, train=False, capture=(endpoint,))[1][endpoint]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _dream(module, endpoint, variables, normal, wanted, base, added, key, shift, step_size):
    mean, std = normal
    limit = jnp.minimum(shift, min(base.shape[1:3]) / 2)
    move = jnp.round(jax.random.uniform(key, (2,), minval=-1, maxval=1) * limit).astype(int)

    def strength(added):
        images = jnp.roll((base + added - mean) / std, move, (1, 2))
        found = _features(module, endpoint, variables, images).astype(jnp.float32)
        return jnp.mean(found**2 * wanted)

    # In pixels the finest pattern that the layer answers to would cover whatever is plain; divided
    # by the whole of their frequencies, as in `image_space`, the slow ones would take the colours
    # of the picture with them. The root is between, and its mean stays.
    size = base.shape[1:3]
    spectrum = jnp.fft.rfft2(jax.grad(strength)(added), axes=(1, 2))
    scale = np.sqrt(image_space.fourier_scale(*size))
    scale[0, 0] = 0
    scale = jnp.asarray(scale, jnp.float32)[None, ..., None]
    gradient = jnp.fft.irfft2(spectrum * scale, s=size, axes=(1, 2))
    magnitude = jnp.abs(gradient).mean()
    added = added + step_size * gradient / jnp.where(magnitude > 0, magnitude, 1)
    return jnp.clip(base + added, 0, 1) - base


@functools.partial(jax.jit, static_argnums=0, donate_argnums=6)
def _inversion(setting, variables, basis, normal, target, tv_weight, state):
    mean, std = normal
    coordinates, memory = state

    def loss(coordinates):
        image = image_space.rendered(coordinates, basis, *setting.size)
        found = _features(setting.module, setting.endpoints[0], variables, (image - mean) / std)
        error = jnp.sum((found - target).astype(jnp.float32)**2) / jnp.sum(
            target.astype(jnp.float32)**2)
        variation = sum(jnp.abs(jnp.diff(image, axis=axis)).mean() for axis in (1, 2))
        return error + tv_weight * variation, error

    gradient, error = jax.grad(loss, has_aux=True)(coordinates)
    update, memory = optax.adam(setting.learning_rate).update(gradient, memory)
    return (coordinates + update, memory), error
