"""ONNX exports: the padded network is the model, and onnxruntime alone says what the model says."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from export_makers import FAMILIES, exported, family_encoder, saved_model
from tokenizers import Tokenizer
from torch import nn

from manyhead.build import train
from manyhead.cli.export import export_stored
from manyhead.cli.stored import find_model
from manyhead.errors import UsageError
from manyhead.export import onnx_graph
from manyhead.export.check import Parity
from manyhead.export.onnx import INT8_TOLERANCE, finish, network_of, padding_tokenizer, write
from manyhead.export.onnx_network import PaddedNetwork
from manyhead.export.source import Source, expected_outputs
from manyhead.export.texts import own_texts
from manyhead.inference.predictor import Model
from manyhead.recipe.load import load_recipe
from tiny import tiny_recipe

TASKS: dict[str, Any] = {
    "questions": {"loss": {"kind": "bce", "threshold": "fitted"}},
    "sentences": {"head": {"kind": "blend", "scale": 5.0}, "loss": "mse"},
}
OPTIONS: dict[str, dict[str, Any]] = {
    **{pooling: {"pooling": pooling} for pooling in ("cls", "pooler", "mean", "max", "attention", "conv")},
    "layer 1": {"layer": 1},
    "embeddings": {"layer": 0},
    "layer 1, by attention": {"layer": 1, "pooling": "attention"},
    "sandwich": {"sandwich_norm": True},
    "projections": {"projections": ["dense", {"kind": "mlp", "width": 8}]},
    "one segment": {"segment_ids": False},
    "low rank": {"experts": {"kind": "low_rank", "rank": 4}},
    "PAL on top": {"experts": {"kind": "pal_top", "width": 4, "heads": 2}},
    "six PALs on top": {"experts": {"kind": "pal_top", "width": 4, "heads": 2, "variant": "stickland"}},
    "PALs beside": {"experts": {"kind": "pal_parallel", "width": 4, "heads": 2}},
    "copies": {"experts": "copies"},
}
HEADS: dict[str, dict[str, Any]] = {
    "related": {"sentences": {"pairing": "concat", "head": {"kind": "related", "to": "questions"}, "loss": "mse"}},
    "expected score": {"sentences": {"pairing": "concat", "head": "mlp", "loss": "score_cross_entropy"}},
    "siamese": {
        "questions": {"pairing": "siamese", "head": {"kind": "linear", "features": "uv"}},
        "sentences": {"head": "cosine", "loss": "cosine_mse"},
    },
    "cosines": {
        "questions": {"pairing": "siamese", "head": "cosine", "loss": "mnr"},
        "sentences": {"head": {"kind": "cosine", "mlp": 8}, "loss": "cosine_mse"},
    },
}
PROGRAM = """
import importlib.abc, re, sys
class Barred(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("manyhead", "torch", "transformers", "onnx"):
            raise ImportError(name)
sys.meta_path.insert(0, Barred())
for program in re.findall(r"```python\\n(.*?)```", open("README.md", encoding="utf-8").read(), re.DOTALL):
    exec(program)
"""


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return family_encoder(tmp_path_factory.mktemp("bert") / "encoder", "bert")


@pytest.fixture(scope="module")
def model(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(
        tmp_path_factory.mktemp("model") / "model",
        bert,
        tasks=TASKS,
        temperatures={"reviews": 1.7, "questions": 0.6},
        thresholds={"questions": 0.4},
    )


@pytest.fixture(scope="module")
def folder(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a model with heads of all kinds."""
    found = exported(model, "onnx", tmp_path_factory.mktemp("onnx") / "out")
    assert [each.name for each in found.parity] == ["reviews", "questions", "sentences"]
    for each in found.parity:
        assert each.difference < 1e-5
        assert each.same_labels in (None, each.texts)
    return found.folder


def source_of(model: Path) -> Source:
    loaded = Model.load(model, device="cpu", precision="fp32", threads=1)
    return Source(loaded, model, tuple(loaded.tasks), {name: own_texts(task) for name, task in loaded.tasks.items()})


def padded_inputs(source: Source, task: str, more: int = 0) -> dict[str, torch.Tensor]:
    """What the program in the page gives the graph; with ``more`` columns of padding that hold anything."""
    apart = source.model.tasks[task].sequences_per_example == 2
    texts = source.texts[task]
    rows: list[Any] = [text for pair in texts for text in pair] if apart or len(texts[0]) == 1 else list(texts)
    tokens = Tokenizer.from_str(padding_tokenizer(source)).encode_batch(rows)
    ids, mask, types = (
        torch.tensor([getattr(each, name) for each in tokens]) for name in ("ids", "attention_mask", "type_ids")
    )
    odd = torch.arange(len(ids) * more).reshape(len(ids), more)
    found = {
        "input_ids": torch.cat([ids, 5 + odd % 50], 1),
        "attention_mask": torch.cat([mask, odd * 0], 1),
        "token_type_ids": torch.cat([types, odd % 2], 1),
    }
    return {**found, "pairs": torch.arange(len(rows)).reshape(-1, 2)} if apart else found


def padded_outputs(source: Source, task: str, more: int = 0) -> Any:
    network = network_of(source, [task])
    with network.exporting():
        return network(**padded_inputs(source, task, more))[-1].reshape(len(source.texts[task]), -1).numpy()


@pytest.mark.parametrize("options", OPTIONS)
def test_the_padded_network_is_the_model(bert: Path, tmp_path: Path, options: str) -> None:
    source = source_of(saved_model(tmp_path / "model", bert, encoder_options=OPTIONS[options], tasks=TASKS))
    before = {task: expected_outputs(source, task) for task in source.tasks}
    for task, expected in before.items():
        np.testing.assert_allclose(padded_outputs(source, task), expected, rtol=1e-5, atol=1e-5)
    # The model itself is as it was.
    for task, expected in before.items():
        np.testing.assert_array_equal(expected_outputs(source, task), expected)


@pytest.mark.parametrize("heads", HEADS)
def test_the_padded_network_is_the_model_with_other_heads(bert: Path, tmp_path: Path, heads: str) -> None:
    source = source_of(saved_model(tmp_path / "model", bert, tasks=HEADS[heads]))
    for task in source.tasks:
        np.testing.assert_allclose(padded_outputs(source, task), expected_outputs(source, task), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_padded_network_is_the_model_in_other_families(tmp_path: Path, family: str) -> None:
    source = source_of(saved_model(tmp_path / "model", family_encoder(tmp_path / "encoder", family)))
    for task in source.tasks:
        np.testing.assert_allclose(padded_outputs(source, task), expected_outputs(source, task), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", ["cls", "mean", "max", "attention", "conv", "PALs beside"])
def test_padding_has_no_influence(bert: Path, tmp_path: Path, options: str) -> None:
    source = source_of(saved_model(tmp_path / "model", bert, encoder_options=OPTIONS[options]))
    for task in source.tasks:
        np.testing.assert_allclose(padded_outputs(source, task, 17), padded_outputs(source, task), rtol=1e-5, atol=1e-6)


def test_the_program_of_the_page_needs_neither_manyhead_nor_torch(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "tokenizer.json", "tasks.json", "README.md"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(set(eval(line, {"np": np})) == {"awful", "poor", "mixed", "good", "excellent"} for line in lines)


def test_the_graph_takes_any_batch_and_any_length(folder: Path, model: Path) -> None:
    graph = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    network = network_of(source_of(model), ["reviews", "questions", "sentences"])
    generator = torch.Generator().manual_seed(0)
    names = ["embedding", "reviews", "questions", "sentences"]
    assert [each.name for each in graph.get_outputs()] == names
    for rows, length, pairs in ((1, 1, 0), (1, 9, 1), (7, 1, 3), (3, 40, 5)):
        ids = torch.randint(5, 300, (rows, length), generator=generator)
        mask = (torch.arange(length) < torch.randint(1, length + 1, (rows, 1), generator=generator)).long()
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": ids % 2,
            "pairs": torch.randint(rows, (pairs, 2), generator=generator),
        }
        with network.exporting():
            expected = network(**inputs)
        found = graph.run(names, {name: each.numpy() for name, each in inputs.items()})
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(np.asarray(one), other.numpy(), rtol=1e-5, atol=1e-5)


def test_the_page_and_the_facts_say_how_it_compared(folder: Path) -> None:
    about = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
    assert about["tasks"]["questions"]["labels"] == ["different", "same"]
    assert about["tasks"]["questions"]["cells"] == [0, 1]
    assert about["tasks"]["sentences"]["sequences"] == 2
    assert all(each["ok"] for each in about["compared"].values())
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert "| reviews | a text | probabilities of awful, poor, mixed, good, excellent | model.onnx | reviews |" in page
    assert "has not been compared" not in page


def test_nothing_of_this_machine_is_in_the_graph(folder: Path) -> None:
    content = (folder / "model.onnx").read_bytes()
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    for word in (b".py", b"manyhead", b"site-packages", b"stack_trace"):
        assert word not in content


def test_int8_is_for_the_encoders_matrices_alone(folder: Path, model: Path, tmp_path: Path) -> None:
    onnx_graph.quantise(folder / "model.onnx", tmp_path / "one.onnx")
    onnx_graph.quantise(folder / "model.onnx", tmp_path / "other.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "other.onnx").read_bytes()
    nodes = onnx.load(str(tmp_path / "one.onnx")).graph.node
    whole = [node.name for node in nodes if node.op_type == "MatMulInteger"]
    assert len(whole) == 12
    assert all(name.startswith("encoder/") for name in whole)
    source = source_of(model)
    for task in source.tasks:
        inputs = {name: each.numpy() for name, each in padded_inputs(source, task).items()}
        inputs.setdefault("pairs", np.zeros((0, 2), np.int64))
        found: Any = onnxruntime.InferenceSession(str(tmp_path / "one.onnx")).run([task], inputs)[0]
        expected = expected_outputs(source, task)
        difference = np.abs(np.asarray(found).reshape(expected.shape) - expected).max()
        assert 0 < difference < 0.1


def test_scores_that_int8_changes_are_told(folder: Path, tmp_path: Path) -> None:
    about = {**json.loads((folder / "tasks.json").read_text(encoding="utf-8")), "precision": "int8"}
    parity = [
        Parity("reviews", 9, 0.1, 8, None, "accuracy", (0.5, 0.5 + 2 * INT8_TOLERANCE)),
        Parity("questions", 9, 0.1, 8, None, "accuracy", (0.5, 0.5 + INT8_TOLERANCE / 2)),
        Parity("sentences", 9, 0.1, None, None),
    ]
    warnings = finish(about, tmp_path, parity)
    assert len(warnings) == 2
    assert "dev score of sentences is not known" in warnings[0]
    assert "reviews: its dev accuracy is 0.5060 in int8 and 0.5000 in fp32" in warnings[1]
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| reviews | 9 | 1.0e-01 | 8 of 9 | accuracy | 0.5000 | 0.5060 |" in page
    assert all(warning in page for warning in warnings)


def test_tasks_may_have_the_names_of_inputs(bert: Path, tmp_path: Path) -> None:
    source = source_of(saved_model(tmp_path / "model", bert))
    siamese = {"embedding": False, "pairs": True, "reviews": False}
    network = PaddedNetwork(source.network, source.model.objectives, siamese, segments=True)
    assert network.outputs == {"embedding": "task.embedding", "pairs": "task.pairs", "reviews": "reviews"}


def test_parts_that_cannot_be_written_are_named(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(saved_model(tmp_path / "model", bert))
    monkeypatch.setattr(onnx_graph, "LARGEST_BYTES", 100)
    with pytest.raises(UsageError, match=r"encoder\.checkpoint: bert: its .* bytes of weights are more than the 100"):
        write(source, tmp_path)
    source.network.pooling = nn.Identity()
    with pytest.raises(UsageError, match=r"encoder\.pooling: Identity: it has no form for padded batches"):
        write(source, tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"--to onnx needs onnx; run pip install 'manyhead\[export\]'"):
        write(source, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_are_exported(tmp_path: Path, family: str) -> None:
    model = saved_model(tmp_path / "model", family_encoder(tmp_path / "encoder", family))
    assert all(each.ok for each in exported(model, "onnx", tmp_path / "out").parity)


@pytest.mark.slow
@pytest.mark.parametrize("options", [name for name in OPTIONS if name not in ("mean", "cls", "pooler", "max")])
def test_other_models_are_exported(bert: Path, tmp_path: Path, options: str) -> None:
    model = saved_model(tmp_path / "model", bert, encoder_options=OPTIONS[options], tasks=TASKS)
    found = exported(model, "onnx", tmp_path / "out")
    assert all(each.ok for each in found.parity)
    has_experts = "experts" in OPTIONS[options]
    graphs = {path.name for path in found.folder.glob("*.onnx")}
    assert graphs == ({f"{each.name}.onnx" for each in found.parity} if has_experts else {"model.onnx"})


@pytest.mark.slow
@pytest.mark.parametrize("heads", HEADS)
def test_other_heads_are_exported(bert: Path, tmp_path: Path, heads: str) -> None:
    model = saved_model(tmp_path / "model", bert, tasks=HEADS[heads])
    assert all(each.ok for each in exported(model, "onnx", tmp_path / "out").parity)


@pytest.mark.slow
def test_int8_of_a_run_is_judged_by_its_dev_scores(bert: Path, tmp_path: Path) -> None:
    run = train(load_recipe(tiny_recipe(bert)), out=tmp_path / "run").path
    found = export_stored(find_model(str(run)), "onnx-int8", out=tmp_path / "out", rows=1)
    document = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    for each in found.parity:
        assert each.texts >= 12 + len(own_texts(Model.load(run).tasks[each.name]))
        assert each.scores is not None
        assert each.scores[0] == pytest.approx(document["dev"]["tasks"][each.name][each.metric], abs=1e-6)
        said = [warning for warning in found.warnings if warning.startswith(f"{each.name}:")]
        assert bool(said) == (abs(each.scores[1] - each.scores[0]) > INT8_TOLERANCE)


@pytest.mark.slow
def test_the_same_model_gives_the_same_bytes_in_another_process(folder: Path, model: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "manyhead",
            "export",
            str(model),
            "--to",
            "onnx",
            "--out",
            str(tmp_path / "out"),
            "--json",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["warnings"] == []
    for path in folder.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name
