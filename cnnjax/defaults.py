"""Every key of a config, with its default.

Where a length of time is meant, `durations` gives it four keys (see `config`).
"""

from __future__ import annotations

from typing import Any

from ml_collections import config_dict

from cnnjax.durations import UNITS, durations

_optional = config_dict.placeholder


def sections() -> dict[str, Any]:
    """Returns the whole of a config, as dictionaries; `model.name` is empty."""
    return {
        "seed": 0,
        "seeds": 0,  # How many runs, from `seed` on: a sweep. 0 is one run, without a sweep.
        "precision": "auto",  # auto: bfloat16 on GPU and TPU, float32 on CPU. Or name one.
        # bfloat16_products: float32, but training rounds the factors of products in convolutions,
        # for CPUs that multiply bfloat16 faster.
        "deterministic": False,  # GPU: the same bits in every run, for slower convolutions.
        "devices": 0,  # Data parallel over this many; 0 is all there are.
        "ops": "auto",  # auto: the fastest convolution for the backend; xla: lax.conv everywhere;
        # exact: auto without those that round more, which auto takes in training steps alone.
        # Every other key here is an argument of that model; None leaves it at the model's value.
        "model": {"name": ""},
        "weights": _weights(),
        "data": _data(),
        "prepare": _prepare(),
        "augment": _augment(),
        "head": _head(),
        "train": _train(),
        "distill": _distill(),
        "sharding": _sharding(),
        "optimizer": _optimizer(),
        "schedule": _schedule(),
        "lr_finder": _lr_finder(),
        "benchmark": _benchmark(),
        "eval": _eval(),
        "predict": _predict(),
        "summarize": _summarize(),
        "visualize": _visualize(),
        "export": _export(),
        "sweep": _sweep(),
        "checkpoint": _checkpoint(),
        "log": _log(),
    }


def _weights() -> dict[str, Any]:
    """What to start from."""
    return {
        # To start from: a .safetensors or .pth file, a workdir, a hub id, or "random".
        # The head is theirs, too, if it knows the classes of the data and head.* trains no new one.
        "path": _optional(str),
        "tag": _optional(str),  # Which of several published sets, such as IMAGENET1K_V2.
    }


def _data() -> dict[str, Any]:
    """The images."""
    return {
        "name": "digits",  # digits, folder:PATH, wds:PATH, imagenet:PATH, records:PATH, npz:PATH,
        # or the name of a TFDS data set.
        "data_dir": _optional(str),  # Of TFDS; else TFDS_DATA_DIR, else ~/tensorflow_datasets.
        "manual_dir": _optional(str),  # --job=prepare: files that were downloaded by hand.
        "train_split": _optional(str),
        "eval_split": _optional(str),  # Default: validation if the set has one, else test.
        "val_fraction": 0.2,  # Of data that come without a split to evaluate on.
        "split_seed": 0,
        # These five are those of the weights, where the run starts from some and unless set.
        "image_size": 0,  # Pixels, square; 0 keeps the size of the images.
        "crop": _optional(float),  # Centre crop, for images of different sizes; else 0.875.
        "interpolation": _optional(str),  # bilinear, which is the default, or bicubic.
        "mean": _optional(tuple),  # Per channel, of images in [0, 1]; default: the data set's.
        "std": _optional(tuple),
        "placement": "auto",  # device: all of it, as uint8; stream: through the host.
        "on_error": "raise",  # Of an example that cannot be read; skip: goes on without it.
        "threads": 0,  # Of the streaming loader; 0 is one a core.
        "workers": 0,  # Processes that read and decode in their place; 0 is none.
    }


def _prepare() -> dict[str, Any]:
    """--job=prepare of folder:PATH, wds:PATH or imagenet:PATH: a smaller copy, records:OUTPUT."""
    return {
        "output": _optional(str),  # The folder to write; None: PATH-256px, beside it.
        "short_side": 256,  # Pixels; images with a smaller one are copied as they are.
        "quality": 90,  # Of JPEG.
        "shard_mb": 256,  # MiB of images in a file of the copy, at most; as much memory is needed.
    }


