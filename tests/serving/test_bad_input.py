"""What is wrong with a request is said in JSON: never a 500, never what was sent."""

import json
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live import Live, answer_of, live, post_bytes

DEEP = b'{"texts":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
SECRET = "planted-words-of-the-client"

BAD_BODIES = [
    (b"", 400, "json"),
    (b"{", 400, "json"),
    (b"\xff\xfe{", 400, "encoding"),
    (b'{"texts": ["\xc3\x28"]}', 400, "encoding"),
    (b'{"texts": NaN}', 400, "json"),
    (b'{"texts": ["a"], "x": -Infinity}', 400, "json"),
    (b'{"texts": [1e999]}', 400, "json"),
    (b'{"texts": [' + b"9" * 5000 + b"]}", 400, "json"),
    (DEEP, 400, "json"),
    (b'{"texts": ["a"], "texts": ["b"]}', 400, "json"),
    (b'\xef\xbb\xbf{"texts": ["a"]}', 400, "json"),
    (b"[]", 422, "invalid"),
    (b"null", 422, "invalid"),
    (b"{}", 422, "invalid"),
    (b'{"texts": "a"}', 422, "invalid"),
    (b'{"texts": [3]}', 422, "invalid"),
    (b'{"texts": [null]}', 422, "invalid"),
    (b'{"texts": {"0": "a"}}', 422, "invalid"),
    (b'{"texts": ["a", ["b", "c"]]}', 422, "invalid"),
    (b'{"texts": [["a", "b", "c"]]}', 422, "invalid"),
    (b'{"texts": [["a", "b"]]}', 422, "width"),
    (b'{"texts": ["a"], "\\ud800": 1}', 422, "invalid"),
    (b'{"texts": ["a"], "planted-words-of-the-client": 1}', 422, "invalid"),
    (json.dumps({"texts": ["a"] * 10_000}).encode(), 413, "too_many_texts"),
]


def error(found: httpx.Response, status: int, code: str) -> str:
    assert (found.status_code, found.json()["error"]["code"]) == (status, code), found.text
    assert found.headers["content-type"] == "application/json"
    assert found.content.isascii()
    assert SECRET not in found.text
    return found.json()["error"]["message"]


@pytest.mark.parametrize(("body", "status", "code"), BAD_BODIES, ids=lambda each: str(each)[:40])
def test_a_bad_body_is_told_what_is_wrong(shared: Live, body: bytes, status: int, code: str) -> None:
    error(shared.post_bytes("/v1/predict/reviews", body), status, code)


def test_messages_name_the_place_and_what_to_send(shared: Live) -> None:
    assert "texts[2]: expected text" in error(
        shared.post("/v1/predict/reviews", {"texts": ["a", "b", 3]}), 422, "invalid"
    )
    assert 'send {"texts": [["text", "text"], ...]}' in error(
        shared.post("/v1/predict/questions", {"texts": ["a"]}), 422, "width"
    )
    assert "at most 1024" in error(shared.post("/v1/embed", {"texts": ["a"] * 1025}), 413, "too_many_texts")
    for found in (
        shared.post(f"/v1/predict/{SECRET}", {"texts": ["a"]}),
        shared.get(f"/v1/examples?task={SECRET}"),
        shared.post("/v1/predict/%ff%00", {"texts": ["a"]}),
    ):
        assert "reviews, questions, sentences" in error(found, 404, "unknown_task")
    for body in ({"texts": ["a"], "tasks": [SECRET]}, {"texts": ["a"], "tasks": ["reviews", "\ud800"]}):
        found = shared.post_bytes("/v1/predict", json.dumps(body).encode())
        assert "reviews, questions, sentences" in error(found, 422, "unknown_task")
    assert "questions: reads a pair" in error(
        shared.post("/v1/predict", {"texts": ["a"], "tasks": ["questions"]}), 422, "width"
    )


def test_other_paths_methods_types_and_headers(shared: Live) -> None:
    error(shared.get(f"/{SECRET}"), 404, "not_found")
    found = shared.get("/v1/predict")
    error(found, 405, "method")
    assert found.headers["allow"] == "POST"
    error(shared.get("/v1/examples"), 422, "invalid")
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        found = shared.post_bytes("/v1/embed", b'{"texts": ["a"]}', kind)
        error(found, 415, "content_type")
    for value in ("soon", "-1", "0", "nan", ""):
        error(shared.post("/v1/embed", {"texts": ["a"]}, timeout=value), 400, "timeout")
    error(shared.get("/v1/tasks", host="evil.example"), 400, "host")


def test_what_is_not_http_gets_json_too(shared: Live) -> None:
    for data in (b"\x16\x03\x01 hello\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000):
        with shared.raw(data) as connection:
            status, body = answer_of(connection)
        assert (status, body["error"]["code"]) == (400, "http")


def test_a_body_over_the_limit_is_refused_however_it_comes(shared: Live, run: Any) -> None:
    with live(run, max_bytes=1000) as small:
        error(small.post("/v1/embed", {"texts": ["a" * 1000]}), 413, "too_large")

        def chunks() -> Any:
            for _ in range(50):
                yield b"x" * 100

        found = small.post_bytes("/v1/embed", chunks())
        error(found, 413, "too_large")
        # Nothing of the body has been sent: the length alone decides.
        with small.raw(post_bytes("/v1/embed", b"", length=10**12)) as connection:
            status, body = answer_of(connection)
        assert (status, body["error"]["code"]) == (413, "too_large")
        assert small.post("/v1/embed", {"texts": ["a"]}).status_code == 200


ANY_TEXT = st.text(st.characters(codec=None, categories=None), max_size=20)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50)
@given(path=st.sampled_from(["/v1/predict", "/v1/predict/questions", "/v1/embed"]), texts=ANY_JSON, more=ANY_JSON)
def test_no_json_breaks_the_server(shared: Live, path: str, texts: Any, more: Any) -> None:
    body = {"texts": texts, **(more if isinstance(more, dict) else {})}
    found = shared.post_bytes(path, json.dumps(body).encode())
    assert found.status_code in (200, 400, 422)
    assert found.content.isascii()
    assert found.json()
