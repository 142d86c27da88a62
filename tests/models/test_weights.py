"""Weights of every family go out and come back, and what does not fit is said at once."""

import json
import os
import re
import tracemalloc

import golden_values as values
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import cnnjax
from cnnjax.models.table import TABLE
from cnnjax.types import Preprocess, UserError
from cnnjax.weights import imagenet, load, matching, namings, published, sources
from cnnjax.weights.naming import to_torch

# One small model of each family and, as names depend on them, of other blocks, stems and norms.
CASES = {
    "lenet5": {}, "lenet5_full": {},
    "simple_cnn": dict(widths=(4, 8), hidden=(16,)),
    "alexnet": dict(hidden=32), "alexnet_original": dict(hidden=32),
    "vgg11": dict(hidden=32), "vgg11_bn": dict(hidden=32),
    "resnet18": dict(stage_sizes=(1, 1, 1, 1)), "resnet50": dict(stage_sizes=(1, 1, 1, 1)),
    "resnet20_cifar": dict(stage_sizes=(1, 1, 1)), "seresnet50": dict(stage_sizes=(1, 1, 1, 1)),
    "resnetv2_50": dict(stage_sizes=(1, 1, 1, 1)),
    "squeezenet1_1": {},
    "googlenet": dict(stage_sizes=(1, 1, 1)),
    "inception_v3": dict(last_blocks=1, widths_7x7=(128,)),
    "densenet121": dict(stage_sizes=(2, 1, 1, 1)),
    "convnext_tiny": dict(stage_sizes=(1, 1, 1, 1), widths=(8, 16, 24, 32)),
    "mobilenet_v2": dict(width=0.25),
    "mobilenet_v3_small": dict(width=0.25),
    "efficientnet_b0": dict(width=0.25, depth=0.1),
}
# A family that is not there is tested whole.
CASES |= {next(name for name, entry in TABLE.items() if entry.module is cls): {}
          for cls in namings.NAMINGS
          if cls not in {TABLE[name].module for name in CASES}}
TINY = dict(widths=(4, 8))


def state_of(name, size, **arguments):
    """The state dict of a model in the names that it is saved in, filled by name."""
    model = cnnjax.create_model(name, **arguments)
    naming = namings.to_save(name, model)
    like = matching.shapes(model, size[:2], size[2])
    leaves = jax.tree.map(lambda a: values.seeded(str(a.shape), a.shape), like)
    return to_torch(naming, leaves), leaves


def tiny(tmp_path, **arguments):
    """(path, tensors, variables) of a small CNN in torch's names."""
    state, variables = state_of("simple_cnn", (16, 16, 3), **{"num_classes": 10, **TINY,
                                                              **arguments})
    path = tmp_path / "tiny.safetensors"
    safetensors.numpy.save_file(state, path)
    return path, state, variables


def assert_equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def size_of(name):
    """A small image for a model."""
    height, width, channels = TABLE[name].input_size
    return (min(height, 96), min(width, 96), channels)


@pytest.mark.parametrize(("name", "arguments"), CASES.items())
def test_saved_weights_come_back_bit_for_bit_and_have_what_a_strict_load_wants(name, arguments,
                                                                               tmp_path):
    size = size_of(name)
    preprocess = Preprocess(size[:2], (0.4,) * size[2], (0.2,) * size[2], 0.9, "bicubic")
    state, variables = state_of(name, size, num_classes=7, **arguments)
    path = tmp_path / "a.safetensors"
    cnnjax.save_weights(path, name, variables, preprocess=preprocess, **arguments)
    # The file brings its own arguments.
    module, found, its = cnnjax.load_weights(name, path)
    assert module == cnnjax.create_model(name, 7, **arguments)
    assert its == preprocess
    assert_equal(found, variables)
    tensors = safetensors.numpy.load_file(path)
    counters = {key for key in tensors if key.endswith("num_batches_tracked")}
    assert {key.rpartition(".")[0] for key in counters} == {
        key.rpartition(".")[0] for key in state if key.endswith("running_mean")}
    assert all(tensors[key].dtype == np.int64 and tensors[key].shape == () for key in counters)
    assert {key: tensors[key].shape for key in tensors.keys() - counters} == {
        key: array.shape for key, array in state.items()}


def test_full_connections_do_not_lose_any_in_the_papers_sparse_lenet(tmp_path):
    _, variables = state_of("lenet5_full", (28, 28, 1), num_classes=10)
    cnnjax.save_weights(tmp_path / "a.safetensors", "lenet5_full", variables)
    tensors = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    safetensors.numpy.save_file(tensors, tmp_path / "a.safetensors")  # Without what it says it is.
    with pytest.raises(UserError, match="these are weights of lenet5_full"):
        cnnjax.load_weights("lenet5", tmp_path / "a.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet", "googlenet_original", "inception_v3"])
