"""--job=predict: labels images by a trained workdir or by pretrained weights."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from cnnjax import ops
from cnnjax.analysis.rendering import colors_shown
from cnnjax.cores import available_cores
from cnnjax.data.inputs import normalized
from cnnjax.files import write_whole
from cnnjax.jobs import console, contact_sheet, pretrained, workdir
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.images import Images, open_images
from cnnjax.types import UserError
from cnnjax.weights import Pretrained

TABLE, SHEET = "predictions.csv", "predictions.png"
_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Guess:
    """The most probable classes of one image, the first first, and the true one if known."""

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    truth: str | None


def run(config: ConfigDict, folder: Path, dry_run: bool = False) -> int:
    """Writes predictions.csv and a contact sheet into the workdir.

    Images that cannot be read are left out, and named at the end by a UserError.
    """
    ops.set_default(config.ops)
    ops.set_products("float32")
    model = pretrained.open_model(config, folder, experiment_lib.compute_dtype(config.precision))
    images = open_images(config, model, config.predict.images)
    size = min(config.predict.batch_size, images.count)
    if dry_run:
        print(f"Would label {images.count:,} images ({images.what}) by {model.where}, "
              f"{len(images.classes):,} classes, input {model.preprocess}.")
        return 0
    workdir.check_writable(folder)
    guesses, thumbnails, bad = {}, [], {}
    with contextlib.closing(console.Display(
            config.log.progress, images.count, 0, size)) as display:
        for indices, batch, errors, found in _label(model, images, size):
            guesses |= dict(zip(indices, found, strict=True))
            bad |= errors
            left = config.predict.sheet - len(thumbnails)
            thumbnails += list(zip(indices[:left], batch[:left], strict=True))
            display.step(len(guesses) + len(bad))
    written = [folder / TABLE]
    write_whole(written[0], _as_csv(images, guesses))
    if thumbnails:
        written.append(folder / SHEET)
        write_whole(written[1], contact_sheet.draw([
            (image, guesses[i].labels[0],
             f"{guesses[i].probabilities[0]:.1%}  {images.caption(i)}")
            for i, image in thumbnails]))
    _report(model, images, guesses, written)
    if bad:
        lines = "\n".join(f"  {message}" for message in bad.values())
        raise UserError(f"{len(bad)} of {images.count} images could not be read; the other "
                        f"{len(guesses)} are labelled in {written[0]}:\n{lines}")
    return 0


def _label(model: Pretrained, images: Images, size: int
           ) -> Iterator[tuple[list[int], np.ndarray, dict[int, str], list[Guess]]]:
    """Yields, a batch at a time: indices, uint8 images of the model's size, errors, guesses."""
    names = images.classes

    @jax.jit
    def top(variables, pixels):
        logits = model.module.apply(variables, normalized(pixels, model.preprocess), train=False)
        return jax.lax.top_k(jax.nn.softmax(logits), min(5, len(names)))

    def read(index):
        return images.fitted(index, model.preprocess)

    with ThreadPoolExecutor(available_cores()) as pool:
        for start in range(0, images.count, size):
            indices = range(start, min(start + size, images.count))
            found = dict(zip(indices, pool.map(read, indices), strict=True))
            errors = {i: str(v) for i, v in found.items() if isinstance(v, UserError)}
            good = [i for i in indices if i not in errors]
            if not good:
                yield [], np.zeros((0,)), errors, []
                continue
            batch = np.stack([found[i][0] for i in good])
            # Always of one size, so that it compiles once.
            padded = np.concatenate([batch, np.repeat(batch[-1:], size - len(good), 0)])
            probabilities, classes = map(np.asarray, top(model.variables, padded))
            yield good, batch, errors, [
                Guess(tuple(names[k] for k in row), tuple(map(float, p)),
                      None if found[i][1] is None else names[found[i][1]])
                for i, row, p in zip(good, classes, probabilities, strict=False)]


def _as_csv(images: Images, guesses: dict[int, Guess]) -> str:
    first = next(iter(guesses.values()), Guess(("",), (0.0,), None))
    known = first.truth is not None
    header = ["file", "label", "probability"]
    for k in range(2, len(first.labels) + 1):
        header += [f"label_{k}", f"probability_{k}"]
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(header + ["true_label"] * known)
    for i, guess in sorted(guesses.items()):
        row = [images.name(i)]
        for label, probability in zip(guess.labels, guess.probabilities, strict=True):
            row += [label, f"{probability:.6f}"]
        writer.writerow(row + [guess.truth] * known)
    return lines.getvalue()


def _report(model: Pretrained, images: Images, guesses: dict[int, Guess],
            written: Sequence[Path]) -> None:
    rows = {"model": model.name, "weights": model.where,
            "images": f"{len(guesses):,} of {images.what}"}
    if any(guess.truth is not None for guess in guesses.values()):
        right = sum(guess.labels[0] == guess.truth for guess in guesses.values())
        rows["top-1"] = f"{right / len(guesses):.2%}"
    if images.not_read:
        rows["not read"] = console.other_files(images.not_read)
    rows["written"] = ", ".join(map(str, written))
    if len(written) > 1 and (note := colors_shown(model.preprocess.channels)):
        rows["sheet"] = note
    console.print_table("Predictions", rows)
    for i, guess in sorted(guesses.items())[:_SHOWN]:
        print(f"{images.name(i)}  {guess.labels[0]}  {guess.probabilities[0]:.1%}")
    if len(guesses) > _SHOWN:
        print(f"… and {len(guesses) - _SHOWN:,} more in {written[0]}")
