"""A convolution of stride 1 by Winograd's minimal filtering: F(2x2, 3x3), F(4x4, 3x3), F(3x3, 4x4),
F(2x2, 5x5).

The output is cut into tiles of m x m, which see tiles of a x a pixels, a = m + r - 1 for a kernel
of r x r. Along one axis, m outputs of a filter with r taps are

    y = A^T [(G w) * (B^T x)]        (* elementwise)

with the matrices of `winograd_matrices`, so a products do the work of r m. Applied to both axes,

    Y = A^T [ sum over channels (G w G^T) * (B^T x B^T^T) ] A

where the sum over channels makes each of the a x a elements a matrix product over all tiles: for
3x3, 16 products instead of 36 for m = 2 and 36 instead of 144 for m = 4; for 4x4 and 5x5, 36
instead of 144 and of 100. The input gradient is the same operation on dy with the taps reversed.
The weight gradient is the transpose:

    dw = G^T [ sum over tiles (B^T x B^T^T)^T * (A dy A^T) ] G

Source: Lavin & Gray, Fast algorithms for convolutional neural networks, arXiv 1509.09308, sections
4.1 and 4.2.

Exactness: equal to the definition on paper. In float32 the error (L2, over noise) is that of XLA's
convolution with tiles of 4 and three times that with tiles of 6, so `train=False` does without. By
products of bfloat16, whose factors are rounded after their transforms, it is 0.4 % with tiles of 4
and 1.0 to 1.3 % with tiles of 6; a direct convolution of bfloat16 has 0.24 %.

Code: the programs of a deep net hold dozens of these, and what counts for their compile time is the
number of loops. One axis of a transform rides along as an axis of the arrays, with its coefficients
broadcast; the other is spelled out, so that the zeros and ones of its matrix cost nothing. XLA:CPU
would rather evaluate both at once for each element, in 36 terms. That it keeps the half-transformed
map is due, for the input, to the padding between the two, and for the output to the loop in which
the second half stands, of two rounds at least. That loop stands within each part of the batch, so
that what it reads is still in the cache. Of kernels XLA:CPU does evaluate both at once, but not of
their gradients, where one half is a matrix product. What a loop returns is an array in memory.
Without it XLA:CPU would transform anew for readers that see the output in other shapes, such as the
statistics of a batch norm.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnjax.ops.chunks import images_of, known_size, map_images, map_sum
from cnnjax.ops.geometry import ConvGeometry, Pair
from cnnjax.ops.precision import widened
from cnnjax.ops.version import SINCE_0_11
from cnnjax.ops.winograd_matrices import transforms

# With fewer channels the transforms cost more than the products save, on smaller maps the tiles'
# overlap does.
MIN_CHANNELS, MIN_SIZE = 32, 4
# With fewer tiles than this the 36 transformed kernels of a = 6 are the larger part of the work.
MIN_TILES = 128
PIXELS = 4 * 1024  # Of the output in a part: its tiles stay in the cache.


def applies(g: ConvGeometry) -> bool:
    """Whether it is 3x3 or 5x5, of stride 1, with channels and pixels enough to gain."""
    return (g.window in ((3, 3), (5, 5)) and g.stride == (1, 1) and g.groups == 1
            and min(g.in_channels, g.out_channels) >= MIN_CHANNELS and min(g.out) >= MIN_SIZE)


def output(x: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the convolution of (B, H, W, C) with (r, r, C, D)."""
    return _filter(x, kernel, g.padding, g.out, 0)


