"""One BERT-family encoder, many text tasks: train, judge and ship a multi-task model.

The public API, loaded when used: `train` a recipe, `Model.load` what came out, `errors` that a user can mend.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manyhead.build import Run
    from manyhead.inference.predictor import Model, Prediction

__all__ = ["Model", "Prediction", "Run", "train"]

# The CPU backend of torch keeps a compiled kernel for each shape it has seen, and torch one of its own. Packed batches
# have ever new shapes, so the defaults of 1,024 grow by gigabytes over a run. They are read at the first product.
for _name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_name, "64")

_LAZY = {
    "Model": "manyhead.inference.predictor",
    "Prediction": "manyhead.inference.predictor",
    "Run": "manyhead.build",
}


def train(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str] | Mapping[str, Any] = (),
    out: str | Path | None = None,
    *,
    data_dir: str | Path | None = None,
    seed: int | None = None,
    resume: bool = False,
    allow_changes: Sequence[str] = (),
) -> "Run":
    """Trains a recipe and returns the finished run.

    Args:
        recipe: A file, the name of a shipped recipe, or a recipe's values.
        overrides: ``KEY=VALUE`` texts or a mapping of dotted keys, such as ``{"stages.0.epochs": 1}``.
        out: The run folder; ``runs/NAME`` by default.
        data_dir: Replaces the recipe's ``data_dir``.
        seed: Replaces the recipe's ``seed``.
        resume: Go on with the run in ``out``.
        allow_changes: What may be other than when the run began: recipe, data, labels, encoder, teachers.

    Raises:
        ManyheadError: `manyhead.errors` has one class for each way that this can fail.
    """
    from manyhead.build import train as run
    from manyhead.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides=overrides, data_dir=data_dir, seed=seed)
    return run(loaded, out=None if out is None else Path(out), resume=resume, allow_changes=allow_changes)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'manyhead' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
