"""Preprocessing and augmentation on the device, inside the jitted step.

Pure functions over a batch [B, H, W, C]. What is random is a function of the key and of the row, so
that it does not depend on how the batch is divided over devices. Images are uint8 until
`normalize`, with 0 for what is outside them; erasing and mixing come after it.
"""

from cnnjax.data.augment.boxes import random_erasing, random_resized_crop
from cnnjax.data.augment.geometry import normalize, random_flip, random_pad_crop, resize
from cnnjax.data.augment.jitter import color_jitter
from cnnjax.data.augment.mixing import mix
from cnnjax.data.augment.pipeline import POLICIES, make_policy, pipeline
from cnnjax.data.augment.policies import (
    auto_augment,
    rand_augment,
    rand_augment_increasing,
    trivial_augment_wide,
)

__all__ = [
    "POLICIES", "auto_augment", "color_jitter", "make_policy", "mix", "normalize", "pipeline",
    "rand_augment", "rand_augment_increasing", "random_erasing", "random_flip", "random_pad_crop",
    "random_resized_crop", "resize", "trivial_augment_wide",
]
