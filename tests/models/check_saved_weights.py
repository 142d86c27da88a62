"""Shows that torch's own models take saved weights strictly and give the same logits.

    python tests/models/check_saved_weights.py write FOLDER [FAMILY …]            # with cnnjax
    torchref/bin/python tests/models/check_saved_weights.py check FOLDER          # with torch

with the environment of make_golden.py. The first writes the golden cases' models by `save_weights`
and the logits that cnnjax computes, the second loads each file into the torch model.
"""

from __future__ import annotations

import json
import pathlib
import sys

import golden_cases
import golden_values as values
import numpy as np


def write(folder, families):
    import jax

    from cnnjax.models import create_model
    from cnnjax.weights import matching, namings, save_weights
    from cnnjax.weights.naming import from_torch, shapes_in_torch

    for family, name, case in golden_cases.cases("LOGITS"):
        model = create_model(case.model or name, **case.arguments)
        naming = namings.to_save(case.model or name, model)
        if families and family not in families:
            continue
        size = case.sizes[0]
        like = matching.shapes(model, size[:2], size[2])
        if naming.names(like) != namings.of(model, case.naming).names(like):
            print(f"{name} is saved in the names of {naming.source}, not of {case.naming}")
            continue
        state = {key: values.seeded(key, shape, golden_cases.fill(family))
                 for key, shape in shapes_in_torch(naming, like).items()}
        variables = from_torch(naming, state, like)
        arguments = {k: v for k, v in case.arguments.items() if k != "num_classes"}
        save_weights(folder / f"{name}.safetensors", case.model or name, variables, **arguments)
        logits = jax.jit(model.apply)(variables, values.images(size))
        np.savez(folder / f"{name}.npz", logits=logits, about=json.dumps([family, list(size)]))
        print("wrote", name, flush=True)


def check(folder):
    import make_golden
    import torch
    from safetensors.torch import load_file

    cases = {name: case for _, name, case in golden_cases.cases("LOGITS")}
    worst = 0.0
    for path in sorted(folder.glob("*.safetensors")):
        saved = np.load(path.with_suffix(".npz"))
        family, size = json.loads(str(saved["about"]))
        model = make_golden.build(family, cases[path.stem]).float().eval()
        for tensor in model.state_dict().values():
            tensor.zero_()  # Nothing of what `build` filled in may help.
        model.load_state_dict(load_file(path), strict=True)
        with torch.no_grad():
            x = torch.from_numpy(values.images(tuple(size))).permute(0, 3, 1, 2)
            logits = model(x).numpy()
        error = np.abs(logits - saved["logits"]).max() / logits.std()
        worst = max(worst, error)
        print(f"{path.stem:<24} strict load, largest difference {error:.1e} of the spread",
              flush=True)
    print(f"worst {worst:.1e}")


if __name__ == "__main__":
    command, where, *rest = sys.argv[1:]
    pathlib.Path(where).mkdir(parents=True, exist_ok=True)
    if command == "write":
        write(pathlib.Path(where), rest)
    else:
        check(pathlib.Path(where))