def _augment() -> dict[str, Any]:
    """What is done to training images."""
    return {
        "flip": False,
        "pad_crop": 0,  # Pixels of zero padding before a random crop of the same size.
        "random_resized_crop": _optional(tuple),  # (least, most) of the area: (0.08, 1.0).
        "jitter": _optional(tuple),  # (brightness, contrast, saturation, hue), 0 is off.
        "policy": "none",  # rand_augment, trivial_augment_wide, auto_augment, ….
        "num_ops": 2,  # rand_augment*: operations an image.
        "magnitude": 9,  # rand_augment*: of 30; rand_augment_increasing: of 10.
        "magnitude_std": 0.5,  # rand_augment_increasing.
        "resample": "nearest",  # Of the policy's shears and rotations; or bilinear.
        "fill": "black",  # What they bring in from outside the image; or mean.
        "erase": 0.0,  # Probability of random erasing.
        "erase_noise": False,
        "mixup": 0.0,  # a of Beta(a, a); 0 is off. With both, one is drawn for each batch.
        "cutmix": 0.0,
        "mix_probability": 1.0,
        "cutmix_probability": 0.5,  # Where both are on.
        "mix_per_example": False,
        "repeats": 1,  # Repeated augmentation: how often an example comes in a row.
    }


def _head() -> dict[str, Any]:
    """A first phase that trains the head alone; without a length there is none."""
    return {
        **durations("", percent=False),
        "optimizer": "adam",
        "lr": 1e-3,
        "schedule": "constant",  # Or cosine, or linear.
        "weight_decay": 0.0,
        "augment": False,  # Else the features of each image are computed once for all epochs.
    }


def _train() -> dict[str, Any]:
    """Length of the run, loss, and what a step does."""
    return {
        "batch_size": 64,  # Over all devices and hosts.
        **durations("", percent=False),  # Of this phase, without that of the head.
        "trainable": (".*",),  # Regular expressions of the parameters that train.
        "from_stage": _optional(str),  # Or the endpoint from which on they do: "stage3".
        "norm_statistics": "batch",  # running: batch norms keep and use those of the weights.
        "stop_after_steps": _optional(int),  # Ends early; schedules keep the full length.
        "loss": "softmax",  # Or sigmoid: binary cross entropy of each class.
        "label_smoothing": 0.0,
        "target_threshold": _optional(float),  # sigmoid: targets above it become 1, else 0.
        "accumulate": 1,  # Parts of a batch whose gradients are summed before the update.
        "ema_decay": 0.0,  # A step, of the averages that are evaluated; 0 is off.
        "ema_batch_size": _optional(int),  # ema_decay is for this batch size.
        "aux_weight": 0.3,  # Of the loss of each auxiliary head, in models that have them.
        "steps_per_call": 0,  # Steps in one call of the device; 0 chooses by backend.
        "on_non_finite": "stop",  # Or rollback: to the last checkpoint, with a lower rate.
        "rollback_lr_factor": 0.5,  # What each rollback multiplies all rates by.
        "max_rollbacks": 3,
        "remat": (),  # Regular expressions of parts that the backward pass computes again.
        "progressive": (),  # ((0, 160), (75, 192)): from this percent on, this image size.
        "ghost_batch_size": 0,  # Rows that share batch statistics; 0 is the whole batch.
    }


def _distill() -> dict[str, Any]:
    """In the phase after the head's."""
    return {
        "weights": _optional(str),  # Of the teacher: as weights.path. None is no teacher.
        "model": _optional(str),  # The teacher's name; None: what its workdir or file says it is.
        "tag": _optional(str),  # As weights.tag.
        "temperature": 1.0,
        "weight": 0.5,  # Of the teacher in the loss; the labels have the rest.
    }


def _sharding() -> dict[str, Any]:
    """Parameters and what belongs to them, divided among the devices."""
    return {
        "fsdp_min_size": 0,  # Those of at least this many numbers; 0 is none.
        "rules": (),  # Regular expressions of others.
    }


def _optimizer() -> dict[str, Any]:
    """Optimiser."""
    return {
        "name": "sgd",  # sgd, adam, adamw, rmsprop, lars, lamb or muon.
        "momentum": 0.9,  # sgd, rmsprop, lars, muon.
        "nesterov": False,
        "b1": 0.9,  # adam, adamw, lamb, muon.
        "b2": 0.999,  # And the decay of rmsprop's second moment.
        "eps": 1e-8,
        "weight_decay": 0.0,
        "decay": (r".*kernel",),  # Regular expressions of the parameters that decay.
        "clip_norm": 0.0,  # Global gradient norm; 0 is off.
        "lr_multipliers": (),  # (regular expression, number) pairs: (("head/.*", 10.0),).
        "layer_decay": 1.0,  # Of the rate, for each stage between a parameter and the head.
    }


