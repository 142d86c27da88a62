"""Which formulations the dispatchers may choose from.

Some formulations round more than the plain definition does: exact on paper, but less so in float32.
"auto" has them where a little noise does no harm and time matters, in a training step, and nowhere
else. `cnnjax.train.step.train_step` says where that is by `training`; no model or layer knows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

from cnnjax.types import UserError, did_you_mean

CHOICES = {
    "auto": "the fastest formulation measured for the shape and the backend; those that round more "
            "in training steps only",
    "exact": "the fastest of those that round no more than XLA's, in training too",
    "fast": "the fastest, everywhere",
    "xla": "what XLA makes of the plain definition, differentiated by JAX",
}

# A user context is part of jax.jit's cache key, so a function compiled under one choice is
# compiled again, not reused, under another.
_choice = jax.make_user_context("auto")
_training = jax.make_user_context(False)
_without = jax.make_user_context(())
_products = jax.make_user_context("float32")

# What may be left out by its name, besides the rows of `conv.FORMULATIONS`.
OTHERS = ("max_pool", "avg_pool", "dense", "batch_norm", "relu", "silu", "tanh")


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
      choice: "fast", the fastest formulation measured for the shape and the backend; "exact", the
        fastest of those that round no more than XLA's; "auto", the former under `training` and
        else the latter; or "xla", the plain definition, differentiated by JAX. Forward-mode
        derivatives (`jax.jvp`, `jax.linearize`) need "xla": several formulations bring a backward
        pass of their own. Reverse mode works to any order. Arrays with explicit shardings, and
        those that differ between the devices of a `jax.shard_map`, get the plain definition too.

    Raises:
      UserError: if `choice` is none of these.
    """
    return _choice(_checked(choice))


def training() -> contextlib.AbstractContextManager:
    """Returns a context in which "auto" is "fast".

        def loss_fn(params):
            with ops.training():
                logits = model.apply({"params": params}, images, train=True)

    For the forward pass of a loss; its backward pass takes the same formulations, wherever it is
    traced. Other choices stay what they are.
    """
    return _training(True)


def set_default(choice: str) -> None:
    """Sets, for all threads, the choice that holds outside of any `using`.

    Args:
      choice: as in `using`. A program starts with "auto".

    Raises:
      UserError: if `choice` is none of these.
    """
    _choice.set_global(_checked(choice))


def products(dtype: str) -> contextlib.AbstractContextManager:
    """Returns a context in which the factors of products are of this type where "fast" holds.

        with ops.products("bfloat16"), ops.training():
            logits = model.apply({"params": params}, images, train=True)

    With "bfloat16" the factors of 1x1, 5x5 and strided convolutions are rounded to it on CPU,
    forward and backward, and those of Winograd's products but for the kernel's gradient, if the
    operands are float32 and many enough to gain by it; results and all the rest stay float32. It is
    for CPUs with instructions for such products (AVX512-BF16, AMX); without them it is slower. Like
    a choice, it is part of the key of `jax.jit`'s cache.

    Args:
      dtype: "float32" or "bfloat16".

    Raises:
      UserError: if `dtype` is neither.
    """
    return _products(_checked_products(dtype))


def set_products(dtype: str) -> None:
    """Sets, for all threads, what holds outside of any `products`; a program starts with "float32".

    Raises:
      UserError: if `dtype` is neither "float32" nor "bfloat16".
    """
    _products.set_global(_checked_products(dtype))


def _checked_products(dtype: str) -> str:
    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"Products are of 'float32' or of 'bfloat16', not of {dtype!r}.")
    return dtype


def rounds_factors(dtype: jnp.dtype) -> bool:
    """Whether products of operands of this type have their factors rounded to bfloat16."""
    return (_products.value == "bfloat16" and dtype == jnp.float32 and _in_force() == "fast"
            and jax.default_backend() == "cpu")


def settings() -> tuple[str, bool, str, tuple[str, ...]]:
    """Returns what this thread traces operations by: the choice, whether in training, the type of
    products and what is left out."""
    return _choice.value, _training.value, _products.value, _without.value


def leaving_out(names: tuple[str, ...]) -> contextlib.AbstractContextManager:
    """Returns a context in which the formulations of these names are not chosen."""
    return _without(names)


def tuned_for(*backends: str, name: str, operands: Sequence[Any], exact: bool = True) -> bool:
    """Whether a formulation may be chosen.

    The backend is JAX's default one. A function placed by hand on another is still computed
    correctly, by formulations chosen for the default.

    Args:
      *backends: those it is for ("cpu", "gpu", "tpu"; none is all).
      name: what `leaving_out` knows it by.
      operands: arrays, or `jax.ShapeDtypeStruct`s, that it would compute with.
      exact: whether it rounds no more than the plain definition.
    """
    if name in _without.value or any(map(_is_placed_by_type, operands)):
        return False
    return _in_force() in (("exact", "fast") if exact else ("fast",)) and (
        not backends or jax.default_backend() in backends)


def _is_placed_by_type(array: Any) -> bool:
    """Whether the type of an array says over which devices it lies or differs.

    As with explicit sharding, the default of `jax.make_mesh`, and within `jax.shard_map`. Backward
    passes that are written out would have to give such a type to each of their results, which JAX
    does for the plain definition.
    """
    if isinstance(array, jax.ShapeDtypeStruct):
        return False
    kind = array if isinstance(array, jax.core.ShapedArray) else jax.typeof(array)
    varying = getattr(getattr(kind, "manual_axis_type", None), "varying", ())
    return bool(varying) or AxisType.Explicit in kind.sharding.mesh.axis_types


def _in_force() -> str:
    if _choice.value == "auto":
        return "fast" if _training.value else "exact"
    return _choice.value
