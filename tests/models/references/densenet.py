"""A small DenseNet of torchvision."""

import functools

from torchvision.models import DenseNet

# Its last norm is named norm5 whatever the number of blocks.
MODELS = {"densenet": functools.partial(DenseNet, growth_rate=12, block_config=(2, 3),
                                        num_init_features=20)}
