"""All heads as one ONNX graph, which onnxruntime and tokenizers run: in fp32, or with the encoder in 8 bits.

A folder holds the graph, tokenizer.json, tasks.json, and README.md with a program that reads them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from manyhead.data.tokens import plain_copy
from manyhead.evaluation.metrics import METRICS, Array
from manyhead.evidence.predictions import predictions_path, read_predictions
from manyhead.export.check import Parity
from manyhead.export.onnx_graph import quantise, write_graph
from manyhead.export.onnx_network import EMBEDDING, PaddedNetwork
from manyhead.export.onnx_page import page_of
from manyhead.export.source import TOLERANCE, Export, Source, Texts, Written, expected_outputs, require
from manyhead.export.texts import own_texts
from manyhead.files import write_json, write_text
from manyhead.recipe.schema import Task

ABOUT, PAGE, TOKENIZER = "tasks.json", "README.md", "tokenizer.json"
FORMAT = 1
"""Version of what tasks.json holds."""

INT8_TOLERANCE = 0.003
"""How far a task's dev score in 8 bits may be from that in fp32 before the export says so."""

_READER = "onnx.py"


def write(source: Source, folder: Path) -> Export:
    """The graph in fp32. Raises `NoCounterpartError` where a part of the model cannot be written."""
    return _write(source, folder, int8=False)


def write_int8(source: Source, folder: Path) -> Export:
    """The graph with the encoder in 8 bits, which is compared by all dev rows that the run scored, where it did."""
    return _write(source, folder, int8=True)


def _write(source: Source, folder: Path, *, int8: bool) -> Export:
    for module in ("onnx", "onnxscript", "onnxruntime"):
        require(module, module, "--to onnx-int8" if int8 else "--to onnx")
    tasks: dict[str, dict[str, Any]] = {}
    for file, names in _graphs_of(source).items():
        network = network_of(source, names)
        _write_graph(network, folder / file, int8=int8)
        for name in names:
            tasks[name] = {
                "graph": file,
                "output": network.outputs[name],
                "takes_pairs": network.takes_pairs,
                **_facts(source.model.tasks[name]),
            }
    about = {
        "format": FORMAT,
        "written_by": f"manyhead {metadata.version('manyhead')}",
        "model": source.model.recipe.name,
        "precision": "int8" if int8 else "fp32",
        "max_tokens": source.model.recipe.encoder.max_tokens,
        "embedding": {"output": EMBEDDING, "width": source.network.width},
        "tasks": {name: tasks[name] for name in source.tasks},
    }
    write_text(folder / TOKENIZER, padding_tokenizer(source))
    write_json(folder / ABOUT, about)
    write_text(folder / PAGE, page_of(about))
    written = [(_written_int8 if int8 else _written)(source, name) for name in source.tasks]
    return Export(written, finish=partial(finish, about))


def _graphs_of(source: Source) -> dict[str, list[str]]:
    """File to tasks: where the model has experts, each task reads with an encoder of its own."""
    names = list(source.tasks)
    return {f"{name}.onnx": [name] for name in names} if source.network.routed else {"model.onnx": names}


def network_of(source: Source, names: Sequence[str]) -> PaddedNetwork:
    """The network of some tasks, which must read by the same encoder. Raises `NoCounterpartError`."""
    model = source.model
    siamese = {name: model.tasks[name].sequences_per_example == 2 for name in names}
    return PaddedNetwork(source.network, model.objectives, siamese, segments=model.recipe.encoder.segment_ids)


def _write_graph(network: PaddedNetwork, path: Path, *, int8: bool) -> None:
    if not int8:
        write_graph(network, path)
        return
    exact = path.with_suffix(".fp32")
    try:
        write_graph(network, exact)
        quantise(exact, path)
    finally:
        exact.unlink(missing_ok=True)


