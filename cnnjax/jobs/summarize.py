"""--job=summarize: the layers of the config's model."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from cnnjax.analysis import summarize
from cnnjax.jobs import experiment as experiment_lib


def run(config: ConfigDict, folder: Path, dry_run: bool = False) -> int:
    """Prints output shape, kernel, parameters and multiply-adds of every layer."""
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
