"""What a config may hold: the checks of keys, types and ranges, before anything slow happens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from cnnjax.config import default, flatten, may_be_none, model_overrides, namesakes
from cnnjax.durations import in_steps
from cnnjax.types import UserError, did_you_mean


def validate(config: ConfigDict) -> None:
    """Checks keys, types and ranges, before anything slow happens.

    Raises:
      UserError: names the key, what is wrong with it and the nearest name or the choices.
    """
    from cnnjax import models  # Here, because `--help` should not wait for Flax.

    defaults = default()
    schema, flat = flatten(defaults), flatten(config)
    _check_keys(flat, schema)
    for key, value in flat.items():
        if key in schema:
            _check_type(key, value, defaults)
    if not config.model.name or not isinstance(config.model.name, str):
        raise UserError("model.name is empty. Name one of: " + ", ".join(models.list_models()))
    if "num_classes" in config.model:
        raise UserError("model.num_classes is that of the data set; leave it out.")
    try:
        models.lookup(config.model.name)
    except UserError as error:
        raise UserError(f"model.name: {error}") from None
    _check_model(config)
    for key, value in flat.items():
        if not isinstance(value, _PLAIN):
            raise UserError(f"{key} is {value!r}, which config.json cannot hold. Use a number, a "
                            'text (such as "bfloat16"), a tuple of those, or None.')
    for key, choices in _CHOICES.items():
        if flat[key] not in choices and not (flat[key] is None and may_be_none(key)):
            raise UserError(f"{key} is {flat[key]!r}; it is one of {', '.join(choices)}."
                            f"{did_you_mean(str(flat[key]), choices)}")
    for key, (low, high) in _RANGES.items():
        if flat[key] is not None and not low <= flat[key] <= high:
            raise UserError(f"{key} is {flat[key]}; it lies between {low} and {high}.")
    if config.precision == "bfloat16_products" and config.ops != "auto":
        raise UserError(f"precision is bfloat16_products, which rounds, but ops is {config.ops!r}, "
                        "which does not: set --config.ops=auto or --config.precision=float32.")
    for section, prefix in (("head", ""), ("train", ""), ("schedule", "warmup"),
                            ("schedule", "drop"), ("schedule", "drop_every"), ("eval", "every"),
                            ("checkpoint", "every"), ("log", "every")):
        in_steps(config[section], prefix, batch_size=1, examples=1, total=1, where=section)


_OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "lars", "lamb", "muon")
_CHOICES = {
    "precision": ("auto", "float32", "bfloat16", "bfloat16_products"),
    "ops": ("auto", "exact", "xla"),
    "export.input": ("float32", "uint8"),
    "data.interpolation": ("bilinear", "bicubic"),
    "data.placement": ("auto", "device", "stream"),
    "data.on_error": ("raise", "skip"),
    "augment.policy": ("none", "rand_augment", "rand_augment_increasing", "trivial_augment_wide",
                       "auto_augment", "auto_augment_cifar10", "auto_augment_svhn"),
    "augment.resample": ("nearest", "bilinear"),
    "augment.fill": ("black", "mean"),
    "train.loss": ("softmax", "sigmoid"),
    "train.norm_statistics": ("batch", "running"),
    "train.on_non_finite": ("stop", "rollback"),
    "eval.tta": ("none", "flip", "five_crop", "ten_crop"),
    "eval.probe": ("none", "knn", "linear", "all"),
    "head.optimizer": _OPTIMIZERS,
    "head.schedule": ("constant", "cosine", "linear"),
    "optimizer.name": _OPTIMIZERS,
    "schedule.name": ("constant", "cosine", "linear", "step", "exponential",
                      "range_test"),
    "checkpoint.metric": ("top1", "top5", "loss"),
    "log.progress": ("auto", "bar", "plain", "none"),
    "summarize.what": ("model", "data"),
    "sweep.executor": ("local", "slurm", "ray"),
}
_TUPLES_OF_TEXT = ("optimizer.decay", "train.trainable", "train.remat", "sharding.rules",
                   "eval.corruptions", "visualize.endpoints")
_PLAIN = (int, float, str, list, tuple, type(None))
_LARGE = 2**31 - 1
_RANGES = {
    "seed": (0, _LARGE),
    "devices": (0, _LARGE),
    "data.image_size": (0, 8192),
    "data.crop": (0.01, 1.0),
    "data.val_fraction": (0.001, 0.999),
    "data.split_seed": (0, _LARGE),
    "data.threads": (0, 1024),
    "prepare.short_side": (16, 8192),
    "prepare.quality": (1, 100),
    "prepare.shard_mb": (1, 16_384),
    "data.workers": (0, 1024),
    "augment.pad_crop": (0, 1024),
    "augment.num_ops": (1, 100),
    "augment.magnitude": (0, 30),
    "augment.magnitude_std": (0.0, 10.0),
    "augment.erase": (0.0, 1.0),
    "augment.mixup": (0.0, 100.0),
    "augment.cutmix": (0.0, 100.0),
    "augment.mix_probability": (0.0, 1.0),
    "augment.cutmix_probability": (0.0, 1.0),
    "augment.repeats": (1, 1000),
    "head.lr": (0.0, 1e6),
    "head.weight_decay": (0.0, 1e6),
    "train.batch_size": (1, _LARGE),
    "train.stop_after_steps": (1, _LARGE),
    "train.label_smoothing": (0.0, 0.999),
    "train.target_threshold": (0.0, 1.0),
    "train.accumulate": (1, 100_000),
    "train.ema_decay": (0.0, 0.9999999),
    "train.ema_batch_size": (1, _LARGE),
    "train.aux_weight": (0.0, 1e3),
    "train.steps_per_call": (0, 10_000),
    "train.rollback_lr_factor": (1e-12, 1.0),
    "train.max_rollbacks": (0, 1000),
    "train.ghost_batch_size": (0, _LARGE),
    "distill.temperature": (0.01, 1e3),
    "distill.weight": (0.0, 1.0),
    "sharding.fsdp_min_size": (0, _LARGE),
    "optimizer.momentum": (0.0, 1.0),
    "optimizer.b1": (0.0, 0.9999999),
    "optimizer.b2": (0.0, 0.9999999),
    "optimizer.eps": (0.0, 1.0),
    "optimizer.weight_decay": (0.0, 1e6),
    "optimizer.clip_norm": (0.0, 1e9),
    "optimizer.layer_decay": (0.0, 1.0),
    "schedule.lr": (0.0, 1e6),
    "schedule.lr_batch_size": (1, _LARGE),
    "schedule.final_lr": (0.0, 1.0),
    "schedule.drop_factor": (0.0, 1.0),
    "schedule.range_start": (1e-30, 1.0),
    "benchmark.rounds": (1, 1000),
    "benchmark.seconds": (0.0, 3600.0),
    "lr_finder.lowest": (1e-30, 1e6),
    "lr_finder.highest": (1e-30, 1e6),
    "lr_finder.steps": (10, 1_000_000),
    "eval.batch_size": (0, _LARGE),
    "eval.image_size": (0, 8192),
    "eval.probe_neighbours": (1, _LARGE),
    "predict.batch_size": (1, _LARGE),
    "predict.sheet": (0, 1000),
    "summarize.images": (1, 64),
    "summarize.draws": (1, 64),
    "visualize.count": (2, 1_000_000),
    "visualize.shown": (1, 64),
    "visualize.channels": (1, 64),
    "visualize.patches": (1, 64),
    "visualize.ascent": (0, 100_000),
    "visualize.integration": (1, 100_000),
    "visualize.batch_size": (1, _LARGE),
    "checkpoint.keep_last": (1, 10_000),
    "checkpoint.keep_best": (0, 10_000),
    "seeds": (0, 10_000),
    "sweep.at_a_time": (0, 10_000),
    "sweep.retries": (0, 1000),
    "sweep.cpus": (0, 10_000),
    "sweep.gpus": (0, 1000),
    "sweep.slurm_minutes": (1, 1_000_000),
    "sweep.slurm_memory_gb": (0.0, 1e6),
    "sweep.asha_rungs": (1, 10),
    "sweep.asha_reduction": (2, 10),
}


def _check_keys(flat: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    for key in flat:
        if key not in schema and not key.startswith("model."):
            alike = namesakes(key)[:3]
            near = (f" Did you mean {' or '.join(map(repr, alike))}?" if alike
                    else did_you_mean(key, schema) or did_you_mean(
                        key.rpartition(".")[2], schema))
            siblings = [k for k in schema if k.startswith(key.rpartition(".")[0] + ".")]
            raise UserError(f"There is no config key {key!r}.{near}"
                            + (f" Its neighbours: {', '.join(siblings)}." if siblings else ""))
    for key in schema:
        if key not in flat:
            raise UserError(f"The config key {key!r} is missing. "
                            "Start the experiment from cnnjax.config.default().")


def _check_model(config: ConfigDict) -> None:
    from cnnjax import models

    name, arguments = config.model.name, model_overrides(config)
    every = {key for model in models.list_models() for key in models.model_arguments(model)}
    # None leaves out what another model takes, and no word that none does.
    misspelt = {key: None for key in config.model if key not in every | {"name"}}
    try:
        models.create_model(name, num_classes=10, **{**misspelt, **arguments})
    except UserError as error:
        of_others = sorted(arguments.keys() & every - models.model_arguments(name).keys())
        raise UserError(str(error) + (
            " If the experiment's file sets it, leave it out: " + " ".join(
                f"--config.model.{key}=None" for key in of_others) if of_others else "")) from None


def _check_type(key: str, value: Any, defaults: ConfigDict) -> None:
    section, _, name = key.rpartition(".")
    parent = defaults[section] if section else defaults
    kind = parent.get_type(name)
    if value is None and may_be_none(key):
        return
    allowed = {float: (float, int), tuple: (list, tuple)}.get(kind, (kind,))
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{key} is {value!r}, a {type(value).__name__}; "
                        f"it takes a {kind.__name__}.")
    if kind is float and not math.isfinite(value):
        raise UserError(f"{key} is {value}; it takes a finite number.")
    if key == "optimizer.lr_multipliers":
        return _check_pairs(key, value)
    if key == "train.progressive":
        return _check_sizes(key, value)
    element = str if key in _TUPLES_OF_TEXT else (int, float)
    if kind is tuple and not all(
            isinstance(item, element) and not isinstance(item, bool)
            and (element is str or math.isfinite(item)) for item in value):
        raise UserError(f"{key} is {tuple(value)!r}; it takes a tuple of "
                        f"{'texts' if element is str else 'finite numbers'}.")


def _check_sizes(key: str, value: Any) -> None:
    """Checks pairs of (percent of the run, image size): from 0 on, ascending."""
    pairs = [tuple(pair) if isinstance(pair, (list, tuple)) else pair for pair in value]
    right = all(isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], int)
                and isinstance(pair[0], (int, float)) and 0 <= pair[0] < 100
                and 0 < pair[1] <= 8192 for pair in pairs)
    if not right or pairs and (pairs[0][0] != 0 or any(
            a[0] >= b[0] for a, b in zip(pairs, pairs[1:], strict=False))):
        raise UserError(f"{key} is {tuple(value)!r}; it takes pairs of a percentage of the run and "
                        "the image size from there on, in order and the first at 0, such as "
                        "((0, 160), (75, 192)).")


def _check_pairs(key: str, value: Any) -> None:
    for pair in value:
        if not (isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str)
                and isinstance(pair[1], (int, float)) and 0 <= pair[1] < math.inf):
            raise UserError(f"{key} has {pair!r}; it takes pairs of a regular expression and a "
                            'number from 0 on, such as (("head/.*", 10.0),).')
