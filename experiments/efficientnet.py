"""EfficientNet (arXiv 1905.11946): one network, scaled in depth, width and resolution together.

    python launch.py --config=experiments/efficientnet.py
    python launch.py --config=experiments/efficientnet.py:b1
    python launch.py --config=experiments/efficientnet.py:phi=-1.5
    python launch.py --config=experiments/efficientnet.py:imagenet
    python launch.py --config=experiments/efficientnet.py:imagenet,b4
    python launch.py --config=experiments/efficientnet.py:imagenet,phi=2.5

b0 to b7 are the published networks. phi is any number: B0 with depth, width and resolution
multiplied by 1.2^phi, 1.1^phi and 1.15^phi (`cnnjax.compound_scaling`). Either stands alone, on the
digits, or after a data set and a comma. Dropout comes with them, 0.2 for B0 to 0.5 for B7 as
published, and on the line between for a phi. The networks side by side, with what they cost:

    python launch.py --job=summarize --models=efficientnet_b0 --scaling

The paper's experiments, the search for the three constants and the comparison with networks scaled
in one dimension, are experiments/sweeps/efficientnet_scaling.py.

Measured on 2 CPU cores (shared virtual machine), float32, top-1 on the test split:

- digits: 99.72 % of 360 (one seed) in 12 minutes, with many other jobs beside it.
- digits with b0 to b7 or a phi: not run.
- imagenet: not run; it wants accelerators. Published: 77.1, 79.1, 80.1, 81.6, 82.9, 83.6, 84.0 and
  84.3 % for B0 to B7 (Table 2 of the paper), with this recipe.
"""

import functools

from cnnjax import config as config_lib
from cnnjax import models
from cnnjax.types import UserError

NAME = "tf_efficientnet_b"  # With the padding and the epsilon of the paper's own code.


def digits(config):
    """UCI handwritten digits, 8x8 enlarged to 32x32, and a B0 of half the depth and width."""
    config.data.image_size = 32
    config.train.batch_size = 64
    config.train.epochs = 40.0
    config.augment.pad_crop = 4
    config.model.width = 0.5
    config.model.depth = 0.5
    config.model.drop_path_rate = 0.0
    config.optimizer.name = "adam"
    config.schedule.lr = 4e-3
    config.schedule.warmup_percent = 10.0
    config.eval.every_epochs = 2.0
    config.log.every_percent = 5.0


def imagenet(config):
    """The paper's recipe: section 5.2, and where it is silent its code.

    RMSProp, a rate that falls by 3 % every 2.4 epochs, AutoAugment, stochastic depth, and an
    average of the weights with a decay of 0.9999. The paper chooses the checkpoint by 25,000 images
    that it keeps from training; here the last one counts.
    """
    config.data.name = "imagenet2012"
    config.data.image_size = 224
    config.data.interpolation = "bicubic"
    config.train.batch_size = 4096
    config.train.epochs = 350.0
    config.train.label_smoothing = 0.1
    config.train.ema_decay = 0.9999
    config.train.ema_batch_size = 4096
    config.augment.flip = True
    config.augment.random_resized_crop = (0.08, 1.0)
    config.augment.policy = "auto_augment"
    config.augment.fill = "mean"  # The code fills with grey, 128.
    config.model.bn_momentum = 0.99
    config.model.drop_path_rate = 0.2  # Rises to 15/16 of it in B0's last block, as in their code.
    config.optimizer.name = "rmsprop"
    config.optimizer.b2 = 0.9
    config.optimizer.eps = 1e-3
    config.optimizer.weight_decay = 1e-5
    # All but the norms decay, the biases of the gates and of the head too.
    config.optimizer.decay = (r".*kernel", r".*(reduce|expand|head)/bias")
    config.schedule.name = "exponential"
    config.schedule.lr = 0.256
    config.schedule.lr_batch_size = 4096
    config.schedule.drop_every_epochs = 2.4
    config.schedule.drop_factor = 0.97
    config.schedule.warmup_epochs = 5.0


DATA = {"digits": digits, "imagenet": imagenet}


def _scale(config, depth, width, resolution):
    """Multiplies the sizes that the data set's preset has."""
    config.model.depth = depth * config.model.get("depth", 1.0)
    config.model.width = width * config.model.get("width", 1.0)
    config.data.image_size = max(1, round(resolution * config.data.image_size))
    if config.data.name == "imagenet2012":
        # The paper's code leaves 32 pixels around the crop at any size: 0.875 at 224.
        config.data.crop = config.data.image_size / (config.data.image_size + 32)


def _published(config, i):
    config.model.name = f"{NAME}{i}"
    published = models.model_arguments(config.model.name)
    pixels = models.lookup(config.model.name).input_size[0]
    _scale(config, published["depth"], published["width"], pixels / 224)
    config.model.dropout_rate = published["dropout_rate"]


def _compound(config, phi):
    try:
        phi = float(phi)
    except ValueError:
        raise UserError(f"phi={phi} is no number; write :phi=1.5, for example.") from None
    _scale(config, *models.compound_scaling(phi))
    # "Linearly from 0.2 for EfficientNet-B0 to 0.5 for B7", section 5.2; B7 is about phi = 7.
    config.model.dropout_rate = round(min(max(0.2 + 0.3 * phi / 7, 0.0), 0.5), 4)


PUBLISHED = {f"b{i}": functools.partial(_published, i=i) for i in range(8)}
PRESETS = {**DATA, **PUBLISHED}


def get_config(preset=None):
    """Returns the config of [data set,][b0 to b7 or phi=NUMBER], the embedded digits by default."""
    config = config_lib.default()
    config.model.name = f"{NAME}0"
    data, _, scale = (preset or "digits").partition(",")
    known = PUBLISHED
    if data not in DATA:
        data, scale, known = "digits", preset, PRESETS
    DATA[data](config)
    if scale.startswith("phi="):
        _compound(config, scale.removeprefix("phi="))
    elif scale:
        try:
            config_lib.apply_preset(config, scale, known)
        except UserError as error:
            raise UserError(f"{error} Or a number, :phi=1.5; and either after a data set and a "
                            "comma, :imagenet,b4.") from None
    return config
