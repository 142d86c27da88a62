"""Published mean and standard deviation of the pixels of well-known data sets."""

from __future__ import annotations

from cnnjax.types import IMAGENET_MEAN, IMAGENET_STD

# Over all pixels of the training split, images scaled to [0, 1]. Those of digits, mnist and
# fashion_mnist are recomputed by tests/data.
_KNOWN = {
    "digits": ((0.3050,), (0.3756,)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def mean_and_std(name: str, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns (mean, std) per channel.

    Those of the data set where they are known, else those of ImageNet for RGB images (what nearly
    all pretrained weights expect), else 0.5 and 0.5.

    Args:
      name: TFDS name without config and version, or "digits".
      channels: of the images.
    """
    known = _KNOWN.get(name)
    if known and len(known[0]) == channels:
        return known
    if channels == 3:
        return IMAGENET_MEAN, IMAGENET_STD
    return (0.5,) * channels, (0.5,) * channels
