"""Do the faster convolutions train as well? Three ways to compute them, with the same seeds.

    python launch.py --config=experiments/sweeps/ops.py --job=sweep --config.seeds=3
    python launch.py --config=experiments/sweeps/ops.py:short --job=sweep \
        --config.seeds=3 --config.sweep.at_a_time=2
    python -m benchmarks.accuracy_of_ops runs/ops-short

On a CPU `ops=auto` computes convolutions, pools and dense layers by formulations of its own, of
which Winograd's rounds more than XLA's; `ops=xla` has none of them; `precision=bfloat16_products`
also rounds the factors of products in training steps. The trials of a seed have the same first
parameters, order of examples and augmentation, so that rounding alone tells them apart; it is
enough to make other networks of them within some hundred steps. The question is whether these are
as accurate. Winograd is taken for 3x3 convolutions of many channels, which the small CNN has and
LeNet-5 has not.

- digits: LeNet-5 and the small CNN on the embedded digits. 6 trials.
- short: LeNet-5 on 20,000 images of MNIST, and the small CNN on 20,000 of Fashion-MNIST, 4 epochs
  each, evaluated on all 10,000.

Both are for 2 CPU cores with two trials at a time. Measured with three seeds, short: LeNet-5
97.95 % with each (the parameters differ, the accuracies of each seed do not), the small CNN 88.15 %
(auto), 88.03 % (xla) and 88.15 % (products), differences of no more than their spread; six minutes
beside other jobs with AVX-512. digits: not run.
"""

from cnnjax import config as config_lib
from cnnjax.sweeps import Trial

CHOICES = {"auto": {"ops": "auto"}, "xla": {"ops": "xla"},
           "products": {"ops": "auto", "precision": "bfloat16_products"}}
SMALL_CNN = {"model.name": "simple_cnn", "optimizer.weight_decay": 5e-4}


def digits(config):
    """UCI handwritten digits, 8x8 enlarged to 28x28."""
    config.train.epochs = 20.0
    config.train.batch_size = 64
    config.schedule.lr = 0.05


def short(config):
    """20,000 images of MNIST, or of Fashion-MNIST."""
    config.data.name = "mnist"
    config.data.train_split = "train[:20000]"
    config.train.epochs = 4.0
    config.train.batch_size = 128
    config.eval.batch_size = 500
    config.schedule.lr = 0.1


PRESETS = {"digits": digits, "short": short}


def get_config(preset=None):
    """Returns the config of LeNet-5."""
    config = config_lib.default()
    config.model.name = "lenet5"
    config.data.image_size = 28
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 1e-4
    config.schedule.warmup_percent = 5.0
    config.eval.every_epochs = 4.0
    config.log.plot = False
    return config_lib.apply_preset(config, preset, PRESETS)


def sweep(preset=None):
    """Yields both networks with each choice."""
    data = {"data.name": "fashion_mnist"} if preset == "short" else {}
    for net, overrides in (("lenet5", {}), ("simple_cnn", SMALL_CNN | data)):
        for name, choice in CHOICES.items():
            yield Trial(f"{net}_{name}", overrides | choice, {"net": net, "formulations": name})
