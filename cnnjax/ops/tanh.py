"""A tanh that is a quotient of two polynomials.

    tanh x = x P(x^2) / Q(x^2),    |x| <= 9,    and beyond it 1 rounds off the rest

P and Q, of degree 4 each, are the minimax fit in relative error: 2.1e-8 in exact arithmetic, 3.1e-7
in float32, where XLA's own has 2.6e-7. It is nothing but multiply-adds and one division, which
XLA:CPU vectorises; its own tanh takes 1.5 to 6 times as long on maps of LeNet's size.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from cnnjax.ops import switch

_P = (1.335341213949358e-08, 2.060818406414514e-05, 3.4955344928431897e-03,
      1.3380981115314838e-01, 9.999999796284398e-01)
_Q = (7.776046756376182e-07, 3.2855462518889284e-04, 2.5876779923543036e-02,
      4.671429677368422e-01, 1.0)


def tanh(x: jax.Array) -> jax.Array:
    """Returns the hyperbolic tangent, in x's dtype; the quotient for float32 on CPU."""
    if x.dtype == jnp.float32 and switch.tuned_for("cpu", name="tanh", operands=[x], exact=False):
        return _quotient(x)
    return jnp.tanh(x)


def _polynomial(coefficients, x):
    return functools.reduce(lambda value, c: value * x + c, coefficients)


@jax.custom_vjp
def _quotient(x):
    x = jnp.clip(x, -9, 9)
    square = x * x
    return jnp.clip(x * _polynomial(_P, square) / _polynomial(_Q, square), -1, 1)


def _forward(x):
    y = _quotient(x)
    return y, y


def _backward(y, dy):
    return (dy * (1 - y * y),)


_quotient.defvjp(_forward, _backward)
