"""A model as a folder that onnxruntime and tokenizers run: graphs, tokenizer.json, tasks.json and a page about them."""

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from manyhead.export.onnx_graph import write_graph, write_int8
from manyhead.export.onnx_network import EMBEDDING, INPUTS, PAIRS, PaddedNetwork, names_of
from manyhead.files import write_json, writing
from manyhead.inference.model_folder import StoredModel
from manyhead.model import build_objective

ABOUT, TOKENIZER = "tasks.json", "tokenizer.json"
FORMAT = 1
"""Version of what tasks.json holds."""


def write_onnx(stored: StoredModel, folder: Path, *, int8: bool = False) -> dict[str, Any]:
    """Writes graphs, tokenizer and tasks.json into the existing ``folder``; returns what tasks.json holds.

    All tasks share one graph; where the model has experts, each has its own. Raises `UsageError` where a part of the
    model cannot be written, `WriteError` where the disk takes it not.
    """
    graphs: dict[str, dict[str, Any]] = {}
    tasks: dict[str, dict[str, Any]] = {}
    for file, names in _graphs_of(stored).items():
        network = _network(stored, names)
        with writing(str(folder)):
            _write(network, folder / file, int8=int8)
        takes_pairs = any(network.siamese.values())
        graphs[file] = {
            "inputs": [*INPUTS, *([PAIRS] if takes_pairs else [])],
            "outputs": [EMBEDDING, *names_of(names).values()],
        }
        for name, output in names_of(names).items():
            tasks[name] = {"graph": file, "output": output, "takes_pairs": takes_pairs, **_facts(stored, name)}
    about = {
        "format": FORMAT,
        "written_by": f"manyhead {metadata.version('manyhead')}",
        "model": stored.recipe.name,
        "precision": "int8" if int8 else "fp32",
        "max_tokens": stored.recipe.encoder.max_tokens,
        "embedding": {"output": EMBEDDING, "width": stored.model.width},
        "graphs": graphs,
        "tasks": {name: tasks[name] for name in stored.recipe.tasks},
    }
    with writing(str(folder)):
        (folder / TOKENIZER).write_text(_tokenizer(stored), encoding="utf-8")
        write_json(folder / ABOUT, about)
    return about


def _graphs_of(stored: StoredModel) -> dict[str, list[str]]:
    names = list(stored.recipe.tasks)
    return {f"{name}.onnx": [name] for name in names} if stored.model.routed else {"model.onnx": names}


def _network(stored: StoredModel, names: list[str]) -> PaddedNetwork:
    recipe = stored.recipe
    return PaddedNetwork(
        stored.model,
        {name: build_objective(recipe.tasks[name], stored.tables) for name in names},
        {name: recipe.tasks[name].sequences_per_example == 2 for name in names},
        segments=recipe.encoder.segment_ids,
    )


def _write(network: PaddedNetwork, path: Path, *, int8: bool) -> None:
    if not int8:
        write_graph(network, path)
        return
    exact = path.with_suffix(".fp32.onnx")
    try:
        write_graph(network, exact)
        write_int8(exact, path)
    finally:
        exact.unlink(missing_ok=True)


def _facts(stored: StoredModel, name: str) -> Mapping[str, Any]:
    """What a program has to know of a task to give it texts and to read its output."""
    task = stored.recipe.tasks[name]
    facts: dict[str, Any] = {
        "kind": task.kind,
        "texts": len(task.text),
        "sequences": task.sequences_per_example,
        "metric": task.metric,
    }
    if task.kind == "classification":
        return {**facts, "labels": task.label_names, "cells": task.label_cells}
    return {**facts, "range": None if task.range is None else list(task.range)}


def _tokenizer(stored: StoredModel) -> str:
    """The tokenizer, cutting and padding as the graph wants it."""
    from manyhead.data.tokens import plain_copy

    tokenizer = plain_copy(stored.tokenizer)
    tokenizer.enable_truncation(stored.recipe.encoder.max_tokens, strategy="longest_first", direction="right")
    encoder: Any = _network(stored, list(stored.recipe.tasks)[:1]).encoder
    padding = int(encoder.model.config.pad_token_id or 0)
    tokenizer.enable_padding(pad_id=padding, pad_token=tokenizer.id_to_token(padding) or "[PAD]")
    return json.dumps(json.loads(tokenizer.to_str()), indent=2, ensure_ascii=False) + "\n"
