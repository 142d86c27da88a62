"""ResNet-50 (arXiv 1512.03385) in its v1.5 form: the stride stands on the 3x3 convolution.

    python launch.py --config=experiments/resnet50.py
    python launch.py --config=experiments/resnet50.py:imagenet
    python launch.py --config=experiments/resnet50.py:a3

Measured on 2 CPU cores (shared virtual machine), float32, top-1 on the test split:

- digits: 98.33 % (one seed) in 1:08 on 2 cores with AVX-512; earlier 97.78 %, without it in 3:10.
- fashion_mnist, cifar10: not run.
- imagenet: not run; it wants accelerators. Published: 76.3 to 76.7 % with 100 epochs of this recipe
  (the Flax ImageNet example, batches of 512 and 2048 on 8 GPUs; here 90 epochs).
- a1, a2, a3: not run. Published: 80.4, 79.8 and 78.1 % (arXiv 2110.00476, table 2), in 110, 55 and
  15 hours on 4 V100. What differs here: shears and rotations are bilinear, not bicubic.
- tv2: not run. Published: 80.86 % (torchvision's ResNet50_Weights.IMAGENET1K_V2), on 8 GPUs. What
  differs here: the averages are updated at every step, and weigh no initial values.
- ffcv16: not run. Published: 73.8 % in 14.9 minutes on 8 A100 (github.com/libffcv/ffcv-imagenet,
  rn50_16_epochs). What differs here: no BlurPool before strided convolutions, the images are those
  of the data set and not of a file of at most 500 pixels, and an evaluation averages probabilities
  over both mirror images, not logits.
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
    """CIFAR-10 as it is, by the net with a 3x3 stem and no pooling behind it.

    The recipe is our own: batch, rate, weight decay and number of epochs of wide ResNets (arXiv
    1605.07146, section 3) with a cosine.
    """
    config.data.name = "cifar10"
    config.model.stem = "cifar"  # ImageNet's leaves 8x8 of 32x32, and the last stage then 1x1.
    config.model.zero_init_residual = True
    config.train.batch_size = 128
    config.train.epochs = 200.0
    config.augment.flip = True
    config.augment.pad_crop = 4
    config.optimizer.weight_decay = 5e-4
    config.schedule.lr = 0.1
    config.schedule.warmup_epochs = 5.0


def imagenet(config):
    """The 90-epoch recipe of arXiv 1706.02677 with a cosine; the rate scales with the batch."""
    config.data.name = "imagenet2012"
    config.data.image_size = 224
    config.model.zero_init_residual = True
    config.train.batch_size = 1024
    config.train.epochs = 90.0
    config.augment.flip = True
    config.augment.random_resized_crop = (0.08, 1.0)
    config.optimizer.weight_decay = 1e-4
    config.schedule.lr = 0.1
    config.schedule.lr_batch_size = 256
    config.schedule.warmup_epochs = 5.0


def a2(config):
    """Procedure A2 of ResNet strikes back (arXiv 2110.00476, table 2): 300 epochs."""
    config.data.name = "imagenet2012"
    config.data.image_size = 224
    config.data.crop = 224 / 235  # 0.95, as timm rounds it.
    config.data.interpolation = "bicubic"
    config.model.drop_path_rate = 0.05
    config.model.zero_init_residual = True
    config.train.batch_size = 2048
    config.train.epochs = 300.0
    config.train.loss = "sigmoid"
    config.train.target_threshold = 0.2
    config.augment.flip = True
    config.augment.random_resized_crop = (0.08, 1.0)
    config.augment.policy = "rand_augment_increasing"
    config.augment.magnitude = 7
    config.augment.resample = "bilinear"
    config.augment.fill = "mean"
    config.augment.mixup = 0.1
    config.augment.cutmix = 1.0
    config.augment.repeats = 3
    config.optimizer.name = "lamb"
    config.optimizer.eps = 1e-6
    config.optimizer.weight_decay = 0.02
    config.optimizer.clip_norm = 1.0  # Part of timm's LAMB; the paper's table names no clipping.
    config.schedule.lr = 5e-3
    config.schedule.warmup_epochs = 5.0


def a1(config):
    """Procedure A1: 600 epochs, with more regularisation."""
    a2(config)
    config.train.epochs = 600.0
    config.train.label_smoothing = 0.1
    config.augment.mixup = 0.2
    config.optimizer.weight_decay = 0.01


def a3(config):
    """Procedure A3: 100 epochs at 160 pixels, evaluated at 224."""
    a2(config)
    config.data.image_size = 160
    config.eval.image_size = 224
    config.model.drop_path_rate = 0.0
    config.train.epochs = 100.0
    config.augment.magnitude = 6
    config.augment.repeats = 1
    config.schedule.lr = 8e-3


def tv2(config):
    """The recipe of torchvision's second weights (pytorch.org/blog, 2021): 600 epochs at 176."""
    config.data.name = "imagenet2012"
    config.data.image_size = 176
    config.eval.image_size = 224
    config.data.crop = 224 / 232
    config.train.batch_size = 1024
    config.train.epochs = 600.0
    config.train.label_smoothing = 0.1
    # torchvision scales 1 - 0.99998 with the batch over the epochs, for a step of ours.
    config.train.ema_decay = 1 - 2e-5 * 1024 / 600
    config.train.ema_batch_size = 1024
    config.augment.flip = True
    config.augment.random_resized_crop = (0.08, 1.0)
    config.augment.policy = "trivial_augment_wide"
    config.augment.resample = "bilinear"
    config.augment.erase = 0.1
    config.augment.mixup = 0.2
    config.augment.cutmix = 1.0
    config.augment.repeats = 4
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 2e-5
    config.optimizer.decay = (r".*kernel", r".*head/bias")  # All but the norms.
    config.schedule.lr = 0.5
    config.schedule.warmup_epochs = 5.0


def ffcv16(config):
    """ffcv's 16 epochs: 160 pixels, from three quarters of the run on 192, evaluated at 256."""
    config.data.name = "imagenet2012"
    config.data.image_size = 192
    config.eval.image_size = 256
    config.eval.tta = "flip"
    config.train.progressive = ((0.0, 160), (75.0, 192))
    config.train.batch_size = 4096  # 512 on each of 8 GPUs.
    config.train.epochs = 16.0
    config.train.label_smoothing = 0.1
    config.augment.flip = True
    config.augment.random_resized_crop = (0.08, 1.0)
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 1e-4
    config.optimizer.decay = (r".*kernel", r".*head/bias")  # All but the norms.
    config.schedule.name = "linear"
    config.schedule.lr = 1.7
    config.schedule.lr_batch_size = 4096
    config.schedule.warmup_epochs = 2.0


PRESETS = {"digits": digits, "fashion_mnist": fashion_mnist, "cifar10": cifar10,
           "imagenet": imagenet, "a1": a1, "a2": a2, "a3": a3, "tv2": tv2, "ffcv16": ffcv16}


def get_config(preset=None):
    """Returns the config of a preset, the embedded digits by default."""
    config = config_lib.default()
    config.model.name = "resnet50"
    config.optimizer.nesterov = True
    return config_lib.apply_preset(config, preset, PRESETS)
