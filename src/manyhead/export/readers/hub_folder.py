"""Loads a folder by ``Model.load``: probabilities, or scores. The one reader that is manyhead's own."""

import json
import sys
from pathlib import Path
from typing import Any

from manyhead.inference.predictor import Model


def read(job: dict[str, Any]) -> list[list[float]]:
    """A row of numbers for each text."""
    model = Model.load(job["folder"], device="cpu", precision="fp32", plugins=job["plugins"])
    found = model.predict(job["task"], [tuple(text) for text in job["texts"]])
    return [[each.score or 0.0] if each.probabilities is None else [*each.probabilities.values()] for each in found]


jobs = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
Path(sys.argv[2]).write_text(json.dumps([read(job) for job in jobs]), encoding="utf-8")