def test_auxiliary_heads_are_left_out_with_a_line_unless_the_model_has_them(name, tmp_path, caplog):
    _, variables = state_of(name, TABLE[name].input_size, num_classes=7, aux_logits=True)
    path = tmp_path / "a.safetensors"
    cnnjax.save_weights(path, name, variables, aux_logits=True)
    without = cnnjax.load_weights(name, path, aux_logits=False)
    assert re.search(r"left out \d+ tensors of auxiliary heads; aux_logits=True", caplog.text)
    assert not any(layer.startswith("aux") for layer in without[1]["params"])
    # A new number of classes is one for all heads.
    found = cnnjax.load_weights(name, path, num_classes=3)[1]["params"]
    assert {found[layer]["head"]["bias"].shape for layer in found if layer.startswith("aux")} == {
        (3,)}
    assert found["head"]["bias"].shape == (3,)


@pytest.mark.slow
def test_missing_auxiliary_heads_are_listed(tmp_path):
    _, variables = state_of("googlenet", (224, 224, 3), num_classes=7)
    cnnjax.save_weights(tmp_path / "a.safetensors", "googlenet", variables)
    with pytest.raises(UserError, match="missing: .*aux1"):
        cnnjax.load_weights("googlenet", tmp_path / "a.safetensors", aux_logits=True)


def test_densenets_published_files_have_names_of_their_own(tmp_path):
    small = dict(stage_sizes=(2, 1, 1, 1))
    state, variables = state_of("densenet121", (64, 64, 3), num_classes=7, **small)
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): array
           for key, array in state.items()}
    assert "features.denseblock1.denselayer2.norm.1.weight" in old
    safetensors.numpy.save_file(old, tmp_path / "a.safetensors")
    assert_equal(cnnjax.load_weights("densenet121", tmp_path / "a.safetensors", **small)[1],
                 variables)


def test_the_metadata_say_what_the_file_is(tmp_path):
    _, variables = state_of("simple_cnn", (16, 16, 3), num_classes=3, **TINY)
    preprocess = Preprocess((16, 16), (0.5,) * 3, (0.25,) * 3)
    path = tmp_path / "a.safetensors"
    cnnjax.save_weights(path, "simple_cnn", variables, preprocess=preprocess,
                        class_names=["a", "b", "ç"], **TINY)
    with safetensors.safe_open(path, "np") as file:
        found = file.metadata()
    assert found["model"] == "simple_cnn" and found["format"] == "pt" and found["jax"]
    assert json.loads(found["preprocess"]) == preprocess.to_dict()
    assert load(None, path).class_names == ("a", "b", "ç")
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_what_is_not_the_models_is_not_saved(tmp_path):
    _, variables = state_of("simple_cnn", (16, 16, 3), num_classes=3, **TINY)
    save = cnnjax.save_weights
    with pytest.raises(UserError, match="Did you mean 'simple_cnn'"):
        save(tmp_path / "a.safetensors", "simple_cn", variables)
    with pytest.raises(UserError, match=r"of another shape: [\s\S]*all arguments that"):
        save(tmp_path / "a.safetensors", "simple_cnn", variables)
    with pytest.raises(UserError, match="safetensors"):
        save(tmp_path / "a.pth", "simple_cnn", variables, **TINY)
    with pytest.raises(UserError, match="cannot be written"):
        save(tmp_path / "no" / "a.safetensors", "simple_cnn", variables, **TINY)
    with pytest.raises(UserError, match="takes variables"):
        save(tmp_path / "a.safetensors", "simple_cnn", variables["params"], **TINY)
    assert not list(tmp_path.iterdir())


def test_every_tensor_that_does_not_fit_is_listed_in_one_message(tmp_path):
    path, state, _ = tiny(tmp_path)
    del state["conv2.bias"]
    state |= {"conv9.bias": np.zeros(3, np.float32), "bn1.weight": np.zeros(5, np.float32)}
    safetensors.numpy.save_file(state, path)
    with pytest.raises(UserError) as error:
        cnnjax.load_weights("simple_cnn", path, **TINY)
    said = str(error.value)
    assert "1 missing: conv2.bias" in said and "1 not in the model: conv9.bias" in said
    assert "bn1.weight is (5,), here (4,)" in said and str(path) in said


def test_a_long_list_of_differences_ends_in_a_count(tmp_path):
    path, _, _ = tiny(tmp_path)
    with pytest.raises(UserError, match="resnet20_cifar") as error:
        cnnjax.load_weights("resnet20_cifar", path)
    assert re.search(r"\d\d missing: .*, and \d\d more", str(error.value))
    assert len(str(error.value)) < 3_000


