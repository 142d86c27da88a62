"""The CIFAR ResNets of arXiv 1512.03385, section 4.2, and their plain twins without shortcuts.

    python launch.py --config=experiments/resnet_cifar.py
    python launch.py --config=experiments/resnet_cifar.py:plain_digits
    python launch.py --config=experiments/resnet_cifar.py:cifar10 \
        --config.model.name=resnet56_cifar
    python launch.py --config=experiments/resnet_cifar.py:fashion_mnist
    python launch.py --config=experiments/resnet_cifar.py:fashion_mnist_wide

Measured on 2 CPU cores (shared virtual machine), float32, top-1 on the test split:

- digits: 98.89 % of 360 (one seed) in 21 s; earlier, without AVX-512, 100.00 % in 81 s.
- plain_digits: 98.89 % (one seed) in 21 s; there 99.17 % in 69 s. At this size shortcuts make no
  difference to speak of.
- fashion_mnist (308,074 parameters): 93.82 % (one seed) in 28 s on an H200 with other jobs beside
  it, in bfloat16. On 2 CPU cores a step takes 0.37 s, 12 epochs would take 36 minutes: not run.
- fashion_mnist_wide (11.1 M parameters): 96.00 % in 169 s and, with --config.seed=1, 96.29 % in
  126 s on an H100, in bfloat16, from uint8 on the device; with --config.train.epochs=100 96.24 %
  (seed 0) in 170 s; 40 epochs at 28 pixels throughout 95.86 % (one seed) in 63 s on an H200.
  Published: 96.3 % with WRN-28-10 and random erasing (arXiv 1708.04896).
- cifar10, plain_cifar10: not run. Published (Table 6 of the paper): 91.25, 92.49, 92.83, 93.03 and
  93.57 % for 20, 32, 44, 56 and 110 layers; plain nets of 20 and 56 layers about 91 and 87 %
  (Fig. 6). The paper trained 110 layers at 0.01 for the first 400 steps or so (section 4.2). The
  preset has no warm-up: add --config.schedule.warmup_steps=400, which rises linearly instead.
"""

from cnnjax import config as config_lib


def digits(config):
    """UCI handwritten digits, 8x8 enlarged to 16x16."""
    config.data.image_size = 16
    config.train.epochs = 15.0
    config.train.batch_size = 64
    config.schedule.warmup_percent = 10.0


def plain_digits(config):
    """The same without shortcuts."""
    digits(config)
    config.model.name = "plain20_cifar"


def cifar10(config):
    """The paper's recipe: 64,000 steps of 128, the rate divided by 10 at 32,000 and 48,000."""
    config.data.name = "cifar10"
    config.train.steps = 64_000
    config.train.batch_size = 128
    config.augment.flip = True
    config.augment.pad_crop = 4
    config.schedule.name = "step"
    config.schedule.drop_steps = (32_000, 48_000)


def plain_cifar10(config):
    """The same without shortcuts."""
    cifar10(config)
    config.model.name = "plain20_cifar"


def fashion_mnist(config):
    """Fashion-MNIST by a shallow, wide net: 12 epochs of flips, with averaged parameters."""
    config.data.name = "fashion_mnist"
    config.model.stage_sizes = (1, 1, 1)
    config.model.widths = (32, 64, 128)
    config.model.shortcut = "projection"
    config.train.epochs = 12.0
    config.train.batch_size = 128
    config.train.ema_decay = 0.998
    config.train.label_smoothing = 0.1
    config.augment.flip = True
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 1e-3
    config.schedule.lr = 0.1
    config.schedule.warmup_percent = 10.0
    config.eval.tta = "flip"


def fashion_mnist_wide(config):
    """Fashion-MNIST by a net of the width of WRN-16-8 (arXiv 1605.07146), for a GPU."""
    fashion_mnist(config)
    config.model.stage_sizes = (2, 2, 2)
    config.model.widths = (128, 256, 512)
    config.train.epochs = 70.0
    config.train.batch_size = 256
    config.train.progressive = ((0, 20), (40, 24), (70, 28))
    config.train.ema_decay = 0.999
    config.augment.pad_crop = 2
    config.augment.erase = 0.5
    config.optimizer.weight_decay = 5e-4
    config.schedule.lr = 0.2


PRESETS = {"digits": digits, "plain_digits": plain_digits, "cifar10": cifar10,
           "plain_cifar10": plain_cifar10, "fashion_mnist": fashion_mnist,
           "fashion_mnist_wide": fashion_mnist_wide}


def get_config(preset=None):
    """Returns the config of a preset, the embedded digits by default."""
    config = config_lib.default()
    config.model.name = "resnet20_cifar"
    config.optimizer.weight_decay = 1e-4
    config.schedule.lr = 0.1
    return config_lib.apply_preset(config, preset, PRESETS)
