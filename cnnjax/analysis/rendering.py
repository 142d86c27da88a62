"""Arrays as small colour pictures, uint8 (h, w, 3)."""

from __future__ import annotations

from typing import Any

import numpy as np

# Okabe & Ito's colours, told apart by colour-blind people too.
PALETTE = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0), (204, 121, 167),
           (86, 180, 233), (148, 103, 189), (140, 86, 75), (120, 120, 120), (188, 189, 34))


def as_rgb(image: Any) -> np.ndarray:
    """Returns an image as uint8 (h, w, 3); floats go from 0 to 1. See `colors_shown`."""
    image = np.asarray(image)
    if image.dtype != np.uint8:
        image = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    if image.shape[-1] == 1:
        return np.repeat(image, 3, -1)
    if image.shape[-1] == 2:
        return np.concatenate([image, np.zeros_like(image[..., :1])], -1)
    return image[..., :3]


def colors_shown(channels: int) -> str:
    """Returns a sentence on the pictures that `as_rgb` makes of images that are not grey or RGB."""
    if channels in (1, 3):
        return ""
    which = "two channels as red and green" if channels == 2 else (
        f"first three of {channels} channels as red, green and blue")
    return f"Pictures of images show their {which}."


def fitted(picture: np.ndarray, side: int) -> np.ndarray:
    """Returns a picture whose longer side is about `side` pixels.

    Small ones are enlarged by a whole number, so that each of their pixels stays one; large ones
    are averaged down.
    """
    longest = max(picture.shape[:2])
    if (factor := round(side / longest)) > 1:
        return picture.repeat(factor, 0).repeat(factor, 1)
    if longest <= side:
        return picture
    from PIL import Image

    size = [max(1, round(n * side / longest)) for n in picture.shape[1::-1]]
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


def pooled(values: Any, side: int) -> np.ndarray:
    """Returns a map (h, w) whose longer side is at most `side`, averaged down if need be."""
    values = np.asarray(values, np.float32)
    longest = max(values.shape)
    if longest <= side:
        return values
    from PIL import Image

    size = [max(1, round(n * side / longest)) for n in values.shape[::-1]]
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BOX))


def heat(values: Any, top: float | None = None) -> np.ndarray:
    """Returns values (h, w) from 0 (black) to `top`, by default their largest (light yellow)."""
    values = np.asarray(values, np.float64)
    top = values.max() if top is None else top
    return _coloured("inferno", values / top if top > 0 else 0 * values)


def signed(values: Any, percentile: float = 99.0) -> np.ndarray:
    """Returns values (h, w): red above 0, blue below, white at 0.

    The scale ends at a percentile of their magnitudes, so that a few extremes don't hide the rest.
    """
    values = np.asarray(values, np.float64)
    top = np.percentile(np.abs(values), percentile) or np.abs(values).max()
    return _coloured("RdBu_r", 0.5 + values / (2 * top) if top > 0 else 0.5 + 0 * values)


def ranged(values: Any) -> np.ndarray:
    """Returns values (h, w) from their smallest (dark blue) to their largest (yellow)."""
    values = np.asarray(values, np.float64)
    spread = np.ptp(values)
    return _coloured("viridis", (values - values.min()) / spread if spread > 0 else 0 * values)


def over(image: Any, values: Any, strength: float = 0.6) -> np.ndarray:
    """Returns an image, greyed, below a map (h, w) of the same size whose 0 is transparent."""
    grey = as_rgb(image).mean(-1, keepdims=True).repeat(3, -1)
    values = np.asarray(values, np.float64)
    share = (values / values.max() if values.max() > 0 else 0 * values)[..., None]
    weight = strength * np.clip(share * 2, 0, 1)
    return ((1 - weight) * grey + weight * _coloured("turbo", share[..., 0])).round().astype(
        np.uint8)


def framed(picture: np.ndarray, box: tuple[float, float, float, float], color=(0, 255, 255),
           thickness: int = 2) -> np.ndarray:
    """Returns a picture with a frame of (top, left, height, width) pixels, clipped to it."""
    picture = picture.copy()
    height, width = picture.shape[:2]
    top, left = round(box[0]), round(box[1])
    bottom, right = round(box[0] + box[2]), round(box[1] + box[3])
    top, left = (min(max(n, 0), size) for n, size in ((top, height), (left, width)))
    bottom, right = (min(max(n, 0), size) for n, size in ((bottom, height), (right, width)))
    for rows, cols in ((slice(top, min(top + thickness, bottom)), slice(left, right)),
                       (slice(max(bottom - thickness, top), bottom), slice(left, right)),
                       (slice(top, bottom), slice(left, min(left + thickness, right))),
                       (slice(top, bottom), slice(max(right - thickness, left), right))):
        picture[rows, cols] = color
    return picture


def _coloured(name: str, values: np.ndarray) -> np.ndarray:
    import matplotlib

    return matplotlib.colormaps[name](np.clip(values, 0, 1), bytes=True)[..., :3]
