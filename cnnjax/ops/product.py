"""A matrix product whose three contractions are written out.

    y = x w,        dx = dy w^T,        dw = x^T dy

JAX's own backward pass makes dw as (dy^T x)^T. Here each product names the axes that it contracts
and no operand or result is transposed: in a whole training step XLA:CPU fuses such a transpose
with the operand's producer and loses the fast matrix product, although the transpose is harmless,
even profitable, when the product is timed alone.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.ops import switch
from cnnjax.ops.precision import sum_dtype
from cnnjax.ops.version import SINCE_0_11
from cnnjax.types import UserError

# The sum over more rows than this leaves YNNPACK's blocks of the factors outside the cache.
MIN_PART, MAX_PARTS = 2048, 16


def contract(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int) -> jax.Array:
    """Returns the product of two matrices of one dtype over the given axes, in that dtype.

    Sums are accumulated in float32 at least.
    """
    return wide(a, b, axis_a, axis_b).astype(a.dtype)


def wide(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int) -> jax.Array:
    """Returns the product of two matrices of one dtype over the given axes, in float32 at least."""
    return lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((), ())),
                           preferred_element_type=sum_dtype(a.dtype))


def of_columns(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns a^T b of (n, c) and (n, d), in float32 at least, by a product of rows.

    XLA:CPU multiplies rows of bfloat16 two to three times as fast as of float32, where the
    processor has instructions for it, but columns no faster: the narrower factor is transposed.
    YNNPACK is up to three times as fast if a long n is divided into parts.
    """
    if a.shape[1] > b.shape[1]:
        return turned(of_columns(b, a))
    parts = _parts(a.shape[0]) if SINCE_0_11 else 1
    if parts == 1:
        return wide(turned(a), b, 1, 0)
    # (c, parts, n / parts) and (parts, n / parts, d).
    a, b = turned(a).reshape(a.shape[1], parts, -1), b.reshape(parts, -1, b.shape[1])
    return jnp.sum(lax.dot_general(a, b, (((2,), (1,)), ((1,), (0,))),
                                   preferred_element_type=sum_dtype(a.dtype)), 0)


def _parts(rows: int) -> int:
    """How many parts to divide a sum over rows into; as many for each device."""
    counts = [MAX_PARTS >> shift for shift in range(MAX_PARTS.bit_length() - 1)]
    return next((count for count in counts if rows % count == 0 and rows // count >= MIN_PART
                 and count % jax.device_count() == 0), 1)


def turned(a: jax.Array) -> jax.Array:
    """Returns the transpose of a matrix, as an array that is written.

    XLA folds a plain transpose into the product that reads it, and then takes the slow product. It
    does not fold one that moves three axes, so the rows are taken in groups, each of one device.
    """
    rows, columns = a.shape
    group = next((g for g in (16, 8, 4, 2)
                  if rows % (g * jax.device_count()) == 0 and rows > g), 1)
    return a.reshape(rows // group, group, columns).transpose(2, 0, 1).reshape(columns, rows)


@jax.custom_vjp
def product(x: jax.Array, w: jax.Array) -> jax.Array:
    """Returns x w for x of (n, c) and w of (c, d), both of one floating dtype."""
    return contract(x, w, 1, 0)


def _forward(x, w):
    return product(x, w), (x, w)


def _backward(residuals, dy):
    x, w = residuals
    return contract(dy, w, 1, 1), contract(x, dy, 0, 0)


product.defvjp(_forward, _backward)


def dense(x: jax.Array, kernel: jax.Array, precision: lax.Precision | str | None = None
          ) -> jax.Array:
    """Returns x times kernel, the linear part of a fully connected layer.

    Args:
      x: (…, C), floating point.
      kernel: (C, D); converted to x's dtype.
      precision: of float32 factors. By default a TPU rounds them to bfloat16, a GPU to TF32.

    Returns:
      (…, D) in x's dtype; sums are accumulated in float32 at least.

    Raises:
      UserError: if the two don't have C in common.
    """
    if x.shape[-1] != kernel.shape[0]:
        raise UserError(f"dense: the kernel takes {kernel.shape[0]} inputs and there are "
                        f"{x.shape[-1]} (shape {x.shape}): the layer was made for another input "
                        "size.")
    kernel = kernel.astype(x.dtype)
    if not switch.tuned_for("cpu", name="dense", operands=[x, kernel]):
        return jnp.matmul(x, kernel, precision=precision)
    y = product(x.reshape(-1, x.shape[-1]), kernel)
    return y.reshape(*x.shape[:-1], kernel.shape[1])