def test_classes_of_the_file_are_taken_or_replaced_by_a_head_from_key_0(tmp_path):
    path, _, variables = tiny(tmp_path, num_classes=7)
    assert cnnjax.load_weights("simple_cnn", path, **TINY)[0].num_classes == 7
    module, found, _ = cnnjax.load_weights("simple_cnn", path, num_classes=3, **TINY)
    fresh = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert module.num_classes == 3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
                 found["params"].pop("head"), fresh["params"]["head"])
    variables["params"].pop("head")
    assert_equal(found, variables)
    module, found, _ = cnnjax.load_weights("simple_cnn", path, num_classes=0, **TINY)
    assert module.num_classes == 0
    assert_equal(found, variables)


def test_rgb_weights_on_grey_images_give_what_they_gave_on_equal_channels(tmp_path):
    path, _, variables = tiny(tmp_path)
    module, found, preprocess = cnnjax.load_weights("simple_cnn", path, in_chans=1, **TINY)
    grey = values.images((16, 16, 1))
    expected = module.apply(variables, np.repeat(grey, 3, -1))
    np.testing.assert_allclose(module.apply(found, grey), expected, rtol=1e-4, atol=1e-5)
    assert preprocess.channels == 1


def test_rgb_weights_on_more_channels_are_repeated_and_scaled_as_in_timm(tmp_path):
    path, state, _ = tiny(tmp_path)
    _, found, preprocess = cnnjax.load_weights("simple_cnn", path, in_chans=5, **TINY)
    kernel = state["conv1.weight"].transpose(2, 3, 1, 0)
    expected = np.concatenate([kernel, kernel[:, :, :2]], 2) * np.float32(3 / 5)
    np.testing.assert_array_equal(found["params"]["conv1"]["kernel"], expected)
    assert preprocess.channels == 5


def test_weights_of_grey_images_load_without_being_told(tmp_path):
    state, variables = state_of("simple_cnn", (16, 16, 1), num_classes=10, **TINY)
    safetensors.numpy.save_file(state, tmp_path / "grey.safetensors")
    _, found, preprocess = cnnjax.load_weights("simple_cnn", tmp_path / "grey.safetensors", **TINY)
    assert preprocess.channels == 1
    assert_equal(found, variables)


@pytest.mark.parametrize(("name", "size", "arguments"), [
    ("simple_cnn", 16, dict(widths=(8, 512, 512))), ("alexnet", 224, dict(hidden=256))])
def test_loading_takes_no_more_memory_than_the_weights_themselves(
        tmp_path, name, size, arguments):
    state, variables = state_of(name, (size, size, 3), num_classes=10, **arguments)
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(state, path)
    cnnjax.load_weights(name, path, **arguments)  # Imports, and traces.
    tracemalloc.start()  # It sees NumPy's memory, and not the devices'.
    _, found, _ = cnnjax.load_weights(name, path, **arguments)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 4
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert_equal(found, variables)  # No array shares the pages of the file.


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_parameters_are_float32_whatever_the_file_has(dtype, tmp_path):
    path, state, _ = tiny(tmp_path)
    low = {key: array.astype(dtype) for key, array in state.items()}
    safetensors.numpy.save_file(low, path)
    _, found, _ = cnnjax.load_weights("simple_cnn", path, **TINY)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    np.testing.assert_array_equal(found["params"]["conv1"]["bias"],
                                  low["conv1.bias"].astype(np.float32))


@pytest.mark.parametrize(("name", "source", "expected"), [
    ("mobilenet_v3_small", "timm", {"bn_epsilon": 1e-5, "bn_momentum": 0.9}),
    ("mobilenet_v3_small", "torchvision", {"bn_epsilon": 1e-3, "bn_momentum": 0.99}),
    ("efficientnet_b0", "timm", {"bn_epsilon": 1e-5, "padding": "symmetric"}),
    ("efficientnet_b5", "timm",
     {"bn_epsilon": 1e-5, "bn_momentum": 0.9, "padding": "symmetric"}),
    ("efficientnet_b5", "torchvision",
     {"bn_epsilon": 1e-3, "bn_momentum": 0.99, "padding": "symmetric"}),
    ("tf_efficientnet_b5", "timm", {"bn_epsilon": 1e-3, "padding": "same"}),
    *[(name, "EfficientNet-PyTorch",
       {"bn_epsilon": 1e-3, "bn_momentum": 0.99, "padding": "same"})
      for name in ("efficientnet_b0", "efficientnet_lite0", "tf_efficientnet_lite0")],
    ("efficientnet_lite0", "timm", {"bn_epsilon": 1e-5, "padding": "symmetric"}),
    ("efficientnetv2_s", "timm", {"bn_epsilon": 1e-5, "padding": "symmetric"}),
    ("efficientnet_v2_s", "torchvision", {"bn_epsilon": 1e-3, "padding": "symmetric"})])
