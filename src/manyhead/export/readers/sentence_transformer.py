"""Loads folders by ``SentenceTransformer`` and embeds single texts."""

import json
import sys
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer


def read(job: dict[str, Any]) -> list[list[float]]:
    """The vector of each text."""
    model: Any = SentenceTransformer(job["folder"], device="cpu")
    return model.encode([text for (text,) in job["texts"]], show_progress_bar=False).tolist()


jobs = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
Path(sys.argv[2]).write_text(json.dumps([read(job) for job in jobs]), encoding="utf-8")
