"""Writes attribution.npz: what Captum computes on a torch twin of a small `simple_cnn`.

    python -m venv reference && reference/bin/pip install torch==2.13.0 captum==0.9.0
    reference/bin/python tests/analysis/make_attribution_golden.py

The tests need neither: the weights are made again from the same seed and compared.
"""

import pathlib

import numpy as np
import torch
from attribution_case import CLASSES, IMAGES, WIDTHS, weights
from captum import attr


class Twin(torch.nn.Module):
    def __init__(self):
        super().__init__()
        inputs = 3
        for i, width in enumerate(WIDTHS, 1):
            setattr(self, f"conv{i}", torch.nn.Conv2d(inputs, width, 3, padding=1))
            setattr(self, f"norm{i}", torch.nn.BatchNorm2d(width))
            setattr(self, f"relu{i}", torch.nn.ReLU())
            inputs = width
        self.head = torch.nn.Linear(inputs, 5)

    def forward(self, x):
        for i in range(1, len(WIDTHS) + 1):
            x = getattr(self, f"conv{i}")(x)
            x = getattr(self, f"relu{i}")(getattr(self, f"norm{i}")(x))
            x = torch.nn.functional.max_pool2d(x, 2) if i < len(WIDTHS) else x
        return self.head(x.mean((2, 3)))


def twin():
    model = Twin()
    names = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean",
             "var": "running_var"}
    with torch.no_grad():
        for (layer, name), value in weights().items():
            if name == "kernel":
                value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
            getattr(getattr(model, layer), names[name]).copy_(torch.from_numpy(value.copy()))
    return model.double().eval()


def main():
    model = twin()
    x = torch.from_numpy(IMAGES).double().permute(0, 3, 1, 2)
    target = torch.from_numpy(CLASSES)

    def nhwc(values):
        return values.detach().permute(0, 2, 3, 1).numpy().astype(np.float32)

    integrated, delta = attr.IntegratedGradients(model).attribute(
        x, target=target, n_steps=50, return_convergence_delta=True)
    found = {
        "logits": model(x).detach().numpy().astype(np.float32),
        "saliency": nhwc(attr.Saliency(model).attribute(x, target=target)),
        "integrated": nhwc(integrated), "delta": delta.numpy(),
        "guided": nhwc(attr.GuidedBackprop(model).attribute(x, target=target)),
        "occlusion": nhwc(attr.Occlusion(model).attribute(
            x, target=target, sliding_window_shapes=(3, 5, 5), strides=(3, 3, 3)))}
    for i in (2, 3):
        cam = attr.LayerGradCam(model, getattr(model, f"relu{i}"))
        found[f"grad_cam_conv{i}"] = nhwc(cam.attribute(x, target=target, relu_attributions=True))
    np.savez_compressed(pathlib.Path(__file__).parent / "attribution.npz", **found)


if __name__ == "__main__":
    main()