def test_the_model_computes_as_where_its_weights_are_from(name, source, expected, tmp_path):
    small = dict(width=0.25) if "mobilenet" in name else dict(width=0.125, depth=0.1)
    model = cnnjax.create_model(name, 10, **small)
    naming = next(n for n in namings.NAMINGS[type(model)] if n.source == source
                  and (name != "mobilenet_v3_small" or n.arguments or source != "timm"))
    like = matching.shapes(model, (64, 64), 3)
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file(to_torch(naming, jax.tree.map(
        lambda a: np.zeros(a.shape, np.float32), like)), path)
    found = cnnjax.load_weights(name, path, **small)[0]
    assert {key: getattr(found, key) for key in expected} == expected
    assert cnnjax.load_weights(name, path, bn_epsilon=0.5, **small)[0].bn_epsilon == 0.5


# From EfficientNet-PyTorch, which is tf_efficientnet here, and from timm.
@pytest.mark.parametrize(("name", "source", "again"), [
    ("mobilenet_v3_small", "timm", None), ("efficientnetv2_s", "timm", "efficientnetv2_s"),
    ("efficientnet_lite0", "EfficientNet-PyTorch", None)])
def test_a_module_is_saved_with_all_that_loading_has_found_of_it(name, source, again, tmp_path):
    small = dict(width=0.25) if "mobilenet" in name else dict(width=0.125, depth=0.1)
    model, path = cnnjax.create_model(name, 10, **small), tmp_path / "a.safetensors"
    safetensors.numpy.save_file(to_torch(namings.of(model, source), jax.tree.map(
        lambda a: np.zeros(a.shape, np.float32), matching.shapes(model, (64, 64), 3))), path)
    module, variables, preprocess = cnnjax.load_weights(name, path, dtype="bfloat16", **small)
    cnnjax.save_weights(path, module, variables, preprocess=preprocess)
    found = load(again, path, dtype="bfloat16")
    assert found.module == module and found.preprocess == preprocess
    with pytest.raises(UserError, match="brings its arguments; leave out width"):
        cnnjax.save_weights(path, module, variables, width=0.5)
    with pytest.raises(UserError, match="not in the model: params/head/bias"):
        cnnjax.save_weights(path, module.clone(num_classes=0), variables)


def test_a_file_that_says_it_is_another_model_is_not_loaded_though_its_tensors_fit(tmp_path):
    small, path = dict(width=0.125, depth=0.1), tmp_path / "a.safetensors"
    model = cnnjax.create_model("tf_efficientnet_b0", 10, **small)
    variables = jax.tree.map(lambda a: np.zeros(a.shape, np.float32),
                             matching.shapes(model, (64, 64), 3))
    cnnjax.save_weights(path, "tf_efficientnet_b0", variables, **small)
    with pytest.raises(UserError, match="says that it is tf_efficientnet_b0, not efficientnet_b0"):
        cnnjax.load_weights("efficientnet_b0", path)
    assert cnnjax.load_weights("tf_efficientnet_b0", path)[0].padding == "same"


def timm_config(folder, **more):
    """A config.json as timm writes it."""
    (folder / "config.json").write_text(json.dumps({**more, "pretrained_cfg": {
        "input_size": [3, 64, 64], "mean": [0.1] * 3, "std": [0.2] * 3}}))


# As ours: tensors. Not as ours: padding and epsilon; pooling; epsilon.
@pytest.mark.parametrize(("name", "theirs"), [
    ("mobilenet_v3_small", "tf_mobilenetv3_small_100"), ("resnet18", "resnetblur18"),
    (None, "resnetaa50")])
def test_a_net_that_is_not_here_is_not_taken_for_one_that_is(name, theirs, tmp_path):
    path, _, _ = tiny(tmp_path)
    timm_config(tmp_path, architecture=theirs)
    with pytest.raises(UserError, match=f"it is {theirs}, and there is no such .* without it"):
        load(name, path)


@pytest.mark.parametrize(("theirs", "name", "arguments"), [
    ("mobilenetv2_100", "mobilenet_v2", {"width": 1}),
    ("mobilenetv2_035.lamb_in1k", "mobilenet_v2", {"width": 0.35}),
    ("mobilenetv3_small_100", "mobilenet_v3_small", {}),
    ("mobilenetv3_large_100.ra_in1k", "mobilenet_v3_large", {}),
    ("resnet50.a1_in1k", "resnet50", {})])
