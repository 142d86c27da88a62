"""EfficientNet's experiment (arXiv 1905.11946): is it better to scale all dimensions together?

    python launch.py --config=experiments/sweeps/efficientnet_scaling.py --job=sweep
    python launch.py --config=experiments/sweeps/efficientnet_scaling.py:fashion_mnist --job=sweep \
        --config.seeds=3
    python launch.py --config=experiments/sweeps/efficientnet_scaling.py:search --job=sweep
    python launch.py --config=experiments/sweeps/efficientnet_scaling.py:imagenet --job=sweep

A base network is made deeper, or wider, or given larger images, or all three by the compound rule,
each until it costs the same: the multipliers are solved for so that the multiply-adds that are
counted, not predicted, are 2 and 4 times the base's, as nearly as whole blocks, channels in eights
and pixels allow. The tags of a trial say how nearly. (`cnnjax.analysis.scaling`, docs/scaling.md)

- With no preset: digits at 8 px, 400 of them, 4 times the cost. 5 trials.
- fashion_mnist: 6,000 images at 14 px, 2 and 4 times the cost. 9 trials. Images are 28 px, so
  that a resolution of 2 is information, not enlargement.
- search: the paper's search on that same base. First every (alpha, beta, gamma) of the grid with
  alpha · beta² · gamma² within 0.1 of 2, at phi = 1, which are 31 networks after rounding; then the
  four families, with the constants of the most accurate one.
- imagenet: Table 7 of the paper at full size, EfficientNet-B0 and its four scaled networks, with
  the paper's recipe.

The small presets are for 2 CPU cores, with two trials at a time. Measured there (shared virtual
machine, float32), one seed where none are named:

- no preset: base 92.78, depth 88.06, width 92.22, resolution 91.67, compound 90.83 % of 360, in
  91 s of CPU time. No dimension helps: 8 px are all there is, and 100 steps train no deep net.
- fashion_mnist, three seeds: base 84.57 % of 10,000; at 2 times the cost depth 84.21, width 84.52,
  resolution 83.68, compound 84.61; at 4 times 80.74, 85.05, 82.94, 84.67. The paper's effect does
  not appear at this size: docs/experiments.md. A trial takes about 25 to 65 s on one core.
- search: of 31 candidates the paper's (1.2, 1.1, 1.15) is the best of those at twice the cost, with
  85.16 %; the families then have 85.16 (compound), 84.41 (width), 83.80 (depth) and 83.50
  (resolution), one seed (docs/scaling.md).
- imagenet: not run; it wants accelerators. Published (Table 7): 77.3, 79.0, 78.9, 79.1 and 81.1 %.

They scale a residual net of 14 layers, not EfficientNet, which halves the map five times and has
nothing left of 14 px.
"""

import runpy
from pathlib import Path

from cnnjax import config as config_lib
from cnnjax.analysis.scaling import PAPER, UNSCALED, BaseNetwork, candidates, equal_cost, scale
from cnnjax.jobs import summarize
from cnnjax.models import Scaling
from cnnjax.sweeps import Trial
from cnnjax.types import UserError

# Fourteen layers. Wider stages would leave more choices of width to rounding, and take longer.
_NET = dict(stage_sizes=(2, 2, 2), widths=(16, 24, 40))
# Multipliers of B0 with about 1.8 billion multiply-adds, as published. Counted, they are 1.58,
# 1.45, 1.54 and 1.80 billion: the paper's compound network is a little the largest.
TABLE_7 = {"depth": Scaling(4.0, 1.0, 1.0), "width": Scaling(1.0, 2.0, 1.0),
           "resolution": Scaling(1.0, 1.0, 2.0), "compound": Scaling(1.4, 1.2, 1.3)}
# Top-1 in percent, of B0 and of those.
PUBLISHED = {"base": 77.3, "depth": 79.0, "width": 78.9, "resolution": 79.1, "compound": 81.1}


def digits(config):
    """400 of the UCI handwritten digits at their 8 px, and few epochs, so that there are errors."""
    _residual(config, pixels=8)
    config.data.train_split = "train[:400]"
    config.train.epochs = 8.0
    config.train.batch_size = 32


def fashion_mnist(config):
    """6,000 images of Fashion-MNIST at half their size, and all of its 10,000 test images."""
    _residual(config, pixels=14)
    config.data.name = "fashion_mnist"
    config.data.train_split = "train[:6000]"
    config.train.epochs = 4.0
    config.augment.flip = True


def search(config):
    """The base and the data of fashion_mnist, whose composition `sweep` searches for."""
    fashion_mnist(config)


def imagenet(config):
    """The recipe of experiments/efficientnet.py:imagenet; Table 7 leaves dropout at B0's."""
    recipe = runpy.run_path(str(Path(__file__).parents[1] / "efficientnet.py"))
    config.model.name = f"{recipe['NAME']}0"
    recipe["imagenet"](config)


