"""The rules of `spans`, one for each operation (primitive) that a jaxpr may have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cnnjax.analysis.spans import Seen, Unknown, count, elementwise, join, plain, reshape

# Each entry of the result depends on the same entries of the operands.
ELEMENTWISE = frozenset((
    "abs", "add", "add_any", "and", "atan2", "cbrt", "ceil", "clamp", "convert_element_type",
    "copy", "copy_p", "cos", "cosh", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2",
    "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "log", "log1p", "logistic",
    "lt", "max", "min", "mul", "name", "ne", "neg", "nextafter", "not", "or", "pow", "real",
    "reduce_precision", "rem", "round", "rsqrt", "select_n", "sharding_constraint", "sign",
    "sin", "sinh", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor",
))
# Their single jaxpr is called on the operands.
CALLS = frozenset((
    "checkpoint", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call",
    "custom_vjp_call_jaxpr", "jit", "pjit", "remat", "remat2",
))

Rule = Callable[[Any, Sequence[Seen | None]], Seen | list[Seen | None]]


def called(eqn):
    """Returns the jaxpr that an equation of `CALLS` calls."""
    found = next(eqn.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr")
                 if key in eqn.params)
    return getattr(found, "jaxpr", found)


def apply(eqn, seen: Sequence[Seen | None]) -> list[Seen | None]:
    """Returns what the results of an equation see.

    Args:
      eqn: an equation of a jaxpr, none of `CALLS`.
      seen: what each operand sees; None for those that don't depend on the image.

    Raises:
      Unknown: if there is no rule for it.
    """
    operands = [s for s in seen if s is not None]
    shapes = [getattr(v.aval, "shape", ()) for v in eqn.outvars]
    name = eqn.primitive.name
    if not any(s.live for s in operands):  # It has seen the whole map already.
        return [join(operands, tuple(map(plain, shape))) for shape in shapes]
    if name in ELEMENTWISE:
        return [elementwise(operands, shape) for shape in shapes]
    if name not in RULES:
        raise Unknown("has no rule")
    result = RULES[name](eqn, seen)
    return result if isinstance(result, list) else [result]


def _one(seen: Sequence[Seen | None]) -> Seen:
    """The first operand, which is the only one that sees anything."""
    if seen[0] is None or any(s is not None and s.live for s in seen[1:]):
        raise Unknown("has a window, a size or an index that depends on a map")
    return seen[0]


def _windows(seen: Seen, out: Sequence[int], axes: Sequence[int],
             windows: Sequence[tuple[int, int, tuple[int, int], int]]) -> Seen:
    """What windows over some axes of an array see.

    Args:
      seen: the array.
      out: shape of the result, whose axes are in the order of the array's.
      axes: over which windows slide.
      windows: (size with dilation, stride, padding, dilation of the map) for each of the axes.
    """
    new = [axis if size == count(axis) else None
           for axis, size in zip(seen.axes, out, strict=True)]
    for i, (size, stride, pads, base) in zip(axes, windows, strict=True):
        if (size, stride, tuple(pads), base) == (1, 1, (0, 0), 1) and new[i] is not None:
            continue
        label = seen.label(i)
        if label is None:
            new[i] = plain(out[i])
            continue
        if base != 1:
            raise Unknown("puts zeros between the pixels of a map")
        seen = seen.with_span(label, seen.spans[label].window(size, stride, pads[0]))
        new[i] = ((label, out[i]),)
    return seen.with_axes(new)


def _conv(eqn, seen):
    x, p = _one(seen), eqn.params
    numbers = p["dimension_numbers"]
    batch, feature, *spatial = numbers.lhs_spec
    if p["batch_group_count"] != 1 and any(label is not None for label, _ in x.axes[batch]):
        raise Unknown("groups positions of a map")
    kernel = eqn.invars[1].aval.shape
    windows = [((kernel[k] - 1) * dilation + 1, stride, pads, base) for k, dilation, stride, pads,
               base in zip(numbers.rhs_spec[2:], p["rhs_dilation"], p["window_strides"],
                           p["padding"], p["lhs_dilation"], strict=True)]
    out = eqn.outvars[0].aval.shape
    out_batch, out_feature, *out_spatial = numbers.out_spec
    # In the operand's order first: there the axes have their labels.
    sizes = dict(zip([batch, feature, *spatial], [out[i] for i in numbers.out_spec], strict=True))
    sizes[feature] = eqn.invars[0].aval.shape[feature]
    y = _windows(x, [sizes[i] for i in range(len(out))], spatial, windows)
    axes: list = [None] * len(out)
    axes[out_batch], axes[out_feature] = y.axes[batch], plain(out[out_feature])
    for i, o in zip(spatial, out_spatial, strict=True):
        axes[o] = y.axes[i]
    return join([y], axes)


def _reduce_window(eqn, seen):
    x, p = _one(seen), eqn.params
    if p.get("window_dilation") is None:
        raise Unknown("has a window of another form")
    windows = [((size - 1) * dilation + 1, stride, pads, base) for size, dilation, stride, pads,
               base in zip(p["window_dimensions"], p["window_dilation"], p["window_strides"],
                           p["padding"], p["base_dilation"], strict=True)]
    out = eqn.outvars[0].aval.shape
    return _windows(x, out, range(len(out)), windows)


def _slice(eqn, seen):
    x, p = _one(seen), eqn.params
    out = eqn.outvars[0].aval.shape
    strides = p["strides"] or (1,) * len(out)
    return _windows(x, out, range(len(out)), [
        (1, stride, (-start, 0), 1)
        for start, stride in zip(p["start_indices"], strides, strict=True)])


def _pad(eqn, seen):
    x = _one(seen)
    out = eqn.outvars[0].aval.shape
    return _windows(x, out, range(len(out)), [
        (1, 1, (low, high), 1 + interior) for low, high, interior in eqn.params["padding_config"]])


def _split(eqn, seen):
    x, axis, start, parts = _one(seen), eqn.params["axis"], 0, []
    for size, outvar in zip(eqn.params["sizes"], eqn.outvars, strict=True):
        windows = [(1, 1, (-start, 0), 1)]
        parts.append(_windows(x, outvar.aval.shape, [axis], windows))
        start += size
    return parts


def _concatenate(eqn, seen):
    axis = eqn.params["dimension"]
    parts, offset = [], 0
    for operand, var in zip(seen, eqn.invars, strict=True):
        if operand is not None:
            parts.append((offset, operand))
        offset += var.aval.shape[axis]
    label = next((found for _, part in parts if (found := part.label(axis)) is not None), None)
    out = eqn.outvars[0].aval.shape
    if label is None:
        rest = [list(part.axes) for _, part in parts]
        for axes in rest:
            axes[axis] = plain(out[axis])
        return elementwise([part.with_axes(axes)
                            for axes, (_, part) in zip(rest, parts, strict=True)], out)
    moved = [_windows(part, out, [axis], [(1, 1, (offset, 0), 1)]) for offset, part in parts]
    if any(part.label(axis) != label for _, part in parts) or len(
            {part.spans[label] for part in moved}) > 1:
        raise Unknown("puts maps beside one another")
    return join(moved, moved[0].axes)


def _stack(eqn, seen):
    # Bins of an adaptive pooling, say: the new axis is none of the image's.
    out = eqn.outvars[0].aval.shape
    axis = eqn.params["axis"]
    parts = [s.with_axes([*s.axes[:axis], plain(out[axis]), *s.axes[axis:]])
             for s in seen if s is not None]
    return elementwise(parts, out)


def _reduce(eqn, seen):
    x = _one(seen)
    kept = [axis for i, axis in enumerate(x.axes) if i not in eqn.params["axes"]]
    return join([x], kept)


def _cumulate(eqn, seen):
    x = _one(seen)
    if x.label(eqn.params["axis"]) is not None:
        raise Unknown("sums along height or width")
    return x


def _reverse(eqn, seen):
    x = _one(seen)
    if any(x.label(i) is not None for i in eqn.params["dimensions"]):
        raise Unknown("flips the map")
    return x


def _transpose(eqn, seen):
    x = _one(seen)
    return x.with_axes([x.axes[i] for i in eqn.params["permutation"]])


def _squeeze(eqn, seen):
    x = _one(seen)
    return join([x], [axis for i, axis in enumerate(x.axes) if i not in eqn.params["dimensions"]])


def _broadcast(eqn, seen):
    x, out = _one(seen), eqn.outvars[0].aval.shape
    axes = list(map(plain, out))
    for axis, target in zip(x.axes, eqn.params["broadcast_dimensions"], strict=True):
        if any(label is not None for label, _ in axis):
            if count(axis) != out[target]:
                raise Unknown("repeats a map of one pixel")
            axes[target] = axis
    return x.with_axes(axes)


def _reshape(eqn, seen):
    if eqn.params.get("dimensions") is not None:
        raise Unknown("transposes while it reshapes")
    return reshape(_one(seen), eqn.outvars[0].aval.shape)


def _dot(eqn, seen):
    (contract_a, contract_b), (batch_a, batch_b) = eqn.params["dimension_numbers"]
    operands = [s if s is not None else Seen(tuple(map(plain, v.aval.shape)), ())
                for s, v in zip(seen, eqn.invars, strict=True)]
    a, b = operands
    axes = [a.axes[i] if any(label is not None for label, _ in a.axes[i]) else b.axes[j]
            for i, j in zip(batch_a, batch_b, strict=True)]
    for s, used in ((a, (*contract_a, *batch_a)), (b, (*contract_b, *batch_b))):
        axes += [axis for i, axis in enumerate(s.axes) if i not in used]
    return join([s for s in seen if s is not None], axes)


def _each(eqn, seen):
    return list(seen)


RULES: dict[str, Rule] = {
    "conv_general_dilated": _conv,
    "reduce_window": _reduce_window,
    "reduce_window_max": _reduce_window,
    "reduce_window_min": _reduce_window,
    "reduce_window_sum": _reduce_window,
    "slice": _slice,
    "split": _split,
    "pad": _pad,
    "concatenate": _concatenate,
    "stack": _stack,
    **dict.fromkeys(("argmax", "argmin", "reduce_and", "reduce_max", "reduce_min", "reduce_or",
                     "reduce_prod", "reduce_sum"), _reduce),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"), _cumulate),
    "rev": _reverse,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "dot_general": _dot,
    "optimization_barrier": _each,
}
