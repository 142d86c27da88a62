"""One side of `benchmarks.feature_visualisation`: the same in PyTorch. Prints a line of JSON.

    some/environment/bin/python benchmarks/feature_visualisation_torch.py mobilenet_v2:17 \
        --mode=lucent --steps=256

It runs alone in an environment with torch, torchvision and, for Lucent's modes, torch-lucent, and
imports nothing of cnnjax.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
import types

import torch
from torch.nn import functional
from torchvision_anywhere import torchvision

COLORS = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])
MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)


def lucent(model, layer: int, images: int, size: int, steps: int, seen: int | None,
           batched: bool) -> float:
    """Returns the seconds of Lucent's render_vis, for all images in one call or one a call."""
    try:
        import IPython.display  # noqa: F401
    except ImportError:
        # Lucent shows pictures with it, and does not declare it.
        sys.modules["IPython"] = types.ModuleType("IPython")
        sys.modules["IPython.display"] = types.ModuleType("IPython.display")
        sys.modules["IPython"].display = sys.modules["IPython.display"]
    import kornia
    for moved in ("get_rotation_matrix2d", "warp_affine"):
        # Where Lucent 0.1.8 looks for them, they are no longer.
        if not hasattr(kornia, moved):
            setattr(kornia, moved, getattr(kornia.geometry.transform, moved))
    from lucent.optvis import objectives, param, render

    name, start = f"features_{layer}", time.perf_counter()
    for first in range(0, images, images if batched else 1):
        number = images if batched else 1
        objective = sum((objectives.channel(name, first + i, batch=i) for i in range(1, number)),
                        objectives.channel(name, first, batch=0))
        render.render_vis(model, objective, lambda n=number: param.image(size, batch=n),
                          thresholds=(steps,), progress=False, show_image=False,
                          fixed_image_size=seen)
    return time.perf_counter() - start


def plain(model, layer: int, images: int, size: int, steps: int) -> float:
    """Returns the seconds of a loop over one batch that does what cnnjax does, and no more.

    The network ends at the layer, its parameters have no gradients, and the transforms are one
    grid_sample.
    """
    net = model.features[:layer + 1].requires_grad_(False).to(memory_format=torch.channels_last)
    start = time.perf_counter()
    colors = COLORS / COLORS.norm(dim=0).max()
    fy, fx = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)
    scale = 1 / torch.clamp(torch.hypot(fy, fx), min=1 / size) / 4
    spectrum = (0.01 * torch.randn(images, 3, size, size // 2 + 1, 2)).requires_grad_(True)
    optimizer, index = torch.optim.Adam([spectrum], lr=0.05), torch.arange(images)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        image = torch.fft.irfft2(torch.view_as_complex(spectrum) * scale, s=(size, size),
                                 norm="ortho")
        image = torch.sigmoid(torch.einsum("dc,nchw->ndhw", colors, image))
        zoom, angle = 1.1 ** random.uniform(-1, 1), math.radians(random.uniform(-10, 10))
        x, y = (random.uniform(-16, 16) / size for _ in range(2))
        cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
        matrix = torch.tensor([[cos, -sin, x], [sin, cos, y]]).expand(images, 2, 3)
        grid = functional.affine_grid(matrix, list(image.shape), align_corners=False)
        image = functional.grid_sample((image - MEAN) / STD, grid, align_corners=False)
        found = net(image.contiguous(memory_format=torch.channels_last))
        loss = -found.mean((2, 3))[index, index].sum()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - start


def main() -> None:
    """Measures once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", help="model:number of the layer in its features")
    parser.add_argument("--mode", choices=["plain", "lucent", "lucent_same", "lucent_single"],
                        default="plain")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=256)
    arguments = parser.parse_args()
    name, layer = arguments.case.split(":")
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None).eval()
    given = (model, int(layer), arguments.images, arguments.size, arguments.steps)
    if arguments.mode == "plain":
        seconds = plain(*given)
    else:
        seconds = lucent(*given, arguments.size if arguments.mode == "lucent_same" else None,
                         arguments.mode != "lucent_single")
    print(json.dumps({"first_s": 0.0, "s": seconds, "version": f"torch {torch.__version__}",
                      "device": "cpu"}))


if __name__ == "__main__":
    main()
