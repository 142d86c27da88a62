"""Whether kernels that are written for Triton run here."""

from __future__ import annotations

import functools

import jax


@functools.cache
def runs_here() -> bool:
    """Whether Triton knows the devices, and there is a Pallas that still writes for Triton."""
    # Of a GPU of NVIDIA's, "9.0"; of AMD's, where this was not tried, a name. A CPU, which tests
    # have in a GPU's place, has none.
    capability = getattr(jax.devices()[0], "compute_capability", "8.0")
    if not capability.replace(".", "").isdigit() or float(capability) < 8:
        return False
    try:
        from jax.experimental import pallas
        from jax.experimental.pallas import triton
    except ImportError:
        return False
    return (all(hasattr(triton, name) for name in ("CompilerParams", "load", "store"))
            and hasattr(pallas, "ANY"))
