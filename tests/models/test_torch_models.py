"""Sizes, multiply-adds and state dicts of torchvision 0.28.0's and timm 1.0.31's models, and ours.

golden/torch_models.json.xz, which make_table.py writes, has them for each model as built there:
parameters, batch-norm statistics, multiply-adds in G (of convolutions and dense layers, one image,
evaluation) at a resolution, and every name and shape of the state dict. Only shapes are computed
here.
"""

import json
import lzma

import golden_cases
import jax
import jax.numpy as jnp
import pytest

from cnnjax import summarize, trees
from cnnjax.models import create_model, list_models, lookup
from cnnjax.weights import namings
from cnnjax.weights.naming import shapes_in_torch

ROWS = json.loads(lzma.decompress((golden_cases.GOLDEN / "torch_models.json.xz").read_bytes()))
# Their names, where ours is another, and what makes ours the same.
OURS = {
    "lenet5": ("lenet5_full", dict(num_classes=10)),
    "cifar_resnet18": ("cifar_resnet18", dict(num_classes=10)),
    "googlenet_aux": ("googlenet", dict(aux_logits=True)),
    "inception_v3_aux": ("inception_v3", dict(aux_logits=True)),
    "timm_mobilenetv2_100": ("mobilenet_v2", {}),
    "timm_mobilenetv3_small_100": ("mobilenet_v3_small", {}),
    "timm_mobilenetv3_large_100": ("mobilenet_v3_large", {}),
}
# One of each kind; the others differ from one of them in depth or width, and take minutes together.
KINDS = ("lenet5", "cifar_resnet18", "alexnet", "vgg11", "vgg16_bn", "googlenet", "inception_v3",
         "resnet18", "resnet50", "resnext50_32x4d", "timm_seresnet50", "timm_resnetv2_50",
         "efficientnet_b0", "timm_tf_efficientnet_b0", "timm_tf_efficientnet_lite0",
         "efficientnet_v2_s", "mobilenet_v2", "mobilenet_v3_small", "densenet121", "convnext_tiny",
         "squeezenet1_0")


def counterpart(name):
    """Our name and arguments for one of theirs."""
    return OURS.get(name, (name.removeprefix("timm_"), {}))


NAMES = {counterpart(name)[0] for name in ROWS} & set(list_models())
CASES = [pytest.param(name, marks=[] if name in KINDS else [pytest.mark.slow]) for name in ROWS
         if counterpart(name)[0] in NAMES]


def source(name):
    if name.startswith("timm_"):
        return "timm"
    return "torch" if name == "lenet5" else "torchvision"


@pytest.mark.parametrize("name", CASES)
def test_parameters_multiply_adds_and_state_dict_are_those_of_torch(name):
    row, (ours, arguments) = ROWS[name], counterpart(name)
    model = create_model(ours, **arguments)
    shape = (1, row["resolution"], row["resolution"], lookup(ours).input_size[2])
    variables = jax.eval_shape(model.init, jax.random.key(0),
                               jax.ShapeDtypeStruct(shape, jnp.float32))
    assert trees.count(variables["params"]) == row["params"]
    assert trees.count(variables.get("batch_stats", {})) == row["bn_stats"]
    found = shapes_in_torch(namings.of(model, source(name)), variables)
    assert found == {key: tuple(shape) for key, shape in row["state_dict"]}
    summary = summarize(model, shape)
    assert summary.params == row["params"]
    assert round(summary.macs / 1e9, 6) == row["gmacs"]
