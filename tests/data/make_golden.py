"""Writes golden/augment.npz: what torchvision and timm make of the draws in augment_cases.py.

Set up torch as tests/models/make_golden.py says, then run

    torchref/bin/python tests/data/make_golden.py
"""

import contextlib
import random
from pathlib import Path

import augment_cases as cases
import numpy as np
import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:  # As in tests/models/make_golden.py.
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from PIL import Image
from timm.data import auto_augment as timm_auto
from timm.data import mixup as timm_mixup
from torchvision import transforms
from torchvision.transforms import InterpolationMode, autoaugment
from torchvision.transforms import functional as F

METHODS = {"nearest": InterpolationMode.NEAREST, "bilinear": InterpolationMode.BILINEAR,
           "bicubic": InterpolationMode.BICUBIC}


def chw(image):
    return torch.from_numpy(image).permute(2, 0, 1)


def hwc(tensor):
    return tensor.permute(1, 2, 0).numpy()


def operations():
    def apply(image, name, size, method="nearest", fill=None):
        return hwc(autoaugment._apply_op(chw(image), name, size, METHODS[method], fill))

    fill = [float(f) for f in cases.FILL]
    return {
        "operations": np.stack([apply(cases.image(), *case) for case in cases.OPERATIONS]),
        "bilinear": np.stack([apply(cases.image(), *case, "bilinear")
                              for case in cases.RESAMPLED]),
        # Not bilinear: there torchvision weights the pixels at the border of the fill twice.
        "filled": np.stack([apply(cases.image(), *case, "nearest", fill)
                            for case in cases.RESAMPLED]),
        "grey": np.stack([apply(cases.image("grey"), *case) for case in cases.GREY]),
        "flat": np.stack([apply(cases.flat(), *case) for case in cases.FLAT]),
    }


def tables():
    """Every magnitude of torchvision's policies at 24x20 pixels, as `_apply_op` uses it."""
    found = {}
    for key, space in (
            ("rand", autoaugment.RandAugment()._augmentation_space(31, cases.SIZE)),
            ("trivial", autoaugment.TrivialAugmentWide()._augmentation_space(31))):
        rows = []
        for name, (magnitudes, _) in space.items():
            used = np.broadcast_to(magnitudes.double().numpy(), 31)
            rows.append(np.trunc(used) if "Translate" in name else used)
        found |= {key: np.stack(rows), f"{key} names": np.array(list(space))}
    for policy in ("imagenet", "cifar10", "svhn"):
        module = autoaugment.AutoAugment(autoaugment.AutoAugmentPolicy(policy))
        space = module._augmentation_space(10, cases.SIZE)
        rows = []
        for pair in module.policies:
            for name, probability, level in pair:
                used = 0.0 if level is None else float(space[name][0][level])
                rows.append((name, probability, int(used) if "Translate" in name else used))
        found[f"auto {policy} names"] = np.array([row[0] for row in rows])
        found[f"auto {policy}"] = np.array([row[1:] for row in rows])
    return found


def increasing():
    """timm's magnitudes, with a plus where it draws a sign, and its solarize_add."""
    draw, hparams = random.random, dict(timm_auto._HPARAMS_DEFAULT)
    random.random = lambda: 0.0
    functions = {name: timm_auto.LEVEL_TO_ARG[name]
                 for name in timm_auto._RAND_INCREASING_TRANSFORMS}
    rows = {name: [function(level, hparams)[0] for level in np.linspace(0, 10, 41)]
            for name, function in functions.items() if function}
    random.random = draw
    added = timm_auto.solarize_add(Image.fromarray(cases.image()), 99)
    return {"increasing": np.array(list(rows.values()), float),
            "increasing names": np.array(list(rows)), "solarize_add 99": np.asarray(added)}


def jitter():
    found = []
    for factors, order in cases.JITTER:
        image = chw(cases.image())
        for change in order:
            image = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation,
                     F.adjust_hue)[change](image, factors[change])
        found.append(hwc(image))
    return {"jitter": np.stack(found)}


def crops():
    return {f"crop {i}": hwc(F.resized_crop(chw(cases.image()), *box, list(size),
                                            METHODS[method], antialias=True))
            for i, (box, size, method) in enumerate(cases.CROPS)}


@contextlib.contextmanager
def draws_of(tries):
    """Lets torch draw `tries` [10, 4]: two uniform numbers a try, two more once one fits."""
    uniform, randint = torch.Tensor.uniform_, torch.randint
    uniforms, places = iter(tries[:, :2].ravel()), iter((2, 3))
    tried = []

    def next_uniform(tensor, low, high):
        tried.append(float(next(uniforms)))
        return tensor.fill_(float(low) + tried[-1] * (float(high) - float(low)))

    def next_place(low, high, size):
        value = tries[len(tried) // 2 - 1, next(places)]
        return torch.tensor([low + int(value * (high - low))])

    torch.Tensor.uniform_, torch.randint = next_uniform, next_place
    yield
    torch.Tensor.uniform_, torch.randint = uniform, randint


def boxes():
    found = {}
    for size in cases.BOX_SIZES:
        image, crop, erase = torch.zeros(3, *size), [], []
        for tries in cases.draws(24):
            with draws_of(tries):
                crop.append(transforms.RandomResizedCrop.get_params(
                    image, [0.08, 1.0], [3 / 4, 4 / 3]))
            with draws_of(tries):
                erase.append(transforms.RandomErasing.get_params(
                    image, cases.ERASE["area"], cases.ERASE["ratio"], [0.0])[:4])
        found |= {f"crop boxes {size}": np.array(crop, np.int32),
                  f"erase boxes {size}": np.array(erase, np.int32)}
    return found


def mixes():
    found, draw = {}, np.random.randint
    for i, (kind, weight, centre) in enumerate(cases.MIXES):
        values = iter(centre)
        np.random.randint = lambda low, high, size=None, v=values: low + int(next(v) * (high - low))
        mixer = timm_mixup.Mixup(mixup_alpha=1.0, cutmix_alpha=1.0, num_classes=5)
        mixer._params_per_batch = lambda kind=kind, weight=weight: (weight, kind == "cutmix")
        images, labels = cases.batch()
        mixed, targets = mixer(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
                               torch.from_numpy(labels))
        found[f"mix {i}"] = mixed[:2].permute(0, 2, 3, 1).numpy()
        found[f"targets {i}"] = targets.numpy()
    np.random.randint = draw
    return found


if __name__ == "__main__":
    folder = Path(__file__).parent / "golden"
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / "augment.npz", **operations(), **tables(), **increasing(),
                        **jitter(), **crops(), **boxes(), **mixes())
