"""torchvision, also where its compiled part does not load.

Scripts that run alone in an environment with torch import it from here, by the bare name: a script
that is started as a file finds its neighbours.
"""

import torch

try:
    import torchvision
except RuntimeError:
    # torchvision's compiled part needs CUDA. Without it, it registers shapes for two operations
    # that must be declared first; nothing that is measured here uses them.
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

__all__ = ["torchvision"]
