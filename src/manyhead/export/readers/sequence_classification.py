"""Runs ``transformers.pipeline`` on folders: probabilities in the order of the labels, or scores."""

import json
import sys
from pathlib import Path
from typing import Any

from transformers import pipeline


def read(job: dict[str, Any]) -> list[list[float]]:
    """A row of numbers for each text."""
    # `truncation` cuts texts as the model did; the longest length is in the folder.
    run: Any = pipeline("text-classification", model=job["folder"], device="cpu", top_k=None, truncation=True)
    labels = [run.model.config.id2label[number] for number in range(run.model.config.num_labels)]
    rows: list[list[float]] = []
    for text in job["texts"]:
        given = {"text": text[0], "text_pair": text[1]} if len(text) == 2 else {"text": text[0]}
        found = {each["label"]: each["score"] for each in run(given)}
        rows.append([found[label] for label in labels])
    return rows


jobs = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
Path(sys.argv[2]).write_text(json.dumps([read(job) for job in jobs]), encoding="utf-8")
