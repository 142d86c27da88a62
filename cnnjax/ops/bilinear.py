"""A convolution made of three products, each of which may be computed in a way of its own.

A convolution is linear in the map and in the kernel. For a cotangent dy of the output,

    <dy, y(x, w)> = <dx(dy, w), x> = <dw(x, dy), w>

defines the input gradient dx and the weight gradient dw. Each of the three is linear in both of its
arguments, and its derivatives are the other two:

    y(x, w)       has the derivatives   dx(·, w) and dw(x, ·)
    dx(dy, w)     has the derivatives   y(·, w)  and dw(·, dy)
    dw(x, dy)     has the derivatives   dx(dy, ·) and y(x, ·)

So three functions of arrays are enough for derivatives of any order, all of them as fast.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from cnnjax.ops.geometry import ConvGeometry

# Two arrays and a geometry -> an array.
Product = Callable[[jax.Array, jax.Array, ConvGeometry], jax.Array]


def convolution(output: Product, input_gradient: Product, weight_gradient: Product) -> Product:
    """Returns `output` with the given backward pass, differentiable again in reverse mode.

    Args:
      output: (x, kernel, geometry) -> y.
      input_gradient: (dy, kernel, geometry) -> dx.
      weight_gradient: (x, dy, geometry) -> the gradient of the kernel.
    """
    def own(product):
        return functools.partial(jax.custom_vjp, nondiff_argnums=(2,))(product)

    y, dx, dw = own(output), own(input_gradient), own(weight_gradient)

    def derivatives(product, of_first, of_second):
        def forward(a, b, g):
            return product(a, b, g), (a, b)

        def backward(g, operands, cotangent):
            a, b = operands
            return of_first(a, b, cotangent, g), of_second(a, b, cotangent, g)

        product.defvjp(forward, backward)

    derivatives(y, lambda x, w, dy, g: dx(dy, w, g), lambda x, w, dy, g: dw(x, dy, g))
    derivatives(dx, lambda dy, w, t, g: y(t, w, g), lambda dy, w, t, g: dw(t, dy, g))
    derivatives(dw, lambda x, dy, t, g: dx(dy, t, g), lambda x, dy, t, g: y(x, t, g))
    return y


def of_bfloat16(output: Product, input_gradient: Product, weight_gradient: Product) -> Product:
    """Returns the `convolution` whose three products round their factors to bfloat16.

    Args are those of `convolution`, functions that return float32 for bfloat16. Operands, results
    and gradients are float32.
    """
    def rounding(product):
        return lambda a, b, g: product(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), g)

    return convolution(*map(rounding, (output, input_gradient, weight_gradient)))
