"""Changes of colour: of one image [H, W, C], uint8 to uint8, C = 1 or 3.

Each rounds where torchvision's function for uint8 tensors of the same name does, so that the two
agree to one level. Where a mean or a histogram is needed it is that of the image.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, in torchvision's digits.
_DARKER = 128  # The levels below it are those that `solarize_add` raises.


def adjust_brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Multiplies by `factor`: 0 gives black, 1 the image."""
    return blend(image, 0.0, factor)


def adjust_saturation(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends with the grey image: 0 gives grey, 1 the image, more than 1 stronger colours."""
    return image if image.shape[-1] == 1 else blend(image, _grey(image), factor)


def adjust_contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends with the mean of the grey image: 0 gives that, 1 the image."""
    # Along the rows first: XLA:CPU reduces a whole array to one number several times slower.
    return blend(image, jnp.mean(_grey(image).mean(axis=0)), factor)


def adjust_sharpness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends with the smoothed image (3x3, centre 5, else 1): 0 gives that, 1 the image.

    The outermost pixels have no neighbours and stay as they are.
    """
    h, w = image.shape[:2]
    if h <= 2 or w <= 2:
        return image
    levels = image.astype(jnp.float32)
    total = 4 * levels[1:-1, 1:-1] + sum(
        levels[i:h - 2 + i, j:w - 2 + j] for i in range(3) for j in range(3))
    smooth = jnp.pad(jnp.round(total / 13) - levels[1:-1, 1:-1], ((1, 1), (1, 1), (0, 0))) + levels
    return blend(image, smooth, factor)


def adjust_hue(image: jax.Array, shift: jax.Array) -> jax.Array:
    """Turns the hue by `shift` of the circle, -0.5 to 0.5, in HSV space."""
    if image.shape[-1] == 1:
        return image
    return jnp.stack(turn_hue(*jnp.moveaxis(image, -1, 0), shift), axis=-1)


def turn_hue(r: jax.Array, g: jax.Array, b: jax.Array, shift: jax.Array
             ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Does what `adjust_hue` does to planes, uint8 [...] each."""
    r, g, b = (plane.astype(jnp.float32) / 255 for plane in (r, g, b))
    value, least = jnp.maximum(jnp.maximum(r, g), b), jnp.minimum(jnp.minimum(r, g), b)
    chroma = value - least
    span = jnp.where(chroma == 0, 1.0, chroma)
    # In sixths of the circle.
    hue = jnp.where(value == r, (g - b) / span,
                    jnp.where(value == g, 2 + (b - r) / span, 4 + (r - g) / span))
    hue = jnp.where(chroma == 0, 0.0, hue) + 6 * shift

    def channel(offset):
        k = jnp.mod(hue + offset, 6.0)
        out = value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)
        return jnp.clip(out * 255.999, 0, 255).astype(jnp.uint8)

    return channel(5.0), channel(3.0), channel(1.0)


def posterize(image: jax.Array, bits: jax.Array) -> jax.Array:
    """Keeps the `bits` most significant bits of every level, 0 to 8."""
    mask = jnp.left_shift(0xFF, 8 - bits.astype(jnp.int32)) & 0xFF
    return image & mask.astype(jnp.uint8)


def solarize(image: jax.Array, threshold: jax.Array) -> jax.Array:
    """Inverts the levels from `threshold` on, which is 0 to 256 and need not be whole."""
    return jnp.where(image >= threshold, invert(image), image)


def solarize_add(image: jax.Array, amount: jax.Array) -> jax.Array:
    """Adds `amount` to the levels below 128 (TensorFlow's EfficientNet; arXiv 1909.13719)."""
    raised = jnp.minimum(image.astype(jnp.int32) + amount.astype(jnp.int32), 255)
    return jnp.where(image < _DARKER, raised.astype(jnp.uint8), image)


def invert(image: jax.Array) -> jax.Array:
    """Returns 255 - image."""
    return 255 - image


# (levels, magnitude) -> levels: what needs neither other channels nor other pixels.
OF_A_LEVEL = {"Brightness": lambda levels, size: adjust_brightness(levels, 1 + size),
              "Posterize": posterize, "Solarize": solarize, "SolarizeAdd": solarize_add,
              "Invert": lambda levels, size: invert(levels)}


def autocontrast(image: jax.Array) -> jax.Array:
    """Stretches each channel so that its darkest level becomes 0 and its brightest 255."""
    low, high = (reduce(reduce(image, axis=0), axis=0) for reduce in (jnp.min, jnp.max))
    return stretch(image, low, high)


def stretch(levels: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """Maps low..high to 0..255; where the two are the same, the levels stay."""
    low, high = low.astype(jnp.float32), high.astype(jnp.float32)
    flat = low == high
    scale = jnp.where(flat, 1.0, 255 / jnp.where(flat, 1.0, high - low))
    stretched = (levels - jnp.where(flat, 0.0, low)) * scale
    return jnp.clip(stretched, 0, 255).astype(jnp.uint8)


def equalize(image: jax.Array) -> jax.Array:
    """Makes the levels of each channel equally frequent, as Pillow's ImageOps.equalize does."""
    table = equalizing_table(_histogram(image))
    where = image.astype(jnp.int32) + 256 * jnp.arange(image.shape[-1])
    return table.reshape(-1).at[where].get(mode="promise_in_bounds")


def equalizing_table(count: jax.Array) -> jax.Array:
    """Returns what `equalize` makes of each level: how often each occurs, int32 [C, 256] -> uint8.
    """
    # A level becomes the share of the pixels that are darker. The brightest level that occurs does
    # not count, so that it becomes 255.
    brightest = jnp.max(jnp.where(count > 0, jnp.arange(256), 0), axis=1, keepdims=True)
    step = (count.sum(axis=1, keepdims=True) - jnp.take_along_axis(count, brightest, 1)) // 255
    darker = jnp.cumsum(count, axis=1) - count
    table = jnp.clip((darker + step // 2) // jnp.maximum(step, 1), 0, 255)
    return jnp.where(step == 0, jnp.arange(256), table).astype(jnp.uint8)


def grey(*planes: jax.Array) -> jax.Array:
    """Returns the luma as whole numbers, float32, of one plane or of red, green and blue."""
    planes = [plane.astype(jnp.float32) for plane in planes]
    if len(planes) == 1:
        return planes[0]
    return jnp.floor(sum(weight * plane for weight, plane in zip(_LUMA, planes, strict=True)))


def _grey(image: jax.Array) -> jax.Array:
    return grey(*(image[..., i:i + 1] for i in range(image.shape[-1])))


def blend(image: jax.Array, other: jax.Array | float, factor: jax.Array) -> jax.Array:
    """Returns factor · image + (1 - factor) · other, cut to whole levels."""
    mixed = factor * image.astype(jnp.float32) + (1 - factor) * other
    return jnp.clip(mixed, 0, 255).astype(jnp.uint8)


def _histogram(image: jax.Array) -> jax.Array:
    """Returns how often each level occurs in each channel, int32 [C, 256]."""
    flat = image.reshape(-1, image.shape[-1]).T.astype(jnp.int32)
    return jax.vmap(lambda levels: jnp.zeros(256, jnp.int32).at[levels].add(
        1, mode="promise_in_bounds"))(flat)
