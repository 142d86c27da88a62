"""--job=visualize: a page of what a model sees, looks for, looks at and gets wrong."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
from ml_collections import ConfigDict

from cnnjax import ops, trees
from cnnjax.analysis import text
from cnnjax.files import write_whole
from cnnjax.jobs import console, pretrained, workdir
from cnnjax.jobs.images import open_images
from cnnjax.jobs.visualize import anatomy, evidence, geometry, layers, mistakes, page
from cnnjax.jobs.visualize.subject import Subject, look

FOLDER, PAGE = "visualize", "index.html"


def run(config: ConfigDict, folder: Path, dry_run: bool = False) -> int:
    """Writes a page of HTML and its figures as PNGs into the workdir's folder "visualize"."""
    ops.set_default(config.ops)
    ops.set_products("float32")
    # Derivatives and their sums are shown, which bfloat16 would round too much.
    model = pretrained.open_model(config, folder, jnp.dtype("float32"))
    images = open_images(config, model, config.visualize.images)
    out = folder / FOLDER
    if dry_run:
        print(f"Would look inside {model.name} ({model.where}) with "
              f"{min(images.count, config.visualize.count):,} images of {images.what}, "
              f"and write {out / PAGE}.")
        return 0
    workdir.check_writable(out)
    begun = time.perf_counter()
    progress = _Progress(quiet=config.log.progress == "none")
    subject = look(config, model, images)
    progress.done(f"{len(subject.pixels):,} images seen")
    sections = _sections(subject, progress)
    written = _write(out, _title(subject), _facts(subject), subject.remarks, sections)
    console.print_table("Looked inside", {
        "model": model.name, "weights": model.where, "images": f"{len(subject.pixels):,} of "
        f"{images.what}", "page": f"{out / PAGE} ({text.size((out / PAGE).stat().st_size)})",
        "figures": f"{written} PNGs", "time": console.duration(time.perf_counter() - begun)})
    return 0


class _Progress:
    """One line a part, with the seconds that it took."""

    def __init__(self, quiet: bool):
        self._quiet, self._since = quiet, time.perf_counter()

    def done(self, what: str) -> None:
        now = time.perf_counter()
        if not self._quiet:
            print(f"{what}: {console.duration(now - self._since)}", flush=True)
        self._since = now


def _sections(subject: Subject, progress: _Progress) -> list[page.Section]:
    effective = anatomy.effective_fields(subject)
    found = [anatomy.section(subject, effective)]
    progress.done(found[-1].title)
    makers = [lambda: layers.section(subject, effective), lambda: evidence.section(subject)]
    if subject.labels is not None:
        makers.append(lambda: mistakes.section(subject))
    makers.append(lambda: geometry.section(subject, len(found) + 1))
    for make in makers:
        found.append(make())
        progress.done(found[-1].title)
    return found


def _title(subject: Subject) -> str:
    return f"Inside {subject.model.name}"


def _facts(subject: Subject) -> list[tuple[str, str]]:
    height, width, channels = subject.pixels.shape[1:]
    facts = [("weights", "/".join(Path(subject.model.where).parts[-2:])), ("images", subject.what),
             ("looked at", f"{len(subject.pixels):,}"), ("classes", f"{len(subject.classes):,}"),
             ("input", f"{height}x{width}x{channels}"),
             ("parameters", f"{trees.count(subject.model.variables['params']):,}"),
             ("multiply-adds", text.size(subject.summary.macs, "")),
             ("depth", str(subject.summary.depth or "unknown"))]
    if subject.labels is not None:
        facts.append(("top-1 of these", f"{(subject.said == subject.labels).mean():.2%}"))
    return facts


def _write(out: Path, title: str, facts, remarks: Sequence[str],
           sections: Sequence[page.Section]) -> int:
    """Writes the figures and the page, and returns how many figures there are."""
    written = set()
    for part in (part for section in sections for part in section.parts):
        if isinstance(part, (page.Figure, page.Chart)):
            content = part.png if isinstance(part, page.Chart) else page.png_of(part)
            write_whole(out / f"{part.name}.png", content)
            written.add(f"{part.name}.png")
    write_whole(out / PAGE, page.render(title, facts, remarks, sections))
    for old in out.glob("*.png"):  # Of an earlier call, perhaps of other layers.
        if old.name not in written:
            old.unlink()
    return len(written)
