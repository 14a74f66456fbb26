"""The plain way to serve three tasks: FastAPI, and a text-classification pipeline of transformers for each task.

    python benchmarks/serving_sides/plain.py WIDTHS

WIDTHS is JSON, task to [classes, texts]. The encoder is the embedded one under new heads: what they predict is of no
use, the arithmetic is that of trained ones. Prints its address once it listens.
"""

import json
import socket
import sys
from typing import Any

import transformers
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from manyhead.encoder.source import locate_encoder

BATCH = 32
MAX_TOKENS = 128


class Body(BaseModel):
    """Texts, or pairs."""

    texts: list[str] | list[tuple[str, str]]


def main() -> None:
    """Serves until it is ended."""
    transformers.logging.set_verbosity_error()
    folder = locate_encoder("embedded", None).folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pipelines: dict[str, Any] = {}
    for task, (classes, _) in json.loads(sys.argv[1]).items():
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=classes)
        pipelines[task] = transformers.pipeline(
            "text-classification", model=model, tokenizer=tokenizer, device="cpu", batch_size=BATCH
        )
    app = FastAPI()

    @app.post("/v1/predict/{task}")
    def predict(task: str, body: Body) -> list[Any]:
        rows = [row if isinstance(row, str) else {"text": row[0], "text_pair": row[1]} for row in body.texts]
        return pipelines[task](rows, truncation=True, max_length=MAX_TOKENS, top_k=None)

    listener = socket.create_server(("127.0.0.1", 0))
    print(json.dumps({"address": f"http://127.0.0.1:{listener.getsockname()[1]}"}), flush=True)
    uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="error")).run([listener])


if __name__ == "__main__":
    main()