def test_timms_names_of_our_nets_are_known(theirs, name, arguments, tmp_path):
    path, _, _ = tiny(tmp_path)
    timm_config(tmp_path, architecture=theirs)
    found = sources.read(path)
    assert (found.model, found.arguments) == (name, arguments)


def test_timms_file_of_another_width_loads_by_either_name(tmp_path):
    model = cnnjax.create_model("mobilenet_v2", 10, width=0.35)
    naming = namings.of(model, "timm")
    safetensors.numpy.save_file(to_torch(naming, jax.tree.map(
        lambda a: np.zeros(a.shape, np.float32), matching.shapes(model, (64, 64), 3))),
        tmp_path / "model.safetensors")
    timm_config(tmp_path, architecture="mobilenetv2_035")
    for name in (None, "mobilenet_v2"):
        assert load(name, tmp_path / "model.safetensors").module == model


def test_what_others_call_model_in_their_files_is_not_ours(tmp_path):
    path, state, _ = tiny(tmp_path)
    safetensors.numpy.save_file(state, path, {"model": "resnet50", "format": "pt"})
    assert load("simple_cnn", path, **TINY).name == "simple_cnn"


def test_a_damaged_safetensors_file_is_named(tmp_path):
    path, _, _ = tiny(tmp_path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="tiny.safetensors is not a whole safetensors file"):
        cnnjax.load_weights("simple_cnn", path, **TINY)
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(UserError, match="not a whole safetensors file"):
        cnnjax.load_weights("simple_cnn", path, **TINY)


@pytest.mark.parametrize("metadata", [
    {"arguments": "{"}, {"arguments": "3"}, {"preprocess": "{}"}, {"preprocess": "[]"},
    {"preprocess": '{"size": 8, "mean": [0.5], "std": [0.5]}'},
    {"preprocess": '{"size": [8, 8], "mean": ["a"], "std": [0.5]}'},
    {"preprocess": '{"size": [8, 8], "mean": [0.5], "std": [0.5, 0.5]}'},
    {"class_names": "7"}, {"class_names": '"abc"'}, {"num_classes": "-1"}])
def test_metadata_of_another_kind_are_named(metadata, tmp_path):
    path, state, _ = tiny(tmp_path)
    safetensors.numpy.save_file(state, path, metadata)
    with pytest.raises(UserError, match="its metadata are not as save_weights writes them"):
        cnnjax.load_weights("simple_cnn", path, **TINY)


def test_a_new_head_can_be_drawn_from_another_key(tmp_path):
    path, _, _ = tiny(tmp_path)
    one, other = (cnnjax.load_weights("simple_cnn", path, num_classes=3, rng=rng, **TINY)[1]
                  for rng in (None, jax.random.key(1)))
    assert np.abs(one["params"]["head"]["kernel"] - other["params"]["head"]["kernel"]).max() > 0


def test_a_wrong_name_is_said_before_the_file_is_read():
    with pytest.raises(UserError, match="Did you mean 'resnet50'"):
        cnnjax.load_weights("resnet51", "nowhere.pth")
    with pytest.raises(UserError, match="There is no file nowhere.pth"):
        cnnjax.load_weights("resnet50", "nowhere.pth")


def test_preprocessing_comes_from_the_files_name_the_tag_or_the_first_set(caplog):
    of = published.preprocess_of
    first = of("resnet50", source="torchvision", file="mine.pth")
    assert "IMAGENET1K_V1 taken" in caplog.text and "IMAGENET1K_V2" in caplog.text
    assert first == Preprocess((224, 224), published.IMAGENET_MEAN, published.IMAGENET_STD, 0.875)
    second = of("resnet50", source="torchvision", file="resnet50-11ad3fa6.pth")
    assert second == of("resnet50", tag="IMAGENET1K_V2")
    assert round(224 / second.crop) == 232
    with pytest.raises(UserError, match="Did you mean 'IMAGENET1K_V2'"):
        of("resnet50", tag="IMAGENET1K_V3")


@pytest.mark.parametrize(("name", "source", "said"), [
    ("resnet18", "torchvision", "IMAGENET1K_V1 taken; if these are a1_in1k, say tag='a1_in1k'"),
    ("resnet50", "torchvision", "if these are IMAGENET1K_V2 or a1_in1k"),
    ("resnext101_32x8d", "torchvision", "if these are IMAGENET1K_V2, say"),  # timm's is V1.
    ("vgg16_bn", "torchvision", ""), ("seresnet50", "torchvision", "")])