def _facts(task: Task) -> Mapping[str, Any]:
    """What a program has to know of a task to give it texts and to read its output."""
    facts: dict[str, Any] = {"kind": task.kind, "texts": len(task.text), "sequences": task.sequences_per_example}
    if task.kind == "classification":
        return {**facts, "labels": task.label_names, "cells": task.label_cells}
    return {**facts, "range": None if task.range is None else list(task.range)}


def padding_tokenizer(source: Source) -> str:
    """The tokenizer, cutting and padding as the graph wants it."""
    tokenizer = plain_copy(source.model.tokenizer)
    tokenizer.enable_truncation(source.model.recipe.encoder.max_tokens, strategy="longest_first", direction="right")
    config: Any = network_of(source, source.tasks[:1]).encoder.model.config
    padding = int(config.pad_token_id or 0)
    tokenizer.enable_padding(pad_id=padding, pad_token=tokenizer.id_to_token(padding) or "[PAD]")
    return json.dumps(json.loads(tokenizer.to_str()), indent=2, ensure_ascii=False) + "\n"


def _written(source: Source, name: str) -> Written:
    return Written(
        name,
        ".",
        _READER,
        source.texts[name],
        expected_outputs(source, name),
        classes=source.model.tasks[name].kind == "classification",
        options={"threads": torch.get_num_threads()},
        tolerance=TOLERANCE,
    )


def _written_int8(source: Source, name: str) -> Written:
    """What is told, but never wrong: 8 bits are judged by the score, which takes all dev rows."""
    found, task = replace(_written(source, name), tolerance=None), source.model.tasks[name]
    own = own_texts(task)
    dev = _dev_rows(source, name) if len(source.texts[name]) > len(own) else None  # else no dev rows are to be compared
    if dev is None:
        return found
    texts, targets = dev
    every = [*texts, *own]
    known = replace(source, texts={**source.texts, name: every})
    return replace(
        found, texts=every, expected=expected_outputs(known, name), metric=task.metric, score=_score(task, targets)
    )


def _dev_rows(source: Source, name: str) -> tuple[Texts, Array] | None:
    """Texts and targets of the dev rows that the run scored; None where it has none, or kept no texts."""
    if not predictions_path(source.folder, name).is_file():
        return None
    scored = read_predictions(source.folder, name, source.model.tasks[name])
    return (scored.texts, scored.targets) if scored.texts else None


def _score(task: Task, targets: Array) -> Callable[[Array], float]:
    """The task's own metric of outputs (E, O), of which those of the dev rows come first."""
    metric = METRICS[task.metric]
    extra = (task.range,) if metric.takes_range and task.range is not None else ()

    def score(outputs: Array) -> float:
        own = outputs[: len(targets)]
        return metric.function(own.argmax(1) if task.kind == "classification" else own[:, 0], targets, *extra)

    return score


def finish(about: Mapping[str, Any], folder: Path, parity: Sequence[Parity]) -> list[str]:
    """Writes what was found into the export; returns what is to be said of it."""
    whole = {**about, "compared": {each.name: each.as_dict() for each in parity}}
    write_json(folder / ABOUT, whole)
    warnings = _int8_warnings(parity) if about["precision"] == "int8" else []
    write_text(folder / PAGE, page_of(about, parity, warnings))
    return warnings


def _int8_warnings(parity: Sequence[Parity]) -> list[str]:
    """What is to be said of scores that are not those of fp32, or that are not known."""
    found: list[str] = []
    if unknown := [each.name for each in parity if each.scores is None]:
        found.append(
            f"what int8 does to the dev score of {', '.join(unknown)} is not known: no dev rows with texts and targets "
            "are at hand; expected a run folder with predictions; name one, or score the export on rows of your own"
        )
    for each in parity:
        if each.scores is not None and abs(each.scores[1] - each.scores[0]) > INT8_TOLERANCE:
            before, after = each.scores
            found.append(
                f"{each.name}: its dev {each.metric} is {after:.4f} in int8 and {before:.4f} in fp32; expected them "
                f"within {INT8_TOLERANCE}; use --to onnx where that matters"
            )
    return found
