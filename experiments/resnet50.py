"""ResNet-50 (arXiv 1512.03385) in its v1.5 form: the stride stands on the 3x3 convolution.

    python launch.py --config=experiments/resnet50.py
    python launch.py --config=experiments/resnet50.py:imagenet

Measured on 2 CPU cores (shared virtual machine), float32, top-1 on the test split:

- digits: 98.06 % (one seed) in 4 minutes, 2.1 GB of memory at most.
- fashion_mnist, cifar10: not run.
- imagenet: not run; it wants accelerators. Published for this recipe: 76.3 to 77.1 % on 8 GPUs (the
  Flax ImageNet example; NVIDIA DeepLearningExamples).
"""

from cnnjax import config as config_lib


def digits(config):
    """UCI handwritten digits, 8x8 enlarged to 32x32 and shifted by up to 4 pixels."""
    config.data.image_size = 32
    config.train.batch_size = 64
    config.train.epochs = 20.0
    config.augment.pad_crop = 4
    config.optimizer.weight_decay = 5e-4
    # So few images want blocks that start as their shortcuts, and a low rate: otherwise the first
    # epochs are lost (92.5 % after 20 of them, against 97 % and more).
    config.model.zero_init_residual = True
    config.schedule.lr = 0.02
    config.schedule.warmup_percent = 10.0
    config.eval.every_epochs = 2.0
    config.log.every_percent = 5.0


def fashion_mnist(config):
    """Fashion-MNIST, enlarged from 28x28, with flips."""
    digits(config)
    config.data.name = "fashion_mnist"
    config.augment.flip = True


def cifar10(config):
    """CIFAR-10 as it is, with flips and shifts."""
    fashion_mnist(config)
    config.data.name = "cifar10"


def imagenet(config):
    """The 90-epoch recipe of arXiv 1706.02677 with a cosine; the rate scales with the batch."""
    config.data.name = "imagenet2012"
    config.data.image_size = 224
    config.train.batch_size = 1024
    config.train.epochs = 90.0
    config.augment.flip = True
    config.augment.random_resized_crop = (0.08, 1.0)
    config.optimizer.weight_decay = 1e-4
    config.schedule.lr = 0.1
    config.schedule.lr_batch_size = 256
    config.schedule.warmup_epochs = 5.0


PRESETS = {"digits": digits, "fashion_mnist": fashion_mnist, "cifar10": cifar10,
           "imagenet": imagenet}


def get_config(preset=None):
    """Returns the config of a preset, the embedded digits by default."""
    config = config_lib.default()
    config.model.name = "resnet50"
    config.optimizer.nesterov = True
    return config_lib.apply_preset(config, preset, PRESETS)