def _schedule() -> dict[str, Any]:
    """Learning rate."""
    return {
        "name": "cosine",  # constant, cosine, linear, step, exponential or range_test.
        "lr": 0.1,
        "lr_batch_size": _optional(int),  # lr is for this batch size: scale it linearly.
        "final_lr": 0.0,  # Fraction of lr where cosine and linear end.
        **durations("warmup"),
        **{f"drop_{unit}": _optional(tuple) for unit in UNITS},  # step: when lr drops.
        **durations("drop_every"),  # exponential: the time between two drops.
        "drop_factor": 0.1,  # step, exponential: what a drop multiplies lr by.
        "range_start": 1e-6,  # range_test: the fraction of lr where it begins to rise.
    }


def _lr_finder() -> dict[str, Any]:
    """--job=lr_finder."""
    return {
        "lowest": 1e-5,
        "highest": 10.0,
        "steps": 100,
    }


def _benchmark() -> dict[str, Any]:
    """--job=benchmark."""
    return {
        "rounds": 5,  # In which what is timed takes turns.
        "seconds": 1.0,  # Of each in each round; at least two calls.
    }


def _eval() -> dict[str, Any]:
    """Evaluation."""
    return {
        "batch_size": 0,  # 0 is the training batch size.
        "image_size": 0,  # Pixels, square; 0 is data.image_size, or the size of the images.
        **durations("every"),  # Default: every epoch. The last step always evaluates.
        "tta": "none",  # Mean over views of an image: flip, five_crop or ten_crop.
        "checkpoint": "last",  # --job=evaluate: last, best, or a step.
        "corruptions": (),  # --job=evaluate: kinds of ImageNet-C, or ("all",).
        "probe": "none",  # --job=evaluate: knn, linear or all, of the frozen features.
        "probe_neighbours": 20,  # knn.
    }


def _predict() -> dict[str, Any]:
    """--job=predict."""
    return {
        "images": _optional(str),  # A folder or a file; None labels the evaluation split.
        "batch_size": 32,
        "sheet": 48,  # Images on the contact sheet, the first ones; 0 writes none.
    }


def _summarize() -> dict[str, Any]:
    """--job=summarize."""
    return {
        "what": "model",  # Or data; --what is short for it.
        "images": 8,  # data: how many training images are drawn, side by side.
        "draws": 5,  # And how often each is augmented, one below the other.
    }


def _visualize() -> dict[str, Any]:
    """--job=visualize."""
    return {
        "images": _optional(str),  # A folder or a file; None takes the evaluation split.
        "count": 512,  # Of them, evenly spaced; the page is chosen and measured from these.
        "shown": 6,  # Images whose evidence is drawn.
        "endpoints": (),  # The maps to show, such as ("stem", "stage2"); () is all of them.
        "channels": 4,  # Of each map.
        "patches": 5,  # The strongest ones of each channel.
        "ascent": 128,  # Steps of the images made for a channel or class; 0 leaves them out.
        "integration": 128,  # Steps of integrated gradients.
        "batch_size": 32,
        "umap": True,  # Where umap-learn is installed; its first call takes 10 s and more.
    }


def _export() -> dict[str, Any]:
    """--job=export."""
    return {
        "input": "float32",  # Normalised images; uint8: bytes, the normalisation is built in.
    }


def _sweep() -> dict[str, Any]:
    """--job=sweep, and seeds."""
    return {
        "executor": "local",  # local, slurm or ray; --executor is short for it.
        "at_a_time": 0,  # Trials; 0: one a GPU or a core here, the cluster's limit there.
        "retries": 1,  # Of a trial that fails.
        "cpus": 0,  # Of a trial on slurm or ray; 0 is the cluster's default.
        "gpus": 0,
        "slurm_partition": _optional(str),
        "slurm_minutes": 240,  # Of a job; a trial that needs longer saves, and is requeued.
        "slurm_memory_gb": 0.0,  # 0 is the cluster's default.
        "slurm_options": "",  # Others of sbatch: "account=vision qos=low".
        "asha": False,  # Successive halving: the worse trials stop early. Needs optuna.
        "asha_rungs": 2,  # How often trials are compared before the end.
        "asha_reduction": 3,  # Of so many one goes on; the first rung is at 1/9 of the run.
    }


def _checkpoint() -> dict[str, Any]:
    """When to save, and what to keep."""
    return {
        **durations("every"),  # Besides every evaluation. The last step always saves.
        "keep_last": 2,
        "keep_best": 1,
        "metric": "top1",
    }


def _log() -> dict[str, Any]:
    """Console and files."""
    return {
        **durations("every"),  # Default: 2 percent.
        "progress": "auto",  # bar, plain or none; auto: bar on a terminal.
        "tensorboard": True,
        "plot": True,
    }
