"""What the augmentations are compared on: made again by the test and by make_golden.py."""

import numpy as np

SIZE = (24, 20)
FILL = (124, 116, 104)
# Operation -> magnitudes; the signed ones also with a minus. Factors are not round, because what is
# whole in exact arithmetic may be cut to the level below.
MAGNITUDES = {"Identity": (0.0,), "ShearX": (0.07, 0.99), "ShearY": (0.3,), "TranslateX": (3.0,),
              "TranslateY": (10.0,), "Rotate": (9.0, 135.0), "Brightness": (0.2713, 0.9871),
              "Color": (0.5371, 0.8731), "Contrast": (0.2713, 0.9871),
              "Sharpness": (0.8931, 0.2931), "Posterize": (2.0, 7.0), "Solarize": (127.5, 0.0),
              "AutoContrast": (0.0,), "Equalize": (0.0,), "Invert": (0.0,)}
SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color",
          "Contrast", "Sharpness")
OPERATIONS = [(name, sign * size) for name, sizes in MAGNITUDES.items() for size in sizes
              for sign in ((1, -1) if name in SIGNED else (1,))]
RESAMPLED = [("ShearX", 0.2137), ("Rotate", -30.0), ("TranslateY", 4.0), ("ShearY", -0.1131)]
GREY = [case for case in OPERATIONS if case[0] in ("Color", "Contrast", "Sharpness", "Equalize")]
FLAT = [("AutoContrast", 0.0), ("Equalize", 0.0)]
# (brightness, contrast, saturation, hue), and the order in which they come.
JITTER = [((1.2931, 0.6127, 1.3917, 0.2013), (0, 1, 2, 3)),
          ((0.7113, 1.3871, 0.2171, -0.4131), (3, 2, 1, 0)),
          ((1.0, 1.0, 1.0, 0.4937), (1, 3, 0, 2)),
          ((0.8931, 1.1073, 0.7117, -0.0713), (2, 0, 3, 1))]
# Box (top, left, height, width), size of the result, method.
CROPS = [((3, 2, 20, 15), (9, 7), "bilinear"), ((0, 5, 7, 9), (16, 15), "bilinear"),
         ((3, 2, 20, 15), (9, 7), "bicubic"), ((11, 4, 8, 12), (8, 17), "bicubic")]
ERASE = {"area": (0.02, 0.33), "ratio": (0.3, 3.3)}
# Two shapes, of which the second makes most tries fail.
BOX_SIZES = [(24, 20), (9, 60)]
# (kind, weight, centre of the box as uniform draws)
MIXES = [("mixup", 0.3, (0, 0)), ("cutmix", 0.6, (0.5, 0.4)), ("cutmix", 0.2, (0.02, 0.97))]


def image(kind="photo"):
    """uint8 [24, 20, 3]: slopes of different colours, an edge, and noise; "grey": one channel."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:SIZE[0], :SIZE[1]]
    slopes = np.stack([40 + 6 * y, 30 + 4 * x + 2 * y, 200 - 5 * x], axis=-1).astype(float)
    slopes[6:15, 8:] += (60, -20, 30)
    noisy = np.clip(slopes + rng.normal(0, 9, slopes.shape), 0, 255).astype(np.uint8)
    return noisy[..., 1:2] if kind == "grey" else noisy


def flat():
    """An image whose first channel has one level, and whose second has two."""
    out = image().copy()
    out[..., 0] = 77
    out[..., 1] = np.where(out[..., 1] > 90, 131, 130)
    return out


def draws(count):
    """Uniform float32 [count, 10, 4] in [0, 1), of 24 bits as JAX draws them."""
    return np.random.default_rng(6).integers(0, 2**24, (count, 10, 4)).astype(np.float32) / 2**24


def batch():
    """float32 [4, 8, 7, 1], and labels of 5 classes."""
    rng = np.random.default_rng(7)
    return rng.normal(size=(4, 8, 7, 1)).astype(np.float32), np.array([0, 3, 4, 1])
