"""Where weights come from: a file, a cnnjax run, or the hub, all as tensors by name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax import trees
from cnnjax.files import expanded
from cnnjax.models import arguments_of
from cnnjax.types import Preprocess, UserError
from cnnjax.weights import files, hub, published

_CHECKPOINTS = "checkpoints"
# What timm calls nets that have another name here, and their arguments of `create_model`. The
# widths of its V3 are rounded otherwise.
_TIMM = {**{f"mobilenetv2_{percent:03}": ("mobilenet_v2", {"width": percent / 100})
            for percent in (35, 50, 75, 100, 140)},
         "mobilenetv3_small_100": ("mobilenet_v3_small", {}),
         "mobilenetv3_large_100": ("mobilenet_v3_large", {})}


@dataclasses.dataclass(frozen=True)
class Source:
    """Tensors, and what is known of the model that they belong to.

    Attributes:
      tensors: name -> array, of any dtype.
      where: what to call it in messages.
      file: the name of the file, by which published weights are known; "" for a run.
      model: that the source says it is, by our name if we have it; None if it doesn't say.
      arguments: of `create_model`.
      preprocess: None if the source doesn't say.
      num_classes: outputs, None if the source doesn't say.
      class_names: in the order of the outputs, None if the source doesn't say.
      record: of a run, what stands beside the arrays in its checkpoint; else None.
    """

    tensors: Mapping[str, np.ndarray]
    where: str
    file: str = ""
    model: str | None = None
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    preprocess: Preprocess | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    record: Mapping[str, Any] | None = None


def read(path_or_id: str | Path) -> Source:
    """Reads a file, a cnnjax workdir or checkpoint, or a hub repository.

    Args:
      path_or_id: a file as in `files.read`; a workdir, whose last checkpoint is taken, or the
        folder of one checkpoint, such as "runs/lenet5/checkpoints/500", or "…/best"; or a hub id.

    Raises:
      UserError: if it is none of these or cannot be read.
    """
    path = expanded(path_or_id)
    if path.is_dir() or _is_word(path):
        return _read_run(path)
    if path.exists() or not hub.is_id(str(path_or_id)) or path.suffix in files.EXTENSIONS:
        beside = path.with_name("config.json")
        return _read_file(path, str(path), beside if beside.is_file() else None)
    return _read_file(*_hub_file(str(path_or_id)))


def _hub_file(identifier: str) -> tuple[Path, str, Path | None]:
    path, config = hub.download(identifier)
    return path, identifier, config


def _read_file(path: Path, where: str, config: Path | None) -> Source:
    state = files.read(path)
    try:
        source = Source(state.tensors, where, path.name, **_said(state.metadata))
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{where}: its metadata are not as save_weights writes them: "
                        f"{error}.") from None
    return source if config is None or source.preprocess else _with_timm_config(source, config)


def _said(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Returns what a safetensors file says about itself, as fields of a `Source`."""
    found: dict[str, Any] = {}
    if "names" in metadata:  # Others' files may mean anything by "model".
        found["model"] = metadata.get("model")
    if "arguments" in metadata:
        found["arguments"] = dict(json.loads(metadata["arguments"]))
    if "preprocess" in metadata:
        found["preprocess"] = Preprocess.from_dict(json.loads(metadata["preprocess"]))
    if "num_classes" in metadata:
        found["num_classes"] = int(metadata["num_classes"])
        if found["num_classes"] < 0:
            raise ValueError(f"num_classes is {found['num_classes']}")
    if "class_names" in metadata:
        names = json.loads(metadata["class_names"])
        if not isinstance(names, list):
            raise ValueError("class_names is no list")
        found["class_names"] = tuple(map(str, names))
    return found


def _with_timm_config(source: Source, path: Path) -> Source:
    """Returns the source with what timm's config.json says, if it is one."""
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict) or "pretrained_cfg" not in config:
        return source
    labels = config.get("label_names")
    # None, or an architecture with or without its tag: "resnet50.a1_in1k".
    name = str(config.get("architecture") or "").partition(".")[0] or None
    name, arguments = _TIMM.get(name, (name, {}))
    return dataclasses.replace(
        source, model=name, arguments=arguments,
        preprocess=published.from_timm(config, str(path)),
        class_names=tuple(map(str, labels)) if isinstance(labels, list) else None)


def _is_word(path: Path) -> bool:
    """Whether a path is that of the last or the best checkpoint, in words."""
    return path.parent.name == _CHECKPOINTS and path.name in ("last", "best")


def _read_run(folder: Path) -> Source:
    from cnnjax.checkpoint import Checkpoints  # Orbax takes a second, and only runs need it.

    which = "last"
    if folder.name.isdecimal() and (folder / "state").is_dir() or _is_word(folder):
        folder, which = folder.parent, folder.name
    elif (folder / _CHECKPOINTS).is_dir():
        folder = folder / _CHECKPOINTS
    if not folder.is_dir() or not any(path.name.isdecimal() for path in folder.iterdir()):
        raise UserError(f"There is no checkpoint in {folder}. Give the workdir of a run that has "
                        "trained, or a file of weights.")
    checkpoints = Checkpoints(folder, read_only=True)
    if which == "best":
        newest = checkpoints.record(checkpoints.find("last"))
        checkpoints = Checkpoints(folder, read_only=True,
                                  metric=newest["config"]["checkpoint"]["metric"])
    step = checkpoints.find(which)
    record = checkpoints.record(step)
    # Moving averages, where a run has them, are what was evaluated.
    variables = checkpoints.restore_parts(step, ("average",)).get("average")
    variables = variables or checkpoints.restore_parts(step, ("params", "batch_stats"))
    return Source(
        trees.named_leaves(variables), f"{folder} at step {step}", "", record["model"]["name"],
        arguments_of(record["config"]["model"]), Preprocess.from_dict(record["preprocess"]),
        record["model"]["num_classes"], tuple(record["class_names"]), record)
