"""Inception-v3 of torchvision without auxiliary head, and with one block of each kind."""

import functools

from torch import nn
from torchvision.models.inception import Inception3, InceptionC


def small(num_classes, aux_logits=False):
    model = Inception3(num_classes, aux_logits, init_weights=False)
    model.Mixed_5c = model.Mixed_5d = model.Mixed_6c = model.Mixed_6d = model.Mixed_6e = \
        model.Mixed_7c = nn.Identity()
    model.Mixed_6a.branch3x3.conv = nn.Conv2d(256, 384, 3, 2, bias=False)
    model.Mixed_6a.branch3x3dbl_1.conv = nn.Conv2d(256, 64, 1, bias=False)
    model.Mixed_6b = InceptionC(256 + 96 + 384, 128)
    return model


MODELS = {"without_auxiliary_head": functools.partial(Inception3, aux_logits=False,
                                                      init_weights=False),
          "small": small,
          "small_with_auxiliary_head": functools.partial(small, aux_logits=True)}