def test_sets_of_another_library_with_the_same_names_are_said(name, source, said, caplog):
    found = published.preprocess_of(name, source=source, file="model.safetensors")
    assert found == next(row for row in published.table() if row.model == name).preprocess
    assert said in caplog.text and bool(said) == bool(caplog.text)


def test_torchvisions_old_names_are_preprocessed_as_torchvisions(caplog):
    found = published.preprocess_of("densenet121", source=namings.densenet.PUBLISHED.source)
    assert found == published.preprocess_of("densenet121", tag="IMAGENET1K_V1")
    assert not caplog.text  # timm has none of these names.


def test_a_config_of_timm_beside_the_file_gives_preprocessing_and_class_names(tmp_path):
    path, _, _ = tiny(tmp_path, num_classes=2)
    (tmp_path / "config.json").write_text(json.dumps({
        "architecture": "simple_cnn", "num_classes": 2, "label_names": ["cat", "dog"],
        "pretrained_cfg": {"input_size": [3, 224, 224], "test_input_size": [3, 288, 288],
                           "crop_pct": 0.95, "test_crop_pct": 1.0, "interpolation": "bicubic",
                           "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}}))
    found = load(None, path, **TINY)
    assert found.preprocess == Preprocess((288, 288), (0.5,) * 3, (0.25,) * 3, 1.0, "bicubic")
    assert found.name == "simple_cnn" and found.class_names == ("cat", "dog")


@pytest.mark.parametrize(("cfg", "crop"), [
    ({"crop_pct": 0.95}, 224 / 235), ({"crop_pct": 0.875}, 0.875), ({}, 0.875),
    ({"crop_pct": 0.875, "test_crop_pct": 1.0}, 1.0)])
def test_timms_crop_is_rounded_down_as_timm_does(cfg, crop):
    cfg |= {"input_size": [3, 224, 224], "mean": [0.5] * 3, "std": [0.5] * 3}
    found = published.from_timm({"pretrained_cfg": cfg}, "here")
    assert found.crop == crop and found.interpolation == "bicubic"


def test_every_published_set_is_of_a_proper_size_and_crop():
    for row in published.table():
        assert 0.8 < row.preprocess.crop <= 1 and row.preprocess.size[0] >= 192, row
        assert row.model in TABLE, row


def test_the_lite_packages_are_normalised_as_they_were_trained_under_either_name():
    found = [published.preprocess_of(f"{name}efficientnet_lite0", source="EfficientNet-PyTorch")
             for name in ("", "tf_")]
    assert found[0] == found[1] and found[0].mean == (127 / 255,) * 3


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"])
def test_timms_mobilenets_are_resized_as_timm_does(name, caplog):
    assert published.preprocess_of(name, source="timm") == Preprocess(
        (224, 224), published.IMAGENET_MEAN, published.IMAGENET_STD, 0.875, "bicubic")
    assert not caplog.text


def test_the_vgg16_that_has_features_alone_is_normalised_as_it_was_trained():
    found = published.preprocess_of("vgg16", file="vgg16_features-amdegroot-88682ab5.pth")
    assert found == published.preprocess_of("vgg16", tag="IMAGENET1K_FEATURES")
    # Bytes less the mean that amdegroot's SSD, which starts from them, takes away.
    np.testing.assert_allclose(np.multiply(found.mean, 255), (123, 117, 104), atol=1e-2)
    np.testing.assert_allclose(np.multiply(found.std, 255), 1)


def test_the_thousand_class_names_are_in_torchvisions_order():
    names = imagenet.class_names()
    assert len(set(names)) == 1000
    assert (names[0], names[309], names[310], names[999]) == (
        "tench", "bee", "ant", "toilet tissue")


def test_a_hub_id_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="pip install huggingface_hub"):
        cnnjax.load_weights("resnet50", "timm/resnet50.a1_in1k")


def test_a_hub_id_without_a_network_is_one_message(monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")

    def offline(repository, file, **_):
        raise hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(hub, "hf_hub_download", offline)
    with pytest.raises(UserError, match="cannot be reached.*give the path of a file"):
        cnnjax.load_weights("resnet50", "hf-hub:timm/resnet50.a1_in1k")


def test_a_hub_id_takes_weights_and_config_of_the_repository(monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    path, _, variables = tiny(tmp_path)
    path.rename(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {
        "input_size": [3, 64, 64], "mean": [0.1] * 3, "std": [0.2] * 3}}))
    asked = []

    def fetch(repository, file, **where):
        asked.append((repository, file, where.get("revision")))
        return str(tmp_path / file)

    monkeypatch.setattr(hub, "hf_hub_download", fetch)
    _, found, preprocess = cnnjax.load_weights("simple_cnn", "hf-hub:me/tiny@v2", **TINY)
    assert preprocess.size == (64, 64)
    assert asked[0] == ("me/tiny", "model.safetensors", "v2")
    assert_equal(found, variables)


@pytest.mark.parametrize(("text", "is_id"), [
    ("timm/resnet50.a1_in1k", True), ("hf-hub:a/b@main", True), ("hf_hub:a/b", True),
    ("weights.pth", False), ("/a/b", False), ("./a", False), ("a/b/c", False), ("../a", False)])
def test_hub_ids_are_told_from_paths(text, is_id):
    from cnnjax.weights import hub

    assert hub.is_id(text) == is_id


def test_a_folder_that_is_no_run_says_so(tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        sources.read(tmp_path)


@pytest.mark.parametrize(("name", "key"), [
    ("tf_efficientnet_lite0", "conv_stem.weight"), ("efficientnet_lite0", "conv_stem.weight"),
    ("efficientnet_b0", "features.0.0.weight"), ("resnet20_cifar", "linear.weight"),
    ("plain20_cifar", "fc.weight")])
def test_weights_are_saved_in_the_names_of_the_code_base_that_has_the_model(name, key):
    model = cnnjax.create_model(name, 7)
    like = matching.shapes(model, (32, 32), 3)
    assert key in namings.to_save(name, model).names(like).values()


def test_a_model_without_a_head_comes_back_and_can_get_one(tmp_path):
    path = tmp_path / "a.safetensors"
    model = cnnjax.create_model("simple_cnn", 0, **TINY)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    cnnjax.save_weights(path, "simple_cnn", variables, **TINY)
    module, found, _ = cnnjax.load_weights("simple_cnn", path)
    assert module.num_classes == 0
    assert_equal(found, jax.tree.map(np.asarray, variables))
    module, found, _ = cnnjax.load_weights("simple_cnn", path, 5)
    assert module.num_classes == 5 and found["params"]["head"]["kernel"].shape == (8, 5)


def test_others_trunks_without_a_head_give_features_or_get_a_head(tmp_path):
    path, state, variables = tiny(tmp_path)
    trunk = {key: array for key, array in state.items() if not key.startswith("fc")}
    assert len(state) - len(trunk) == 2
    safetensors.numpy.save_file(trunk, path)
    timm_config(tmp_path, label_names=["cat", "dog"])  # Of the head that is gone.
    module, found, _ = cnnjax.load_weights("simple_cnn", path, 0, **TINY)
    assert module.num_classes == 0 and load("simple_cnn", path, 0, **TINY).class_names is None
    variables["params"].pop("head")
    assert_equal(found, variables)
    module, found, _ = cnnjax.load_weights("simple_cnn", path, 5, **TINY)
    assert module.num_classes == 5 and found["params"].pop("head")["kernel"].shape == (8, 5)
    assert_equal(found, variables)
    with pytest.raises(UserError, match=r"2 missing: fc[\s\S]*no head: num_classes=0 gives"):
        cnnjax.load_weights("simple_cnn", path, **TINY)
    safetensors.numpy.save_file({key: trunk[key] for key in list(trunk)[1:]}, path)
    with pytest.raises(UserError, match="3 missing"):
        cnnjax.load_weights("simple_cnn", path, 0, **TINY)


@pytest.mark.parametrize("size", [(28, 28), (52, 52)])
def test_lenets_dense_layer_is_laid_out_for_the_size_of_its_images(size, tmp_path):
    path, preprocess = tmp_path / "a.safetensors", Preprocess(size, (0.5,), (0.25,))
    model = cnnjax.create_model("lenet5", 10)
    x = jax.random.normal(jax.random.key(1), (1, *size, 1))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    cnnjax.save_weights(path, "lenet5", variables, preprocess=preprocess)
    kernel = np.asarray(variables["params"]["fc1"]["kernel"])
    side = round((len(kernel) // 16) ** 0.5)
    np.testing.assert_array_equal(
        safetensors.numpy.load_file(path)["classifier.1.weight"],
        kernel.reshape(side, side, 16, -1).transpose(3, 2, 0, 1).reshape(kernel.shape[1], -1))
    assert_equal(cnnjax.load_weights("lenet5", path)[1], jax.tree.map(np.asarray, variables))


def test_images_that_are_not_square_leave_lenet_without_names(tmp_path):
    variables = jax.jit(cnnjax.create_model("lenet5", 10).init)(
        jax.random.key(0), jnp.zeros((1, 32, 44, 1)))
    with pytest.raises(UserError, match="no square map of 16 channels"):
        cnnjax.save_weights(tmp_path / "a.safetensors", "lenet5", variables,
                            preprocess=Preprocess((32, 44), (0.5,), (0.25,)))


def test_class_names_of_another_number_are_refused(tmp_path):
    path, _, variables = tiny(tmp_path)
    with pytest.raises(UserError, match="1 class names for 10 outputs"):
        cnnjax.save_weights(path, "simple_cnn", variables, class_names=["only"], **TINY)


def test_grey_images_are_normalised_by_the_mean_over_the_channels():
    found = published.for_channels(Preprocess((8, 8), (0.2, 0.4, 0.9), (0.1, 0.2, 0.6)), 1)
    assert found.mean == pytest.approx((0.5,)) and found.std == pytest.approx((0.3,))


def test_a_new_head_has_none_of_the_old_class_names(tmp_path):
    _, variables = state_of("simple_cnn", (16, 16, 3), num_classes=3, **TINY)
    path = tmp_path / "a.safetensors"
    cnnjax.save_weights(path, "simple_cnn", variables, class_names=["a", "b", "c"], **TINY)
    assert load(None, path).class_names == ("a", "b", "c")
    assert load(None, path, 5).class_names is None


def test_other_channels_are_normalised_by_the_old_ones_in_turn():
    found = published.for_channels(Preprocess((8, 8), (0.2, 0.4, 0.9), (0.1, 0.2, 0.6)), 5)
    assert found.mean == (0.2, 0.4, 0.9, 0.2, 0.4) and found.std == (0.1, 0.2, 0.6, 0.1, 0.2)


def test_others_may_read_what_is_saved_as_the_umask_says(tmp_path):
    _, variables = state_of("simple_cnn", (16, 16, 3), num_classes=3, **TINY)
    path, mask = tmp_path / "a.safetensors", os.umask(0o027)
    try:
        cnnjax.save_weights(path, "simple_cnn", variables, **TINY)
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o640


def test_weights_that_cannot_be_written_leave_no_file(tmp_path):
    _, variables = state_of("simple_cnn", (16, 16, 3), num_classes=3, **TINY)
    (tmp_path / "a.safetensors" / "taken").mkdir(parents=True)
    with pytest.raises(UserError, match="cannot be written: Is a directory"):
        cnnjax.save_weights(tmp_path / "a.safetensors", "simple_cnn", variables, **TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_weights_of_a_run_are_its_averages_if_it_has_them(tmp_path):
    from cnnjax.checkpoint import Checkpoints

    _, variables = state_of("simple_cnn", (16, 16, 3), num_classes=3, **TINY)
    average = jax.tree.map(lambda a: a + 1, variables)
    record = {"model": {"name": "simple_cnn", "num_classes": 3}, "class_names": ["a", "b", "c"],
              "config": {"model": {"name": "simple_cnn", **TINY, "zero_init_residual": None},
                         "checkpoint": {"metric": "top5"}},
              "preprocess": Preprocess((16, 16), (0.5,) * 3, (0.5,) * 3).to_dict()}
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep_last=2, metric="top5")
    for step, top5, averages in ((4, 0.9, {}), (5, 0.8, average)):
        checkpoints.save(step, {**variables, "average": averages}, record | {
            "metrics": {"eval_top1": 1 - top5, "eval_top5": top5}})
    checkpoints.close()
    assert_equal(load(None, tmp_path).variables, average)
    for which, expected in (("4", variables), ("best", variables), ("last", average)):
        assert_equal(load(None, tmp_path / "checkpoints" / which).variables, expected)
    with pytest.raises(UserError, match="There is no checkpoint in .*/none/checkpoints"):
        load(None, tmp_path / "none" / "checkpoints" / "best")


@pytest.mark.parametrize(("name", "crop"), [("alexnet_original", 0.875), ("resnet20_cifar", 1.0)])
def test_unpublished_weights_take_the_usual_crop_and_small_images_whole(name, crop):
    found = published.preprocess_of(name)
    assert (found.crop, found.mean) == (crop, published.IMAGENET_MEAN)


def test_a_file_does_not_say_in_what_dtype_its_model_computed(tmp_path):
    _, variables = state_of("simple_cnn", (16, 16, 3), num_classes=3, **TINY)
    path = tmp_path / "a.safetensors"
    cnnjax.save_weights(path, "simple_cnn", variables, dtype="bfloat16", **TINY)
    assert load(None, path).module == cnnjax.create_model("simple_cnn", 3, **TINY)


@pytest.mark.parametrize(("theirs", "ours"), [("bilinear", "bilinear"), ("random", "bicubic")])
def test_timms_interpolation_is_kept_or_bicubic(theirs, ours):
    cfg = dict(input_size=[3, 224, 224], mean=[0.5] * 3, std=[0.5] * 3, interpolation=theirs)
    assert published.from_timm(cfg, "here").interpolation == ours