def input_gradient(dy: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the gradient of (B, H, W, C) from that of the output."""
    return _filter(dy, kernel[::-1, ::-1], _padding_of_output(g), g.size, 1)


def rounded_output(x: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns `output` by products of bfloat16."""
    return _filter(x, kernel, g.padding, g.out, 0, jnp.bfloat16)


def rounded_input_gradient(dy: jax.Array, kernel: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns `input_gradient` by products of bfloat16."""
    return _filter(dy, kernel[::-1, ::-1], _padding_of_output(g), g.size, 1, jnp.bfloat16)


def weight_gradient(x: jax.Array, dy: jax.Array, g: ConvGeometry) -> jax.Array:
    """Returns the gradient of the kernel, (r, r, C, D)."""
    r = g.window[0]
    m = _tile(known_size(dy), g.out, r)

    def part(x, dy):
        seen, slopes = _input_tiles(x, g.padding, g.out, m, r), _output_tiles(dy, m, r)
        products = [_product_of_columns(s, z) for s, z in zip(seen, slopes, strict=True)]
        # (a, C, D) for each column of the tile -> (r, C, D) -> (r, r, C, D). The first as a matrix
        # product, whose result XLA:CPU writes: it would read all a^2 arrays for each of the r^2.
        matrix = transforms(m, r).kernel.T
        rows = [jnp.tensordot(jnp.asarray(matrix, p.dtype), p, 1) for p in products]
        return _along(matrix, rows, 1)

    dw = map_sum(part, (x, dy), images_of(PIXELS, g.out), g.kernel_shape)
    return dw.astype(x.dtype)


def _padding_of_output(g):
    """Of dy, so that the reversed kernel gives a map of the input's size."""
    reach = g.window[0] - 1
    return tuple((reach - before, reach - after) for before, after in g.padding)


def _filter(x, kernel, padding, out: Pair, contract: int, factors=None):
    """The correlation of x, padded, with a square kernel, over axis `contract` of its last two.

    In place: a transposed kernel would be copied first. `factors` is the dtype that the factors of
    the products are rounded to.
    """
    r = kernel.shape[0]
    m = _tile(known_size(x), out, r)
    # (a, r, …) -> for each column (a, C, D).
    matrix = transforms(m, r).kernel
    rows = _along(matrix, list(widened(kernel)), 0)
    kernels = _each(matrix, [rows[:, j] for j in range(r)])
    y = jax.ShapeDtypeStruct((*out, kernel.shape[3 - contract]), x.dtype)

    def part(x):
        products = [_product(s, k, 2, contract + 1, factors)
                    for s, k in zip(_input_tiles(x, padding, out, m, r), kernels, strict=True)]
        columns = _output_columns(products, x.shape[0], out, m, r)
        return map_images(lambda columns: _output_rows(columns, out, m, r).astype(x.dtype), columns,
                          -(-x.shape[0] // 2), y)

    return map_images(part, x, images_of(PIXELS, out, least=2), y)


def _tile(batch: int, out: Pair, r: int) -> int:
    """The m of F(m x m, r x r)."""
    if r > 3:
        return 7 - r
    return 4 if batch * -(-out[0] // 4) * -(-out[1] // 4) >= MIN_TILES else 2


def _input_tiles(x, padding, out: Pair, m: int, r: int) -> list[jax.Array]:
    """B^T x B^T^T: for each of the a columns of a tile, (a rows, B tiles, C)."""
    a, (batch, *_, channels), matrix = m + r - 1, x.shape, transforms(m, r).input
    tiles = [-(-size // m) for size in out]
    rows = _pad(widened(x), 1, padding[0][0], tiles[0] * m + r - 1)
    rows = _along(matrix, [_every(rows, 1, i, m, tiles[0]) for i in range(a)], 0)
    rows = _pad(rows, 3, padding[1][0], tiles[1] * m + r - 1)
    columns = _each(matrix, [_every(rows, 3, j, m, tiles[1]) for j in range(a)])
    return [c.reshape(a, batch * tiles[0] * tiles[1], channels) for c in columns]


def _output_tiles(dy, m: int, r: int) -> list[jax.Array]:
    """A dy A^T, in the form of `_input_tiles`."""
    (batch, height, width, channels), matrix = dy.shape, transforms(m, r).output.T
    tiles = [-(-size // m) for size in (height, width)]
    rows = _pad(widened(dy), 1, 0, tiles[0] * m)
    rows = _along(matrix, [_every(rows, 1, i, m, tiles[0]) for i in range(m)], 0)
    rows = _pad(rows, 3, 0, tiles[1] * m)
    columns = _each(matrix, [_every(rows, 3, j, m, tiles[1]) for j in range(m)])
    return [c.reshape(m + r - 1, batch * tiles[0] * tiles[1], channels) for c in columns]


def _output_columns(products: list[jax.Array], batch: int, out: Pair, m: int, r: int) -> jax.Array:
    """[products] A: for each column of a tile (a rows, B tiles, D) -> (B, tiles, a, tiles, m, D).

    The tile's rows and columns become axes beside those that count the tiles: nothing is
    interleaved.
    """
    a, tiles, matrix = m + r - 1, [-(-size // m) for size in out], transforms(m, r).output
    products = [p.reshape(a, batch, *tiles, p.shape[-1]) for p in products]
    return jnp.stack([_along(matrix, [p[i] for p in products], 3) for i in range(a)], 2)


def _output_rows(columns: jax.Array, out: Pair, m: int, r: int) -> jax.Array:
    """A^T [columns]: what `_output_columns` returns -> (B, *out, D)."""
    batch, tiles_h, a, tiles_w, _, features = columns.shape
    y = jnp.stack(_each(transforms(m, r).output, [columns[:, :, i] for i in range(a)]), 2)
    return y.reshape(batch, tiles_h * m, tiles_w * m, features)[:, :out[0], :out[1]]


# Of `lax` rather than of `jax.numpy`, whose operators take several times as long to trace: a deep
# net has thousands of these.

def _along(matrix: np.ndarray, arrays: Sequence[jax.Array], axis: int) -> jax.Array:
    """sum_k matrix[i, k] arrays[k], with i as a new axis."""
    shape = list(arrays[0].shape)
    shape.insert(axis, len(matrix))
    others = [d for d in range(len(shape)) if d != axis]
    return _sum([lax.mul(lax.broadcast_in_dim(np.asarray(column, array.dtype), shape, (axis,)),
                         lax.broadcast_in_dim(array, shape, others))
                 for column, array in zip(matrix.T, arrays, strict=True)])


def _each(matrix: np.ndarray, arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """sum_k matrix[i, k] arrays[k] for each i; zeros and ones of the matrix are not multiplied.

    XLA:CPU before 0.11 gains a fifth of a convolution's time if what has the same factor, up to its
    sign, is added first; since then a tenth is lost.
    """
    sums = []
    for row in matrix:
        terms = [(float(c), a) for c, a in zip(row, arrays, strict=True) if c]
        terms = [_times(c, a) for c, a in (terms if SINCE_0_11 else _by_factor(terms))]
        sums.append(_sum(terms))
    return sums


def _by_factor(terms: list[tuple[float, jax.Array]]) -> list[tuple[float, jax.Array]]:
    """The same sum with each factor once, up to its sign."""
    sums: dict[float, tuple[float, jax.Array]] = {}
    for c, a in terms:
        factor, total = sums.get(abs(c), (c, None))
        if total is not None:
            a = lax.add(total, a) if c == factor else lax.sub(total, a)
        sums[abs(c)] = factor, a
    return list(sums.values())


def _times(c: float, a: jax.Array) -> jax.Array:
    return a if c == 1 else lax.neg(a) if c == -1 else lax.mul(a, lax.full_like(a, c))


def _sum(terms: Sequence[jax.Array]) -> jax.Array:
    return functools.reduce(lax.add, terms)


def _product(a, b, axis_a: int, axis_b: int, factors=None) -> jax.Array:
    """The matrix products of two stacks of matrices over the given axes, in the dtype of both."""
    dtype = a.dtype
    if factors is not None:
        a, b = a.astype(factors), b.astype(factors)
    return lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((0,), (0,))),
                           preferred_element_type=dtype)


def _product_of_columns(a, b) -> jax.Array:
    """a^T b of each pair in two stacks of matrices."""
    if not SINCE_0_11:
        return _product(a, b, 1, 1)
    # Without the barrier XLA folds the transpose into the product, which then is Eigen's.
    return _product(lax.optimization_barrier(a.swapaxes(1, 2)), b, 2, 1)


def _pad(x, axis: int, before: int, size: int) -> jax.Array:
    """`before` zeros (or that many fewer pixels) along an axis, and after it up to `size`."""
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (before, size - before - x.shape[axis], 0)
    return lax.pad(x, jnp.zeros((), x.dtype), edges)


def _every(x, axis: int, start: int, step: int, count: int) -> jax.Array:
    return lax.slice_in_dim(x, start, start + step * (count - 1) + 1, step, axis)
