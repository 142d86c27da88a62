"""One side of `benchmarks.feature_visualisation`: `analysis.maximise`. Prints a line of JSON.

    python -m benchmarks.feature_visualisation_cnnjax mobilenet_v2:stage7 --steps=256
"""

from __future__ import annotations

import argparse
import json
import time

import jax
import jax.numpy as jnp

import cnnjax
from cnnjax.analysis import channel, maximise
from cnnjax.types import Preprocess


def measure(name: str, endpoint: str, images: int, size: int, steps: int,
            batch_size: int | None) -> dict:
    """Returns seconds: of the first step with tracing and compiling, and of all steps after it."""
    model = cnnjax.create_model(name)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, size, size, 3)))
    preprocess = Preprocess((size, size), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    what = [channel(endpoint, i) for i in range(images)]

    def run(steps):
        start = time.perf_counter()
        found = maximise(model, variables, what, preprocess=preprocess, steps=steps,
                         batch_size=batch_size)
        return time.perf_counter() - start, found

    first, _ = run(1)
    seconds, found = run(steps)
    return {"first_s": first, "s": seconds, "rise": float(
        (found.history[-1] - found.history[0]).mean()),
        "version": f"jax {jax.__version__}", "device": jax.devices()[0].device_kind}


def main() -> None:
    """Measures once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", help="model:endpoint")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--batch_size", type=int, help="images computed at once")
    arguments = parser.parse_args()
    print(json.dumps(measure(*arguments.case.split(":"), arguments.images, arguments.size,
                             arguments.steps, arguments.batch_size)))


if __name__ == "__main__":
    main()
