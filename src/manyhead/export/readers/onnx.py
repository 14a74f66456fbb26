"""Runs the program in an ONNX export's README.md, without torch: probabilities in order of labels, or scores."""

import json
import sys
from pathlib import Path
from typing import Any

# A module that is None cannot be imported.
for heavy in ("torch", "transformers"):
    sys.modules[heavy] = None  # pyright: ignore[reportArgumentType]

models: dict[str, Any] = {}


def read(job: dict[str, Any]) -> list[list[float]]:
    """A row of numbers for each text."""
    folder = job["folder"]
    if folder not in models:
        shown: dict[str, Any] = {}
        page = Path(folder, "README.md").read_text(encoding="utf-8")
        exec(page.split("```python\n")[1].split("```")[0], shown)  # noqa: S102 -- what our own export shows
        models[folder] = shown["Exported"](folder, threads=job["threads"])
    texts = [tuple(text) if len(text) == 2 else text[0] for text in job["texts"]]
    return models[folder].run(job["task"], texts).reshape(len(texts), -1).tolist()


jobs = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
Path(sys.argv[2]).write_text(json.dumps([read(job) for job in jobs]), encoding="utf-8")
