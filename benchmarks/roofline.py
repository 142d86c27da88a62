"""What this device can do at most: matrix products a second, and bytes to and from its memory.

    python -m benchmarks.roofline

A step of f operations that moves b bytes takes max(f / FLOP/s, b / B/s) or longer; the ridge, the
former over the latter, says from how many operations a byte on the products are what limits it.
Each line is the best of some rounds, with the median behind it: the best is the roof.

Products are square. "bfloat16" has operands of two bytes, sums in float32 and gives float32 on a
CPU (`preferred_element_type`, as `ops.product` has it), bfloat16 elsewhere. "float32, highest"
forbids an accelerator the shorter formats that it takes for float32 by default. "scale" multiplies
an array in place, which reads and writes each number; "copy" writes into an array that is allocated
for it, as most operations of a step do; "sum" only reads.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.train_step import processor
from cnnjax import allocator

CPU_SIZES, SIZES = (1024, 2048, 4096), (4096, 8192, 16384)
CPU_MEGABYTES, MEGABYTES = (64, 512), (256, 2048)


def timed(call: Callable[[], jax.Array], rounds: int, seconds: float) -> list[float]:
    """Returns the seconds of a call in each round; the calls of a round wait for the last alone."""
    jax.block_until_ready(call())
    start = time.perf_counter()
    jax.block_until_ready(call())
    calls = max(1, int(seconds / max(time.perf_counter() - start, 1e-6)))
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            last = call()
        jax.block_until_ready(last)
        found.append((time.perf_counter() - start) / calls)
    return found


def product(size: int, dtype: str, precision: str | None = None) -> Callable[[], jax.Array]:
    """Returns the product of two square matrices."""
    low = jnp.dtype(dtype).itemsize < 4
    wide = jnp.float32 if low and jax.default_backend() == "cpu" else None
    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.normal(key, (size, size), dtype) for key in keys)
    dot = jax.jit(functools.partial(lax.dot, precision=precision, preferred_element_type=wide))
    return lambda: dot(a, b)


def traffic(kind: str, megabytes: int) -> tuple[Callable[[], jax.Array], int]:
    """Returns a call that moves memory, and the bytes that it moves."""
    count = megabytes * 2**20 // 4
    array = jnp.ones(count, jnp.float32)
    if kind == "sum":
        total = jax.jit(jnp.sum)
        return lambda: total(array), 4 * count
    if kind == "copy":
        copy = jax.jit(lambda x: x * 1.5)
        return lambda: copy(array), 8 * count
    scale = jax.jit(lambda x: x * 0.999, donate_argnums=0)
    held = [array]

    def in_place():
        held[0] = scale(held[0])
        return held[0]

    return in_place, 8 * count


def measure(sizes, megabytes, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Returns line -> {"best", "median", "unit"}, and prints each line as it comes."""
    found = {}

    def line(title, amount, call, unit):
        times = timed(call, rounds, seconds)
        best, median = amount / min(times), amount / statistics.median(times)
        found[title] = {"best": best, "median": median, "unit": unit}
        print(f"| {title} | {best / 1e9:,.1f} ({median / 1e9:,.1f}) G{unit}/s |", flush=True)

    kinds = [("float32", None), ("bfloat16", None)]
    if jax.default_backend() != "cpu":
        kinds.insert(1, ("float32", "highest"))
    for dtype, precision in kinds:
        for size in sizes:
            title = f"product, {dtype}{', ' + precision if precision else ''}, {size:,}"
            line(title, 2 * size**3, product(size, dtype, precision), "FLOP")
    for kind in ("scale", "copy", "sum"):
        for size in megabytes:
            call, moved = traffic(kind, size)
            line(f"{kind}, {size:,} MB", moved, call, "B")
    return found


def main() -> None:
    """Prints a Markdown table and the ridges."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    on_cpu = jax.default_backend() == "cpu"
    parser.add_argument("--sizes", type=int, nargs="*", default=CPU_SIZES if on_cpu else SIZES,
                        help="rows of the matrices")
    parser.add_argument("--megabytes", type=int, nargs="*",
                        default=CPU_MEGABYTES if on_cpu else MEGABYTES, help="of an array")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="of a round")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    allocator.restart_with_huge_pages()
    device = jax.devices()[0].device_kind
    print(f"jax {jax.__version__} ({device}), {processor()}, {os.cpu_count()} CPU cores\n")
    print("| what | best (median) |\n|---|---|")
    found = measure(arguments.sizes, arguments.megabytes, arguments.rounds, arguments.seconds)
    bandwidth = max(v["best"] for k, v in found.items() if k.startswith("scale"))
    print()
    for dtype in ("float32", "bfloat16"):
        peak = max(v["best"] for k, v in found.items() if k.startswith(f"product, {dtype}"))
        print(f"{dtype}: the ridge is at {peak / bandwidth:.0f} FLOP a byte")
    if arguments.json:
        arguments.json.write_text(json.dumps({
            "device": device, "jax": jax.__version__, "lines": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
