"""--job=summarize: the layers of the config's model, or with --models, models side by side."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from cnnjax.analysis import summarize
from cnnjax.analysis.comparison import compare, format_comparison
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.models import list_models
from cnnjax.types import UserError, did_you_mean


def run(config: ConfigDict, folder: Path, dry_run: bool = False) -> int:
    """Prints output shape, kernel, parameters, multiply-adds and field of every layer."""
    del folder, dry_run  # It writes nothing anyway.
    dataset = experiment_lib.open_dataset(config)
    preprocess = experiment_lib.make_preprocess(config, dataset)
    module = experiment_lib.make_module(config, dataset.num_classes,
                                        experiment_lib.compute_dtype(config.precision))
    experiment_lib.check_input_size(config, module, preprocess)
    shape = (1, *preprocess.size, preprocess.channels)
    print(f"{config.model.name} for {dataset.num_classes} classes, input {shape[1:]}\n")
    print(summarize(module, shape).format_table())
    return 0


def run_comparison(pattern: str) -> int:
    """Prints the models whose names match a shell pattern, such as "resnet*", in one table.

    Raises:
      UserError: if there is none.
    """
    every = list_models()
    if not (names := list_models(pattern)):
        raise UserError(f"--models={pattern} matches no model.{did_you_mean(pattern, every)} "
                        f"The models are: {', '.join(every)}.")
    print(format_comparison(compare(names)))
    return 0
