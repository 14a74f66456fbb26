"""Writes the packaged encoder with bf16 weights into a folder: 45 MB, small enough to carry.

    python benchmarks/gpu_cases/carry.py FOLDER

The folder is a checkpoint: ``encoder.checkpoint: FOLDER`` in a recipe. Its weights are read as fp32 ones, so they are
those of the packaged encoder rounded to bf16.
"""

import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from manyhead.encoder.source import locate_encoder, weight_files


def main() -> None:
    """Copies and rounds."""
    source, target = locate_encoder("embedded", None).folder, Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    for path in weight_files(source):
        tensors |= load_file(path)
    halves = {name: each.bfloat16() if each.is_floating_point() else each for name, each in tensors.items()}
    save_file(halves, target / "model.safetensors", metadata={"format": "pt"})
    for path in [*source.glob("*.json"), *source.glob("*.txt")]:
        if not path.name.endswith(".index.json"):
            shutil.copy(path, target)
    print(f"{target}: {sum(path.stat().st_size for path in target.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
