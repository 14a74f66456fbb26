"""Loads an encoder and an adapter by PEFT; the mean of each text's states."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModel, AutoTokenizer


def read(job: dict[str, Any]) -> list[list[float]]:
    """A vector for each text."""
    base = str((Path(job["folder"]) / job["base"]).resolve())
    tokenizer = AutoTokenizer.from_pretrained(base)
    model: Any = PeftModel.from_pretrained(AutoModel.from_pretrained(base), job["folder"]).eval()
    rows: list[list[float]] = []
    for text in job["texts"]:
        # In lists: a pair with an empty second text would be a single text otherwise.
        batch = tokenizer(*[[each] for each in text], truncation=True, return_tensors="pt")
        with torch.inference_mode():
            rows.append(model(**batch).last_hidden_state[0].mean(0).tolist())
    return rows


jobs = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
Path(sys.argv[2]).write_text(json.dumps([read(job) for job in jobs]), encoding="utf-8")
