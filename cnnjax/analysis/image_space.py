"""Spaces in which an image is optimised: frequencies or pixels, and decorrelated colours.

A step of gradient descent depends on the coordinates. In pixels it makes noise of high frequency,
which moves a network most; in frequencies divided by their size, and in colours without the
correlation that natural images have, every direction is as far away as natural images vary along
it (Olah, Mordvintsev & Schubert, "Feature Visualization", Distill 2017,
doi 10.23915/distill.00007, "Preconditioning and Parameterization").
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.types import UserError

Parameterisation = Literal["fourier", "pixels"]
PARAMETERISATIONS = ("fourier", "pixels")

# A square root of the covariance of ImageNet's colours (red, green, blue), one column a component:
# brightness, red against blue, green against both. From Lucid, optvis/param/color.py.
IMAGENET_COLORS = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
# Lucid's as well (optvis/param/spatial.py, images.py): the spread of the start, and a divisor of
# the image before the sigmoid, which keeps a step of Adam from saturating it.
START_STD = 0.01
DAMPING = 4.0


def fourier_scale(height: int, width: int) -> np.ndarray:
    """Returns (height, width // 2 + 1), 1 / frequency in pixels, at most the longer side.

    The spectrum of natural images falls off like that (Field 1987); frequencies are those of
    `numpy.fft.rfft2`.
    """
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    return 1.0 / np.maximum(np.hypot(fy, fx), 1.0 / max(height, width))


def fourier_image(spectrum: jax.Array, height: int, width: int) -> jax.Array:
    """Returns images (N, height, width, C), before the sigmoid, of a scaled spectrum.

    Args:
      spectrum: (2, N, C, height, width // 2 + 1), real and imaginary part before the division by
        the frequency.
      height, width: in pixels.
    """
    scale = jnp.asarray(fourier_scale(height, width) / DAMPING, spectrum.dtype)
    frequencies = jax.lax.complex(spectrum[0] * scale, spectrum[1] * scale)
    image = jnp.fft.irfft2(frequencies, s=(height, width), norm="ortho")
    return image.transpose(0, 2, 3, 1)


def color_basis(images: Any) -> np.ndarray:
    """Returns (C, C), a square root of the covariance of a data set's colours.

        covariance = basis basis^T

    Args:
      images: (N, H, W, C) in [0, 1].

    Raises:
      UserError: if the images have another shape.
    """
    images = np.asarray(images, np.float64)
    if images.ndim != 4:
        raise UserError(f"color_basis takes images of (N, H, W, C), got shape {images.shape}.")
    covariance = np.atleast_2d(np.cov(images.reshape(-1, images.shape[-1]), rowvar=False))
    vectors, values, _ = np.linalg.svd(covariance)
    return vectors * np.sqrt(values)


def normalised_colors(colors: Any, channels: int) -> np.ndarray:
    """Returns (C, C), a basis of colours whose longest component is 1.

    Args:
      colors: "imagenet", a basis as of `color_basis`, or None for the channels as they are. Images
        of other than 3 channels have no ImageNet colours and stay as they are.
      channels: C.

    Raises:
      UserError: if it is none of these.
    """
    if colors is None or (isinstance(colors, str) and colors == "imagenet" and channels != 3):
        return np.eye(channels, dtype=np.float32)
    basis = IMAGENET_COLORS if isinstance(colors, str) and colors == "imagenet" else colors
    if isinstance(basis, str) or np.shape(basis) != (channels, channels):
        raise UserError(f"colors must be 'imagenet', None or an array of ({channels}, {channels}) "
                        f"as color_basis(images) returns; got {colors!r}.")
    basis = np.asarray(basis)
    return np.asarray(basis / np.linalg.norm(basis, axis=0).max(), np.float32)


def start(key: jax.Array, number: int, height: int, width: int, channels: int,
          parameterisation: Parameterisation) -> jax.Array:
    """Returns the coordinates of `number` images of faint noise; an image's depend on its place.

    Args:
      key: of the noise.
      number, height, width, channels: N, H, W, C.
      parameterisation: "fourier" or "pixels".

    Returns:
      (2, N, C, H, W // 2 + 1) or (N, H, W, C).

    Raises:
      UserError: if there is no such parameterisation.
    """
    if parameterisation not in PARAMETERISATIONS:
        raise UserError(f"parameterisation must be one of {', '.join(PARAMETERISATIONS)}, got "
                        f"{parameterisation!r}.")
    fourier = parameterisation == "fourier"
    shape = (2, channels, height, width // 2 + 1) if fourier else (height, width, channels)
    return START_STD * noise(key, jnp.arange(number), shape)


def noise(key: jax.Array, places: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns coordinates of images, normal of spread 1; an image's depend on its place.

    Args:
      key: of the noise.
      places: (N,) integers.
      shape: of an image's coordinates.

    Returns:
      (2, N, C, H, W // 2 + 1) for a shape of (2, C, H, W // 2 + 1), or (N, H, W, C).
    """
    keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(places)
    found = jax.vmap(lambda k: jax.random.normal(k, shape))(keys)
    return found.swapaxes(0, 1) if len(shape) == 4 else found


def rendered(coordinates: jax.Array, basis: jax.Array, height: int, width: int) -> jax.Array:
    """Returns images (N, H, W, C) in (0, 1).

    Args:
      coordinates: as `start` returns them.
      basis: (C, C) of the colours, as `normalised_colors` returns it.
      height, width: in pixels.
    """
    image = fourier_image(coordinates, height, width) if coordinates.ndim == 5 else coordinates
    return jax.nn.sigmoid(image @ basis.T)
