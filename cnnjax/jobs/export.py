"""--job=export: a model as StableHLO and as safetensors, with its preprocessing beside them."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from ml_collections import ConfigDict

from cnnjax import ops, weights
from cnnjax.analysis import text
from cnnjax.data import augment
from cnnjax.files import write_whole
from cnnjax.jobs import backend, console, pretrained, workdir
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.types import UserError
from cnnjax.weights import Pretrained

FOLDER, PROGRAM, WEIGHTS, ABOUT = "export", "model.stablehlo", "model.safetensors", "model.json"
PLATFORMS = ("cpu", "cuda", "tpu")


def run(config: ConfigDict, folder: Path, dry_run: bool = False) -> int:
    """Writes WORKDIR/export, reads it back, and compares the logits."""
    # One program for all platforms: float32, unless another precision is asked for by name.
    precision = "float32" if config.precision == "auto" else config.precision
    model = pretrained.open_model(config, folder, experiment_lib.compute_dtype(precision))
    kind = config.export.input
    folder = folder / FOLDER
    if dry_run:
        print(f"Would export {model.where} to {folder}.")
        return 0
    workdir.check_writable(folder)
    named = weights.has_names(model.name, model.module, model.variables)
    if named:
        weights.save_weights(folder / WEIGHTS, model.name, model.variables,
                             preprocess=model.preprocess, class_names=model.class_names,
                             **model.arguments)
    program = to_stablehlo(model, kind)
    write_whole(folder / PROGRAM, program)
    workdir.write_json(folder / ABOUT, {
        "model": model.name, "weights": model.where,
        "input": {"dtype": kind, "shape": ["batch", *_input_shape(model)],
                  "values": "0 to 255" if kind == "uint8" else "(x / 255 - mean) / std",
                  "channels": {1: "grey", 3: "RGB"}.get(model.preprocess.channels, "any")},
        "output": "logits", "platforms": list(PLATFORMS),
        "preprocess": model.preprocess.to_dict(), "class_names": list(pretrained.names_of(model)),
        "versions": backend.versions(),
    })
    error = check(model, folder, kind, named)
    console.print_table(f"Exported to {folder}", {
        "model": f"{model.name} from {model.where}",
        PROGRAM: f"{text.size(len(program))}, any batch of {_input_shape(model)} {kind}, for "
                 f"{', '.join(PLATFORMS)}",
        WEIGHTS: f"{text.size((folder / WEIGHTS).stat().st_size)}, in torch's names" if named
                 else f"left out: no names in torch are known for the tensors of {model.name}",
        ABOUT: "preprocessing and class names",
        "checked": "read back: " + "equal weights, " * named
                   + f"logits within {error:.1e} of their spread",
    })
    print(_usage(folder / PROGRAM, model, kind, named))
    return 0


def to_stablehlo(model: Pretrained, kind: str) -> bytes:
    """Returns a serialised `jax.export.Exported`: images of any batch size -> float32 logits.

    The weights are in it. Formulations that were measured for one backend are left out: they are
    chosen while a function is traced, and this one runs on all.

    Args:
      model: with its weights.
      kind: "float32", images normalised as the preprocessing says, or "uint8", raw ones.
    """
    def logits(images):
        if kind == "uint8":
            images = augment.normalize(images, model.preprocess.mean, model.preprocess.std)
        return model.module.apply(model.variables, images, train=False)

    shape = export.symbolic_shape("batch, " + ", ".join(map(str, _input_shape(model))))
    with ops.using("xla"):
        exported = export.export(jax.jit(logits), platforms=PLATFORMS)(
            jax.ShapeDtypeStruct(shape, jnp.dtype(kind)))
    return exported.serialize()


def check(model: Pretrained, folder: Path, kind: str, named: bool = True) -> float:
    """Reads the files and returns the largest difference of logits, in standard deviations.

    Args:
      model: that was exported.
      folder: of the files.
      kind: of `to_stablehlo`.
      named: whether there is a file of weights.

    Raises:
      UserError: if what was read is not what was written.
    """
    rng = np.random.default_rng(0)
    program = export.deserialize(bytearray((folder / PROGRAM).read_bytes()))
    again = weights.load(model.name, folder / WEIGHTS, **model.arguments) if named else model
    same = jax.tree.map(np.array_equal, again.variables, model.variables)
    if not all(jax.tree.leaves(same)) or again.preprocess != model.preprocess:
        raise UserError(f"{folder / WEIGHTS} does not hold what was written. Is the disk full?")
    worst = 0.0
    for batch in (1, 3):
        pixels = rng.integers(0, 256, (batch, *_input_shape(model)), np.uint8)
        normal = augment.normalize(pixels, model.preprocess.mean, model.preprocess.std)
        with ops.using("xla"):
            expected = jax.jit(again.module.apply)(again.variables, normal)
        given = pixels if kind == "uint8" else normal
        # The program has the weights in it: the cache of compiled ones would fill up with them.
        with backend.without_compilation_cache():
            found = jax.jit(program.call).lower(given).compile()(given)
        worst = max(worst, float(jnp.abs(found - expected).max() / (expected.std() + 1e-30)))
    if not worst <= (1e-4 if model.module.dtype == jnp.float32 else 1e-1):
        raise UserError(f"The logits of {folder / PROGRAM} differ by {worst:.1e} of their spread "
                        "from the model's.")
    return worst


def _input_shape(model: Pretrained) -> tuple[int, int, int]:
    return (*model.preprocess.size, model.preprocess.channels)


def _usage(path: Path, model: Pretrained, kind: str, named: bool) -> str:
    what = "0 to 255" if kind == "uint8" else f"normalised as {ABOUT} says"
    return "\n".join([
        "import pathlib, jax",
        f"program = jax.export.deserialize(pathlib.Path({str(path)!r}).read_bytes())",
        f"logits = program.call(images)  # {kind} {('N', *_input_shape(model))}, {what}",
        *["import cnnjax",
          f"module, variables, preprocess = cnnjax.load_weights({model.name!r}, "
          f"{str(path.with_name(WEIGHTS))!r})"] * named])
