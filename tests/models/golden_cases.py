"""The golden cases of every family. Needs neither torch nor JAX.

A family is a file in families/ with LOGITS, TRAINING and, where the default will not do, FILL; a
file of the same name in references/ with torch models that neither torchvision nor timm has; and
golden/<family>.npz, which make_golden.py writes.
"""

from __future__ import annotations

import importlib
import pathlib

import golden_values

FOLDER = pathlib.Path(__file__).parent
GOLDEN = FOLDER / "golden"
FAMILIES = {path.stem: importlib.import_module(f"families.{path.stem}")
            for path in sorted((FOLDER / "families").glob("*.py"))}


def fill(family: str) -> golden_values.Fill:
    """Returns how the family's tensors are filled."""
    return getattr(FAMILIES[family], "FILL", golden_values.Fill())


def cases(kind: str) -> list[tuple[str, str, golden_values.Logits | golden_values.Training]]:
    """Returns (family, name, case) of every case of the kind "LOGITS" or "TRAINING"."""
    return [(family, name, case) for family, module in FAMILIES.items()
            for name, case in getattr(module, kind, {}).items()]
