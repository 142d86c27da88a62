"""Degradation: deeper plain nets train worse, residual ones don't (arXiv 1512.03385, Figure 6).

    python launch.py --config=experiments/sweeps/degradation.py --job=sweep
    python launch.py --config=experiments/sweeps/degradation.py:fashion_mnist \
        --job=sweep --config.seeds=3 --config.sweep.at_a_time=2
    python launch.py --config=experiments/sweeps/degradation.py:mnist \
        --job=sweep --config.seeds=3 --config.sweep.at_a_time=2
    python launch.py --config=experiments/sweeps/degradation.py:cifar10 --job=sweep

Plain and residual nets of 20, 32, 44 and 56 layers, all with the same data, rate, batch norm and
number of steps. What degrades is the error on the training images. Weight decay is the paper's
1e-4, and the small presets do not augment.

Measured on 2 CPU cores, two trials at a time, three seeds; 16 px, half of the paper's channels,
6,400 training and 2,000 test images, 1,000 steps; the mean of top-1 on the test images:

- fashion_mnist: residual nets 86.7, 86.6, 86.0 and 85.1 % for 20, 32, 44 and 56 layers; plain nets
  84.3, 79.7, 74.1 and 51.2 %, and on the training images 87.0, 80.8, 73.5 and 50.1 %. The trials
  took 136 minutes in all beside much else, so the time says little. Figures: docs/experiments.md.
- digits, mnist: not run.
- cifar10: not run. Published (Table 6 and Figure 6 of the paper): residual nets 91.25, 92.49, 92.83
  and 93.03 % for 20, 32, 44 and 56 layers; plain nets of 20 and 56 layers about 91 and 87 %.
"""

from cnnjax import config as config_lib
from cnnjax.sweeps import Trial

DEPTHS = (20, 32, 44, 56)
FAMILIES = {"plain": "plain", "residual": "resnet"}


def digits(config):
    """UCI handwritten digits, 8x8 enlarged to 16x16."""
    _small(config)
    config.train.epochs = 30.0


def fashion_mnist(config):
    """6,400 images of Fashion-MNIST at 16 px, 1,000 steps."""
    mnist(config)
    config.data.name = "fashion_mnist"


def mnist(config):
    """6,400 images of MNIST at 16 px, 1,000 steps."""
    _small(config)
    config.data.name = "mnist"
    config.data.train_split = "train[:6400]"
    config.data.eval_split = "test[:2000]"
    config.train.epochs = 10.0


def cifar10(config):
    """The paper's: 64,000 steps of 128, the rate divided by 10 at 32,000 and 48,000."""
    config.data.name = "cifar10"
    config.train.steps = 64_000
    config.train.batch_size = 128
    config.augment.flip = True
    config.augment.pad_crop = 4


def _small(config):
    config.data.image_size = 16
    config.model.widths = (8, 16, 32)
    config.train.batch_size = 64


PRESETS = {"digits": digits, "fashion_mnist": fashion_mnist, "mnist": mnist, "cifar10": cifar10}


def get_config(preset=None):
    """Returns the config that all nets share, of a residual one of 20 layers."""
    config = config_lib.default()
    config.model.name = "resnet20_cifar"
    config.optimizer.weight_decay = 1e-4
    config.schedule.name = "step"
    config.schedule.lr = 0.1
    config.schedule.drop_percent = (50.0, 75.0)
    return config_lib.apply_preset(config, preset, PRESETS)


def sweep(preset=None):
    """Yields the plain and the residual net of each depth; they differ in nothing else."""
    for depth in DEPTHS:
        for family, name in FAMILIES.items():
            yield Trial(f"{family}_{depth}", {"model.name": f"{name}{depth}_cifar"},
                        {"family": family, "depth": depth})
