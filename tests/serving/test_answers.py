"""Answers of the server are those of the model, bit for bit, whoever else asks at the time."""

import asyncio
import dataclasses
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from live import Live

from manyhead.inference.mixed import MixedReader, Question
from manyhead.inference.predictor import Model
from tiny import sample_texts

TEXTS = ["a good film", "dull", "", "the meal was cold and the room was loud " * 9, "emoji 😀 and \u202e marks"]
PAIRS = [["how do I boil an egg", "boiling eggs"], ["", "x"], ["same", "same"], ["long " * 60, "short"]]


def expected(model: Model, task: str, texts: Any) -> list[dict[str, Any]]:
    return [dataclasses.asdict(each) for each in model.predict(task, texts)]


@pytest.mark.parametrize(("task", "texts"), [("reviews", TEXTS), ("questions", PAIRS), ("sentences", PAIRS)])
def test_one_task_answers_as_the_model_does(shared: Live, model: Model, task: str, texts: Any) -> None:
    found = shared.post(f"/v1/predict/{task}", {"texts": texts})
    assert found.status_code == 200
    assert found.json()["task"] == task
    assert found.json()["predictions"] == expected(model, task, texts)
    timing = found.json()["timing"]
    assert 0 <= timing["model_ms"] <= timing["total_ms"]


def test_all_fitting_tasks_answer_at_once_and_some_where_they_are_named(shared: Live, model: Model) -> None:
    both = {name: expected(model, name, PAIRS) for name in ("questions", "sentences")}
    assert shared.post("/v1/predict", {"texts": PAIRS}).json()["predictions"] == both
    found = shared.post("/v1/predict", {"texts": PAIRS, "tasks": ["sentences", "sentences"]}).json()
    assert found["predictions"] == {"sentences": both["sentences"]}
    assert list(shared.post("/v1/predict", {"texts": TEXTS}).json()["predictions"]) == ["reviews"]


def test_vectors_are_the_models(shared: Live, model: Model) -> None:
    found = shared.post("/v1/embed", {"texts": TEXTS}).json()
    assert np.array_equal(np.array(found["embeddings"], np.float32), model.embed(TEXTS))
    assert found["truncated"] == [False, False, False, True, False]


def test_an_empty_list_gets_empty_lists(shared: Live) -> None:
    assert shared.post("/v1/predict/sentences", {"texts": []}).json()["predictions"] == []
    assert shared.post("/v1/embed", {"texts": []}).json()["embeddings"] == []
    found = shared.post("/v1/predict", {"texts": []}).json()
    assert found["predictions"] == {"reviews": [], "questions": [], "sentences": []}


def test_a_lone_surrogate_is_read_as_everywhere(shared: Live, model: Model) -> None:
    body = b'{"texts": ["half \\ud800 a pair"]}'
    found = shared.post_bytes("/v1/predict/reviews", body)
    assert found.json()["predictions"] == expected(model, "reviews", ["half \ud800 a pair"])


def test_many_clients_and_tasks_at_once_get_the_bits_they_would_get_alone(shared: Live, model: Model) -> None:
    draw = random.Random(5)
    texts = sample_texts()
    asked: list[tuple[str, Any]] = []
    for _ in range(60):
        n = draw.choice([1, 1, 2, 16, 40])
        singles = draw.sample(texts, n)
        pairs = [list(pair) for pair in zip(singles, reversed(singles), strict=True)]
        task = draw.choice(["reviews", "questions", "sentences"])
        asked.append((task, singles if task == "reviews" else pairs))

    async def ask() -> list[Any]:
        async with httpx.AsyncClient(base_url=shared.url, timeout=60) as client:
            answers = (client.post(f"/v1/predict/{task}", json={"texts": rows}) for task, rows in asked)
            return [each.json()["predictions"] for each in await asyncio.gather(*answers)]

    before = shared.metric("batches_total")
    found = asyncio.run(ask())
    for (task, rows), predictions in zip(asked, found, strict=True):
        assert predictions == expected(model, task, rows)
    assert shared.metric("batches_total") - before < len(asked), "they should have met"


def test_a_request_in_pieces_and_very_long_texts_are_predicted_as_one(shared: Live, model: Model) -> None:
    texts = [f"{number} {text}" for number, text in enumerate(sample_texts()[:700])]
    texts[3], texts[500] = "word " * 20_000, "a" * 100_000
    before = shared.metric("batches_total")
    found = shared.post("/v1/predict/reviews", {"texts": texts}).json()["predictions"]
    assert found == expected(model, "reviews", texts)
    assert shared.metric("batches_total") - before > 1


def test_equal_texts_are_encoded_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, rows = MixedReader(model), 0
    encode = model.frozen.vectors

    def counted(batch: Any) -> Any:
        nonlocal rows
        rows += len(batch.lengths)
        return encode(batch)

    monkeypatch.setattr(model.frozen, "vectors", counted)
    reader.encode(
        [
            Question([("a good film",), ("dull",)], ("reviews",)),
            Question([("dull", "a good film")], ("sentences",)),
            Question([("dull",)], vectors_of=""),
        ]
    )
    assert rows == 2


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_question_in_parts_gets_the_answer_of_the_whole(model: Model, at: int) -> None:
    reader = MixedReader(model)
    question = Question([tuple(pair) for pair in PAIRS], ("questions", "sentences"))
    some = [replace(question, rows=question.rows[:at]), replace(question, rows=question.rows[at:])]
    reply = reader.reply(question, reader.encode(some))
    for task in question.tasks:
        predictions, truncated = model.predict_arrays(task, PAIRS)
        assert np.array_equal(reply.predictions[task].values, predictions.values)
        assert reply.truncated[task].tolist() == truncated.tolist()


def test_the_model_is_described(shared: Live, run: Path) -> None:
    found = shared.get("/v1/tasks").json()
    assert [(task["name"], task["kind"], len(task["texts"])) for task in found["tasks"]] == [
        ("reviews", "classification", 1),
        ("questions", "classification", 2),
        ("sentences", "regression", 2),
    ]
    assert found["tasks"][0]["labels"] == ["awful", "poor", "mixed", "good", "excellent"]
    assert found["tasks"][2]["range"] == [0, 5]
    assert 0 <= found["tasks"][0]["interval"][0] <= found["tasks"][0]["score"] <= found["tasks"][0]["interval"][1]
    assert found["max_tokens"] == 40
    assert len(found["model_id"]) == 64


def test_dev_rows_are_shown_of_a_run(shared: Live) -> None:
    for task, width in (("reviews", 1), ("questions", 2), ("sentences", 2)):
        found = shared.get(f"/v1/examples?task={task}").json()["examples"]
        assert len(found) == 12
        assert all(len(each["texts"]) == width for each in found)
    names = {each["target"] for each in shared.get("/v1/examples?task=questions").json()["examples"]}
    assert names == {"different", "same"}


def test_the_page_comes_with_its_policy_and_needs_no_other_server(shared: Live) -> None:
    found = shared.get("/")
    assert found.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in found.headers["content-security-policy"]
    for path in ("/docs", "/redoc", "/page/", "/page/../app.py", "/page/%2e%2e/app.py"):
        assert shared.get(path).status_code == 404
