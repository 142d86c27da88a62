"""Transfer learning: a new head on a pretrained trunk, and then all of it, gently.

    python launch.py --config=experiments/transfer.py
    python launch.py --config=experiments/resnet_cifar.py && \
        python launch.py --config=experiments/transfer.py --config.weights.path=runs/resnet_cifar
"""

from cnnjax import config as config_lib


def digits(config):
    """UCI handwritten digits on random features, unless --config.weights.path names better ones."""
    config.model.name = "resnet20_cifar"
    config.weights.path = "random"
    config.data.image_size = 16
    config.head.epochs = 40.0
    config.head.lr = 1e-2
    config.train.epochs = 8.0
    config.train.batch_size = 64
    config.schedule.lr = 1e-3


PRESETS = {"digits": digits}


def get_config(preset=None):
    """Returns the config of a preset, the embedded digits by default."""
    config = config_lib.default()
    config.head.lr = 1e-3
    config.optimizer.name = "adam"
    config.schedule.warmup_percent = 10.0
    config.eval.every_epochs = None
    config.eval.every_percent = 10.0
    return config_lib.apply_preset(config, preset, PRESETS)
