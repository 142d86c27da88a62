"""Noise, as functions of one image: (key, float [H, W, C] in [0, 1], strength) -> likewise."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def gaussian_noise(key: jax.Array, image: jax.Array, std: float) -> jax.Array:
    """Adds N(0, std^2) to every value."""
    return image + std * jax.random.normal(key, image.shape)


def shot_noise(key: jax.Array, image: jax.Array, photons: float) -> jax.Array:
    """Draws every value from the Poisson distribution of this many photons for white."""
    return jax.random.poisson(key, image * photons).astype(jnp.float32) / photons


def impulse_noise(key: jax.Array, image: jax.Array, amount: float) -> jax.Array:
    """Makes this share of the values 0 or 1, each as often ("salt and pepper")."""
    hit, salt = jax.random.uniform(key, (2, *image.shape))
    return jnp.where(hit < amount, (salt < 0.5).astype(jnp.float32), image)