PRESETS = {"digits": digits, "fashion_mnist": fashion_mnist, "search": search,
           "imagenet": imagenet}


def _residual(config, pixels):
    config.model.name = "resnet20_cifar"
    config.model.update(_NET)
    config.data.image_size = pixels
    config.train.batch_size = 64
    config.optimizer.weight_decay = 1e-4
    config.schedule.lr = 0.1
    config.schedule.warmup_percent = 10.0
    config.eval.every_percent = 100.0
    config.eval.every_epochs = None
    config.log.every_percent = 5.0


def get_config(preset=None):
    """Returns the config of the base network, on the embedded digits by default."""
    return config_lib.apply_preset(config_lib.default(), preset, PRESETS)


def sweep(preset=None, config=None):
    """Yields the base and the families; as a search, the grid first and then the families.

    The base is that of the config, so that networks cost the same whatever the command line says.
    """
    preset = preset or "digits"
    base = base_network(preset, config)
    if preset == "imagenet":
        yield from _table_7(base, PUBLISHED if base == base_network(preset) else {})
        return
    bases = PAPER
    if preset == "search":
        grid = list(_grid(base))
        results = yield grid
        bases = best(results)
    yield _trial("base", base, scale(base, UNSCALED, "base"), 1.0)
    for factor in (4.0,) if preset == "digits" else (2.0, 4.0):
        for network in equal_cost(base, factor, bases=bases):
            yield _trial(f"{network.family}_{factor:g}x", base, network, factor, {} if (
                network.phi is None) else _constants(bases))


def base_network(preset=None, config=None):
    """Returns the network that a preset scales: its own, or that of another config.

    Other data, and images that keep their size, are opened to see what there is.
    """
    own = get_config(preset)
    config = own if config is None else config
    if not config.data.image_size or any(
            config.data[key] != own.data[key] for key in ("name", "mean", "std")):
        return summarize.base_network(config)
    channels, classes = (3, 1000) if preset == "imagenet" else (1, 10)
    return BaseNetwork(config.model.name, config.data.image_size, channels, classes,
                       config_lib.model_overrides(config))


def best(results):
    """Returns (alpha, beta, gamma) of the candidate with the highest mean accuracy over its seeds.

    Among those whose real cost is within 10 % of twice the base's: of a net this small, rounding
    makes some half as costly again, and they would win by that. Of equals the first in the grid's
    order, so that a resumed search chooses as before.
    """
    accuracies = {}
    for result in results:
        if result.done and abs(result.trial.tags["real_factor"] / 2 - 1) <= 0.1:
            accuracies.setdefault(result.trial.name, []).append(result.summary["top1"])
    if not accuracies:
        raise UserError("No candidate of the search has trained to its end, so there are no "
                        "constants to compare the families with.")
    name = max(accuracies, key=lambda name: sum(accuracies[name]) / len(accuracies[name]))
    tags = next(result.trial.tags for result in results if result.trial.name == name)
    return Scaling(tags["alpha"], tags["beta"], tags["gamma"])


def _grid(base):
    """Yields a trial for each network that the grid leaves after rounding.

    Of the points that give one network, the paper's own stands for it, or else the nearest to 2.
    """
    shared = {}
    for network in candidates(base):
        shared.setdefault(base.sizes(network.scaling), []).append(network)
    for networks in shared.values():
        network = min(networks, key=lambda n: (n.scaling != PAPER, abs(n.constraint_error)))
        alpha, beta, gamma = network.scaling
        yield _trial(f"a{alpha:g}_b{beta:g}_g{gamma:g}", base, network, 2.0, {
            **_constants(network.scaling), "constraint_error": round(network.constraint_error, 4),
            "candidates": len(networks)})


def _constants(bases):
    """Returns the tags of what phi is the power of."""
    return dict(zip(("alpha", "beta", "gamma"), bases, strict=True))


def _table_7(base, published):
    for family, multipliers in {"base": UNSCALED, **TABLE_7}.items():
        # The table compares networks that are meant to cost 4 times B0.
        trial = _trial(family, base, scale(base, multipliers, family),
                       1.0 if family == "base" else 4.0,
                       {"published_top1": published[family]} if published else {})
        pixels = trial.overrides["data.image_size"]
        # 32 pixels around the crop at any size, as in experiments/efficientnet.py.
        trial.overrides["data.crop"] = pixels / (pixels + 32)
        yield trial


def _trial(name, base, network, factor, more=None):
    """Returns the trial of a network that is to cost `factor` times the base."""
    depth, width, resolution = (round(value, 4) for value in network.scaling)
    return Trial(name, base.overrides(network.scaling), {
        "family": network.family, "cost_factor": factor,
        "real_factor": round(network.macs / base.count()[1], 3),
        "phi": "" if network.phi is None else network.phi, "depth": depth, "width": width,
        "resolution": resolution, "params": network.params, "multiply_adds": network.macs,
        "predicted_multiply_adds": round(network.predicted), **(more or {})})
