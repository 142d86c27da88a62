"""Which formulations the dispatchers may choose from."""

from __future__ import annotations

import contextlib

import jax

from cnnjax.types import UserError, did_you_mean

CHOICES = {
    "auto": "the fastest formulation measured for the shape and the backend",
    "xla": "what XLA makes of the plain definition, differentiated by JAX",
}

# A user context is part of jax.jit's cache key, so a function compiled under one choice is
# compiled again, not reused, under another.
_choice = jax.make_user_context("auto")


def _checked(choice: str) -> str:
    if choice not in CHOICES:
        listing = ", ".join(repr(c) for c in CHOICES)
        raise UserError(f"{choice!r} is no set of formulations; there are {listing}."
                        f"{did_you_mean(str(choice), CHOICES)}")
    return choice


def using(choice: str) -> contextlib.AbstractContextManager:
    """Returns a context in which operations are traced with the given formulations.

        with ops.using("xla"):
            reference = jax.jit(loss)(params, batch)

    The choice is read while a function is traced. It is part of `jax.jit`'s cache key, so the same
    jitted function may be called inside and outside: each choice has its own compilation. What was
    compiled ahead of time (`jit(f).lower(…).compile()`) keeps the choice it was traced under.

    Args:
      choice: "auto", the fastest formulation measured for the shape and the backend, or "xla", the
        plain definition, differentiated by JAX. Forward-mode derivatives (`jax.jvp`,
        `jax.linearize`) need "xla": several formulations bring a backward pass of their own.

    Raises:
      UserError: if `choice` is neither.
    """
    return _choice(_checked(choice))


def set_default(choice: str) -> None:
    """Sets, for all threads, the choice that holds outside of any `using`.

    Args:
      choice: as in `using`. A program starts with "auto".

    Raises:
      UserError: if `choice` is none of these.
    """
    _choice.set_global(_checked(choice))


def tuned_for(*backends: str) -> bool:
    """Whether a formulation for these backends ("cpu", "gpu", "tpu"; none is all) may be chosen.

    The backend is JAX's default one. A function placed by hand on another is still computed
    correctly, by formulations chosen for the default.
    """
    return _choice.value == "auto" and (not backends or jax.default_backend() in backends)
