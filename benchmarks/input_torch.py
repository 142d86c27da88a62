"""One side of `benchmarks.input`: torchvision's photos through torch's DataLoader. Prints JSON.

    some/environment/bin/python benchmarks/input_torch.py some/photos pil --cores=1 --workers=1

It runs alone in an environment with torch and torchvision, and imports nothing of cnnjax.
"""

from __future__ import annotations

import argparse
import json
import os
import time

import PIL
import torch
from torchvision_anywhere import torchvision


def read_tensor(path: str) -> torch.Tensor:
    """Decodes by torchvision's own decoder."""
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    return decode_jpeg(read_file(path), mode=ImageReadMode.RGB)


def dataset(folder: str, mode: str, size: int) -> torchvision.datasets.ImageFolder:
    """The training photos, cropped at random and flipped, uint8 [3, size, size]."""
    transforms = torchvision.transforms
    if mode == "pil":
        return torchvision.datasets.ImageFolder(folder, transforms.Compose([
            transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip(),
            transforms.PILToTensor()]))
    from torchvision.transforms import v2

    return torchvision.datasets.ImageFolder(folder, v2.Compose([
        v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]),
        loader=read_tensor)


def main() -> None:
    """Times what comes after the first `--warm_up` images, over as many epochs as that takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="with train/CLASS/*.jpg")
    parser.add_argument("mode", choices=["pil", "decode_jpeg"])
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="0 loads in the main process")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--warm_up", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:arguments.cores])
    torch.set_num_threads(1)
    data = dataset(os.path.join(arguments.folder, "train"), arguments.mode, arguments.size)
    # One long epoch: a DataLoader that begins the next one would wait for its first batch.
    sampler = torch.utils.data.RandomSampler(
        data, replacement=True, num_samples=arguments.images + arguments.warm_up)
    loader = iter(torch.utils.data.DataLoader(
        data, arguments.batch, sampler=sampler, num_workers=arguments.workers))
    warm = 0
    while warm < arguments.warm_up:
        warm += len(next(loader)[1])
    start = time.perf_counter()
    count = sum(len(labels) for _, labels in loader)
    print(json.dumps({
        "images_s": count / (time.perf_counter() - start),
        "version": f"torch {torch.__version__}, torchvision {torchvision.__version__}, "
                   f"Pillow {PIL.__version__}"}))


if __name__ == "__main__":
    main()
