"""--job=summarize: the layers of the config's model, the data, models side by side, or how
one scales."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from cnnjax.analysis import summarize
from cnnjax.analysis.comparison import compare, format_comparison
from cnnjax.analysis.scaling import BaseNetwork
from cnnjax.analysis.scaling_tables import format_all
from cnnjax.config import model_overrides
from cnnjax.data import Dataset
from cnnjax.jobs import data_summary, initial_weights
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.model_input import at_eval_size
from cnnjax.jobs.resume import saved_preprocess
from cnnjax.models import list_models, lookup
from cnnjax.types import Preprocess, UserError, did_you_mean
from cnnjax.validation import validate


def run(config: ConfigDict, folder: Path, dry_run: bool = False) -> int:
    """Prints output shape, kernel, parameters, multiply-adds and field of every layer.

    Or, with `summarize.what` = "data", what the data set holds (`data_summary`).
    """
    if config.summarize.what == "data":
        return data_summary.run(config, folder, dry_run)
    dataset = experiment_lib.open_dataset(config)
    preprocess = _preprocess(config, dataset, folder)
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


def run_scaling(name: str | None, config: ConfigDict | None) -> int:
    """Prints how a network scales: a table of phi, families at equal cost, the constraint search.

    Args:
      name: of a model, with the images it was published for; or None for the config's.
      config: of an experiment, or None.

    Raises:
      UserError: if the model has no depth and width to scale, or its images are not square.
    """
    if name is not None:
        lookup(name)
        base = BaseNetwork.published(name)
    else:
        validate(config)
        base = base_network(config)
    for table in format_all(base):
        print(table, flush=True)
    return 0


def base_network(config: ConfigDict) -> BaseNetwork:
    """Returns the network of a config, for the images and the classes of its data set.

    Raises:
      UserError: as `run_scaling`, or if the data set cannot be opened.
    """
    dataset = experiment_lib.open_dataset(config)
    preprocess = _preprocess(config, dataset)
    if len(set(preprocess.size)) > 1:
        raise UserError(f"The images are {preprocess.size[0]}x{preprocess.size[1]}; scaling "
                        "takes square ones: set --config.data.image_size=N.")
    return BaseNetwork(config.model.name, preprocess.size[0], preprocess.channels,
                       dataset.num_classes, model_overrides(config))


def _preprocess(config: ConfigDict, dataset: Dataset, folder: Path | None = None) -> Preprocess:
    """Returns how images become the model's input in a run with this config.

    The weights that the run starts from have a say in it. If they are gone, it is known from the
    run in the folder, which has started.
    """
    weights = saved = None
    try:
        weights = initial_weights.load(config, dataset)
    except UserError:
        saved = folder and saved_preprocess(config, folder)
        if not saved:
            raise
    return at_eval_size(config, saved or experiment_lib.make_preprocess(
        config, dataset, weights and weights.preprocess))
