"""Cutting images of all sizes to one, on the host."""

from __future__ import annotations

import contextlib
import dataclasses
import math

import numpy as np

from cnnjax.data import order
from cnnjax.data.decode import decoded_smaller, opencv
from cnnjax.types import UserError, did_you_mean

INTERPOLATIONS = ("bilinear", "bicubic")


def resize_center_crop(image: np.ndarray, size: tuple[int, int], crop: float = 0.875,
                       interpolation: str = "bilinear") -> np.ndarray:
    """Resizes and cuts out the centre, as torchvision's Resize(size / crop), CenterCrop(size).

    The short side becomes round(size / crop), the other keeps the aspect ratio; for a `size` that
    is not square, the smallest image that covers size / crop. The filter is Pillow's, which is
    antialiased and by which published accuracies were measured; only the pixels that the crop
    keeps are computed.

    Args:
      image: uint8 [h, w, C] with C = 1 or 3.
      size: (H, W) of the result.
      crop: share of the side that is kept, above 0, at most 1.
      interpolation: "bilinear" or "bicubic".

    Returns:
      uint8 [H, W, C].
    """
    (h, w), (out_h, out_w) = image.shape[:2], size
    side_h, side_w = round(out_h / crop), round(out_w / crop)
    if side_h * w >= side_w * h:
        full_h, full_w = side_h, max(side_w, side_h * w // h)
    else:
        full_h, full_w = max(side_h, side_w * h // w), side_w
    top, left = round((full_h - out_h) / 2), round((full_w - out_w) / 2)
    box = (left * w / full_w, top * h / full_h,
           (left + out_w) * w / full_w, (top + out_h) * h / full_h)
    return _resized(image, size, box, interpolation)


def resize_whole(image: np.ndarray, size: tuple[int, int], interpolation: str = "bilinear"
                 ) -> np.ndarray:
    """Resizes without keeping the aspect ratio, as `augment.resize` does on the device.

    Arguments and result are those of `resize_center_crop`.
    """
    return _resized(image, size, (0, 0, image.shape[1], image.shape[0]), interpolation)


def _resized(image, size, box, interpolation):
    """The rectangle (left, top, right, bottom) of an image as one of (height, width) `size`."""
    from PIL import Image

    method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

    def resized(pixels):
        image = Image.fromarray(pixels)
        return np.asarray(image.resize(size[::-1], method[interpolation], box=box))

    if image.shape[-1] == 3:
        return resized(image)
    # Others than RGB one by one: to Pillow the last of two or four channels is a transparency.
    return np.stack([resized(image[..., c]) for c in range(image.shape[-1])], -1)


def random_resized_crop(image: np.ndarray, size: tuple[int, int], area: tuple[float, float],
                        uniform: np.ndarray, interpolation: str = "bilinear",
                        out: np.ndarray | None = None) -> np.ndarray:
    """Cuts out a random rectangle and resizes it (Inception crop, arXiv 1409.4842, section 6).

    As in torchvision: a share of the area uniform in `area`, an aspect ratio log-uniform in
    3/4..4/3, ten tries to fit that into the image, else the largest centred crop whose ratio is
    within them. A crop that is at least twice as large as the result is first divided by a whole
    number, averaging over the pixels; what is left is interpolated without antialiasing, as in
    TensorFlow's pipelines: averaging over fractions of pixels takes as long as a third of decoding.

    Args:
      image: uint8 [h, w, C].
      size: (H, W) of the result.
      area: smallest and largest share of the area.
      uniform: [22] random numbers in [0, 1); the result is a function of them.
      interpolation: "bilinear" or "bicubic".
      out: uint8 [H, W, C], contiguous, to write the result into; None for a new array.

    Returns:
      uint8 [H, W, C].
    """
    cv2, channels = opencv(), image.shape[-1]
    top, left, h, w = _crop_box(image.shape[:2], area, uniform)
    image = image[top:top + h, left:left + w]
    divisor = min(h // size[0], w // size[1])
    if divisor > 1:  # The box loses what is left over, with which OpenCV would take its slow way.
        h, w = h // divisor, w // divisor
        image = cv2.resize(image[:h * divisor, :w * divisor], (w, h), interpolation=cv2.INTER_AREA)
    if out is None:
        out = np.empty((*size, channels), np.uint8)
    # To OpenCV a grey image is [H, W].
    cv2.resize(image, size[::-1], dst=out[..., 0] if channels == 1 else out, interpolation=(
        cv2.INTER_CUBIC if interpolation == "bicubic" else cv2.INTER_LINEAR))
    return out


def _crop_box(shape: tuple[int, int], area: tuple[float, float], uniform: np.ndarray
              ) -> tuple[int, int, int, int]:
    """Returns (top, left, height, width), from 22 numbers in [0, 1)."""
    height, width = shape
    lowest, highest = 3 / 4, 4 / 3
    for u, v in uniform[:20].reshape(10, 2).tolist():
        target = height * width * (area[0] + u * (area[1] - area[0]))
        ratio = math.exp(math.log(lowest) + v * math.log(highest / lowest))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = int(uniform[20] * (height - h + 1))
            left = int(uniform[21] * (width - w + 1))
            return top, left, h, w
    w = min(width, round(height * highest))
    h = min(height, round(width / lowest))
    return (height - h) // 2, (width - w) // 2, h, w


@dataclasses.dataclass(frozen=True)
class HostTransform:
    """Makes images of any size one size, at random for training or always the same.

    Attributes:
      size: (H, W) of the result.
      crop: of `resize_center_crop`.
      interpolation: "bilinear" or "bicubic".
      random_area: (smallest, largest) share of the area for `random_resized_crop`; None takes
        the centre.
      seed: of the random crops. The crop is a function of (seed, epoch, index), so that it does
        not depend on which thread or host makes it, nor on where a run was resumed.

    Raises:
      UserError: for a value outside its range.
    """

    size: tuple[int, int]
    crop: float = 0.875
    interpolation: str = "bilinear"
    random_area: tuple[float, float] | None = None
    seed: int = 0

    def __post_init__(self):
        if min(self.size) < 1:
            raise UserError(f"image_size is {self.size}; it needs at least one pixel.")
        if not 0 < self.crop <= 1:
            raise UserError(f"crop is {self.crop}; it is a share of the side, above 0 and at "
                            "most 1, such as 0.875.")
        if self.interpolation not in INTERPOLATIONS:
            raise UserError(f"interpolation is {self.interpolation!r}; it is one of "
                            f"{', '.join(INTERPOLATIONS)}."
                            + did_you_mean(str(self.interpolation), INTERPOLATIONS))
        if self.random_area is not None:
            area = tuple(self.random_area)
            if len(area) != 2 or not 0 < area[0] <= area[1] <= 1:
                raise UserError(f"random_resized_crop is {area}; it is the smallest and the "
                                "largest share of the area, such as (0.08, 1.0).")

    @property
    def deterministic(self) -> bool:
        return self.random_area is None

    def reading(self, epoch: int, index: int) -> contextlib.AbstractContextManager:
        """Within it, an image is decoded for this transform, not larger than it needs it."""
        if self.random_area is None:  # Evaluation is exact.
            return contextlib.nullcontext()

        def times(height: int, width: int) -> int:
            return min(height // self.size[0], width // self.size[1])

        def divisor(height: int, width: int) -> int:
            shapes = (height, width), (width, height)
            if max(times(*shape) for shape in shapes) < 2:  # Nor is any part of it larger.
                return 1
            uniform = self._uniform(epoch, index)
            return min(times(*_crop_box(shape, self.random_area, uniform)[2:])
                       for shape in shapes)

        return decoded_smaller(divisor)

    def _uniform(self, epoch: int, index: int) -> np.ndarray:
        bits = order.random_bits(self.seed, (epoch << 32) | index, order.CROP, 22)
        return (bits >> np.uint64(11)) * 2.0**-53

    def __call__(self, image: np.ndarray, epoch: int, index: int,
                 out: np.ndarray | None = None) -> np.ndarray:
        """Returns uint8 [H, W, C] of an image uint8 [h, w, C]; `out`, contiguous, if it is given.
        """
        if self.random_area is None:
            image = resize_center_crop(image, self.size, self.crop, self.interpolation)
            if out is None:
                return image
            out[:] = image
            return out
        return random_resized_crop(image, self.size, self.random_area,
                                   self._uniform(epoch, index), self.interpolation, out)
