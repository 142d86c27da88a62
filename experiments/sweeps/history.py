"""LeNet-5 to EfficientNet on one data set: the table of everybody's lectures, measured.

    python launch.py --config=experiments/sweeps/history.py --job=sweep
    python launch.py --config=experiments/sweeps/history.py:fashion_mnist \
        --job=sweep --config.seeds=3 --config.sweep.at_a_time=2
    python launch.py --config=experiments/sweeps/history.py:imagenet --job=sweep

All nets have the same data, epochs, optimiser and rate, which is nobody's published recipe. On the
digits and on Fashion-MNIST those that were made for ImageNet are twins of a quarter of the width,
so that their costs stay in proportion; the tag `twin` says so. Images are enlarged to 32 px, and to
64 px for AlexNet, which takes none smaller.

- fashion_mnist: with three seeds 16 minutes on 2 CPU cores, two trials at a time. Top-1 in percent:
  LeNet-5 81.0, AlexNet 83.0, VGG-16 82.8, GoogLeNet 84.0, ResNet-50 76.4, MobileNetV2 68.8 and
  EfficientNet-B0 59.3: so few steps leave the newer, deeper nets unfinished (docs/experiments.md).
- digits: with three seeds, two trials at a time, 34 minutes on 2 CPU cores with other jobs beside
  it. Top-1 in percent: LeNet-5 97.4, AlexNet 98.2, VGG-16 98.4, GoogLeNet 99.3, ResNet-50 87.1,
  MobileNetV2 81.3 and EfficientNet-B0 85.3, unfinished likewise.
- imagenet: not run; it wants accelerators. Published of the full nets, each with a recipe of its
  own and with 1,000 classes:

      net               year  parameters   top-1   of
      LeNet-5           1998      60,806   99.05   MNIST, LeCun et al. 1998
      AlexNet           2014  61,100,840   56.52   ImageNet, torchvision's weights, V1
      VGG-16            2014 138,357,544   71.59   ImageNet, torchvision's weights, V1
      GoogLeNet         2014   6,624,904   69.78   ImageNet, torchvision's weights, V1
      ResNet-50         2015  25,557,032   76.13   ImageNet, torchvision's weights, V1
      MobileNetV2       2018   3,504,872   71.88   ImageNet, torchvision's weights, V1
      EfficientNet-B0   2019   5,288,548   77.69   ImageNet, torchvision's weights, V1
"""

from cnnjax import config as config_lib
from cnnjax.sweeps import Trial

# name -> (year, overrides of the twin). What is commonly built as AlexNet is the net of 2014.
NETS = {
    "lenet5": (1998, {}),
    "alexnet": (2014, {"model.widths": (16, 48, 96, 64, 64), "model.hidden": 1024,
                       "data.image_size": 64}),
    "vgg16": (2014, {"model.widths": (16, 32, 64, 128, 128), "model.hidden": 1024}),
    "googlenet": (2014, {"model.width": 0.25}),
    "resnet50": (2015, {"model.widths": (16, 32, 64, 128)}),
    "mobilenet_v2": (2018, {"model.width": 0.25}),
    "efficientnet_b0": (2019, {"model.width": 0.25}),
}
# Parameters, and top-1 in percent with what it is of, as the docstring gives them.
PUBLISHED = {
    "lenet5": (60_806, 99.05, "MNIST"), "alexnet": (61_100_840, 56.52, "ImageNet"),
    "vgg16": (138_357_544, 71.59, "ImageNet"), "googlenet": (6_624_904, 69.78, "ImageNet"),
    "resnet50": (25_557_032, 76.13, "ImageNet"), "mobilenet_v2": (3_504_872, 71.88, "ImageNet"),
    "efficientnet_b0": (5_288_548, 77.69, "ImageNet")}


def digits(config):
    """UCI handwritten digits, 8x8 enlarged to 32x32."""
    config.data.image_size = 32
    config.train.epochs = 20.0
    config.eval.every_epochs = 4.0


def fashion_mnist(config):
    """10,000 images of Fashion-MNIST for training and 2,000 for the test, at 32 px."""
    config.data.name = "fashion_mnist"
    config.data.train_split = "train[:10000]"
    config.data.eval_split = "test[:2000]"
    config.data.image_size = 32
    config.train.epochs = 4.0


def imagenet(config):
    """ImageNet at 224 px and full width; LeNet-5 gets 32 px."""
    config.data.name = "imagenet2012"
    config.data.image_size = 224
    config.train.batch_size = 1024
    config.train.epochs = 90.0
    config.augment.flip = True
    config.augment.random_resized_crop = (0.08, 1.0)


PRESETS = {"digits": digits, "fashion_mnist": fashion_mnist, "imagenet": imagenet}


def get_config(preset=None):
    """Returns the config that all nets share, of LeNet-5."""
    config = config_lib.default()
    config.model.name = "lenet5"
    # A rate that suits nets with and without batch norm.
    config.optimizer.name = "adamw"
    config.optimizer.weight_decay = 0.01
    config.schedule.lr = 1e-3
    config.schedule.warmup_percent = 10.0
    return config_lib.apply_preset(config, preset, PRESETS)


def sweep(preset=None):
    """Yields the nets in the order of their years."""
    for name, (year, twin) in NETS.items():
        full = preset == "imagenet" or not twin
        overrides = twin
        if preset == "imagenet":
            overrides = {"data.image_size": 32} if name == "lenet5" else {}
        params, top1, data = PUBLISHED[name]
        yield Trial(name, {"model.name": name, **overrides}, {
            "year": year, "twin": "full width" if full else "width 1/4",
            "published_params": params, "published_top1": top1, "published_on": data})
