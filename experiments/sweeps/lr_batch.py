"""Rate and batch size together: the best rate grows with the batch (arXiv 1706.02677, section 2).

    python launch.py --config=experiments/sweeps/lr_batch.py --job=sweep
    python launch.py --config=experiments/sweeps/lr_batch.py:fashion_mnist --job=sweep

The linear scaling rule (Goyal et al., Accurate, large minibatch SGD) says: a batch k times as large
wants a rate k times as large. In a grid of powers of four of both, accuracy then has a ridge along
the diagonal, until the largest batches, whose few steps no rate makes up for. Published by them for
ResNet-50 on ImageNet: 0.1 for 256 images, and no loss up to 8,192 images.

The small CNN, SGD with momentum 0.9, the same number of epochs for all, no warm-up.

- digits, fashion_mnist: not run. They are for 2 CPU cores with two trials at a time: about 10
  minutes with three seeds, estimated from a few runs; most of it is the start of 72 processes.
"""

from cnnjax import config as config_lib
from cnnjax.sweeps import Trial

RATES = (0.001, 0.004, 0.016, 0.064, 0.256, 1.024)
BATCHES = (8, 32, 128, 512)


def digits(config):
    """UCI handwritten digits, 8x8 enlarged to 16x16."""
    config.data.image_size = 16
    config.train.epochs = 5.0


def fashion_mnist(config):
    """6,400 images of Fashion-MNIST at 16 px."""
    config.data.name = "fashion_mnist"
    config.data.train_split = "train[:6400]"
    config.data.eval_split = "test[:2000]"
    config.data.image_size = 16
    config.train.epochs = 3.0


PRESETS = {"digits": digits, "fashion_mnist": fashion_mnist}


def get_config(preset=None):
    """Returns the config that all trials share."""
    config = config_lib.default()
    config.model.name = "simple_cnn"
    config.model.widths = (8, 16, 32)
    config.eval.batch_size = 500
    config.log.every_percent = 10.0
    config.log.plot = False
    return config_lib.apply_preset(config, preset, PRESETS)


def sweep(preset=None):
    """Yields every pair of a rate and a batch size."""
    for batch in BATCHES:
        for lr in RATES:
            yield Trial(f"batch_{batch}_lr_{lr}", {"train.batch_size": batch, "schedule.lr": lr},
                        {"lr": lr, "batch": batch})
