"""Overload, slow clients, those who leave, tokens, the end and the reload of a running server."""

import asyncio
import json
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from live import Live, answer_of, live, post_bytes

from manyhead.errors import CheckpointError, UsageError
from manyhead.files import write_manifest
from manyhead.inference.mixed import Question
from manyhead.inference.predictor import Model
from manyhead.serving.auth import check_host, read_token
from manyhead.serving.batching import Work, take
from manyhead.serving.limits import Limits
from manyhead.serving.served import Served, serve_model
from manyhead.serving.server import bind

BODY = json.dumps({"texts": ["a"]}).encode()
TOKEN = "a-token-of-some-length"


class Held:
    """Loads a model whose worker waits wherever `held` is set, so that a queue can be filled."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.free = threading.Event()
        self.free.set()
        self.encoding = threading.Event()

    def load(self) -> Served:
        served = serve_model(self.run, lambda: Model.load(self.run))
        encode = served.reader.encode

        def slow(questions: Any) -> Any:
            self.encoding.set()
            assert self.free.wait(60)
            return encode(questions)

        served.reader.encode = slow
        return served


@pytest.fixture
def held(run: Path) -> Iterator[Held]:
    found = Held(run)
    yield found
    found.free.set()


def in_thread(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    return thread, found


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_full_queue_refuses_before_the_body_comes(held: Held) -> None:
    with live(held.run, load=held.load, queue_tokens=40) as server:
        held.free.clear()
        rows = {"texts": ["some words of a text that is long enough"] * 4}
        thread, found = in_thread(lambda: httpx.post(f"{server.url}/v1/predict/reviews", json=rows, timeout=60))
        assert held.encoding.wait(20)
        # Head and no body: the answer comes all the same.
        with server.raw(post_bytes("/v1/predict/reviews", b"", length=len(BODY))) as connection:
            status, body = answer_of(connection)
            assert (status, body["error"]["code"]) == (429, "busy")
        refused = server.post("/v1/embed", {"texts": ["a"]})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert server.get("/health").status_code == 200
        held.free.set()
        thread.join(30)
        assert found[0].status_code == 200
        until(lambda: server.metric("queue_tokens") == 0)
        assert server.post("/v1/embed", {"texts": ["a"]}).status_code == 200


def test_slow_and_large_bodies_keep_nobody_out(run: Path) -> None:
    with live(run, queue_tokens=400, bodies_bytes=3000) as server:
        slow = [server.raw(post_bytes("/v1/embed", b"{" + b" " * 900, length=2000)) for _ in range(3)]
        until(lambda: server.metric("queue_tokens") == 3)
        assert server.post("/v1/embed", {"texts": ["a"]}).status_code == 200
        # Together they hold no more than their bound: the one that would is refused.
        with server.raw(post_bytes("/v1/embed", b" " * 900, length=2000)) as connection:
            status, body = answer_of(connection)
            assert (status, body["error"]["code"]) == (429, "busy")
        for each in slow:
            each.close()
        until(lambda: server.metric("queue_tokens") == 0)


def test_a_deadline_ends_a_request_and_nothing_of_it_stays(held: Held) -> None:
    with live(held.run, load=held.load) as server:
        held.free.clear()
        began = time.monotonic()
        found = server.post("/v1/predict/reviews", {"texts": ["a"]}, timeout="0.3")
        assert (found.status_code, found.json()["error"]["code"]) == (504, "deadline")
        assert time.monotonic() - began < 10
        held.free.set()
        until(lambda: server.metric("queue_tokens") == 0)
        assert server.metric("expired_total") == 1
        assert server.post("/v1/predict/reviews", {"texts": ["a"]}, timeout="60").status_code == 200


def test_who_leaves_is_dropped_from_the_queue(held: Held) -> None:
    with live(held.run, load=held.load) as server:
        held.free.clear()
        first, _ = in_thread(lambda: httpx.post(f"{server.url}/v1/embed", json={"texts": ["x"]}, timeout=60))
        assert held.encoding.wait(20)
        with server.raw(post_bytes("/v1/predict/reviews", BODY)):
            until(lambda: server.metric("requests") == 3)
        until(lambda: server.metric("cancelled_total") == 1)
        texts = server.metric("texts_total")
        held.free.set()
        first.join(30)
        assert server.post("/v1/embed", {"texts": ["y"]}).status_code == 200
        assert server.metric("texts_total") - texts == 2


def test_a_request_that_breaks_the_model_harms_no_other(run: Path) -> None:
    free, began = threading.Event(), threading.Event()

    def load() -> Served:
        served = serve_model(run, lambda: Model.load(run))
        encode = served.reader.encode

        def breaking(questions: Any) -> Any:
            began.set()
            assert free.wait(60)
            if any(row == ("poison",) for question in questions for row in question.rows):
                raise RuntimeError("planted")
            return encode(questions)

        served.reader.encode = breaking
        return served

    with live(run, load=load) as server:
        texts = ["first", "poison", "good"]
        asked = [in_thread(lambda: server_status(server, texts[0]))]
        assert began.wait(20)
        asked += [in_thread(lambda text=text: server_status(server, text)) for text in texts[1:]]
        until(lambda: server.metric("requests") == 4)
        free.set()
        for thread, _ in asked:
            thread.join(30)
        assert [found for _, found in asked] == [[200], [500], [200]]


def server_status(server: Live, text: str) -> int:
    return httpx.post(f"{server.url}/v1/embed", json={"texts": [text]}, timeout=60).status_code


def test_slow_heads_and_bodies_are_cut_off(run: Path) -> None:
    with live(run, header_seconds=0.5, body_seconds=0.5, idle_seconds=1) as server:
        idle, partial = server.raw(), server.raw(b"POST /v1/embed HTTP/1.1\r\nx: ")
        body = server.raw(post_bytes("/v1/embed", b"{", length=100))
        with idle, partial, body:
            assert answer_of(idle) == (0, {})
            assert answer_of(partial) == (0, {})
            status, found = answer_of(body)
            assert (status, found["error"]["code"]) == (408, "slow")
        with server.raw(post_bytes("/v1/embed", BODY)) as kept:
            assert answer_of(kept)[0] == 200
            kept.sendall(b"GET ")
            assert answer_of(kept) == (0, {})


def test_dripping_does_not_lengthen_the_time_of_a_head(run: Path) -> None:
    with live(run, header_seconds=0.5) as server, server.raw(b"GET /health HTTP/1.1\r\n") as connection:
        ended = False
        for _ in range(100):
            try:
                connection.sendall(b"x: y\r\n")
            except OSError:
                ended = True
                break
            time.sleep(0.05)
        assert ended


def test_idle_sockets_make_room_and_those_in_use_stay(run: Path) -> None:
    with live(run, max_connections=20, header_seconds=60) as server:
        used = server.raw(post_bytes("/v1/embed", BODY))
        assert answer_of(used)[0] == 200
        idle = [server.raw() for _ in range(60)]
        assert server.post("/v1/predict/reviews", {"texts": ["a"]}).status_code == 200
        used.sendall(post_bytes("/v1/embed", BODY))
        assert answer_of(used)[0] == 200
        assert server.metric("dropped_connections_total") >= 41
        for each in [used, *idle]:
            each.close()


def test_a_token_is_asked_for_everywhere_but_where_nothing_is_told(run: Path) -> None:
    with live(run, token=TOKEN) as server:
        for path in ("/v1/tasks", "/metrics", "/v1/examples?task=reviews", "/nowhere"):
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}):
                found = server.get(path, **headers)
                assert (found.status_code, found.json()["error"]["code"]) == (401, "token")
                assert found.headers["www-authenticate"] == "Bearer"
            assert server.get(path, authorization=f"Bearer {TOKEN}").status_code in (200, 404)
        with server.raw(post_bytes("/v1/embed", b"", length=10**6)) as connection:
            assert answer_of(connection)[0] == 401
        assert server.post("/v1/embed", {"texts": ["a"]}, authorization=f"bearer {TOKEN}").status_code == 200
        for path in ("/", "/health", "/ready", "/openapi.json", "/page/style.css"):
            assert server.get(path).status_code == 200


def test_beyond_this_machine_a_token_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(UsageError, match="no token"):
            check_host(host, None)
        check_host(host, TOKEN)
    for host in ("127.0.0.1", "::1", "localhost"):
        check_host(host, None)
    monkeypatch.delenv("MANYHEAD_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("MANYHEAD_TOKEN", f" {TOKEN}\n")
    assert read_token(None) == TOKEN
    path = tmp_path / "token"
    with pytest.raises(UsageError, match="cannot be read"):
        read_token(path)
    for bad in ("short", "", "two words of a token", "\u00fc" * 20):
        path.write_text(bad, encoding="utf-8")
        with pytest.raises(UsageError, match="too short or has odd"):
            read_token(path)


def test_an_end_waits_for_what_was_accepted_and_takes_no_more(held: Held) -> None:
    with live(held.run, load=held.load) as server:
        held.free.clear()
        thread, found = in_thread(lambda: httpx.post(f"{server.url}/v1/embed", json={"texts": ["x"]}, timeout=60))
        assert held.encoding.wait(20)
        server.server.end()
        until(lambda: server.get("/ready").status_code == 503)
        refused = server.post("/v1/embed", {"texts": ["a"]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        assert server.get("/health").status_code == 200
        assert server.thread.is_alive()
        held.free.set()
        thread.join(30)
        assert found[0].status_code == 200
        server.thread.join(30)
        assert server.result == [None]


def test_a_second_signal_ends_at_once(held: Held) -> None:
    with live(held.run, load=held.load) as server:
        held.free.clear()
        thread, found = in_thread(lambda: _status(server))
        assert held.encoding.wait(20)
        server.server.end()
        server.server.end()
        thread.join(30)
        assert found == [0]
        held.free.set()
        server.thread.join(30)
        assert server.result == [15]


def _status(server: Live) -> int:
    try:
        return httpx.post(f"{server.url}/v1/embed", json={"texts": ["x"]}, timeout=60).status_code
    except httpx.HTTPError:
        return 0


def test_a_reload_drops_nothing_and_a_damaged_model_changes_nothing(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run / "model", tmp_path / "model"))
    with live(folder) as server:
        before = server.get("/v1/tasks").json()["model_id"]
        statuses: list[int] = []
        stop = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=server.url, timeout=60) as client:
                while not stop.is_set():
                    statuses.append(client.post("/v1/predict/reviews", json={"texts": ["a"]}).status_code)

        thread = threading.Thread(target=ask)
        thread.start()
        recipe = folder / "recipe.yaml"
        recipe.write_text(recipe.read_text(encoding="utf-8").replace("name: tiny", "name: other"), encoding="utf-8")
        server.server.reload()
        until(lambda: server.metric("failed_reloads_total") == 1)
        assert server.get("/v1/tasks").json()["model_id"] == before
        write_manifest(folder)
        server.server.reload()
        until(lambda: server.metric("reloads_total") == 1)
        found = server.get("/v1/tasks").json()
        assert (found["name"], found["model_id"] != before) == ("other", True)
        assert server.get("/v1/examples?task=reviews").json() == {"examples": []}
        stop.set()
        thread.join(30)
        assert len(statuses) > 5
        assert set(statuses) == {200}


def test_a_model_that_cannot_be_served_ends_the_start(tmp_path: Path) -> None:
    from manyhead.serving.server import Server, Serving

    def load() -> Served:
        raise CheckpointError("damaged")

    server = Server(Serving("127.0.0.1", 0, None, Limits(), load, lambda *_: None))
    with pytest.raises(CheckpointError, match="damaged"):
        server.run()


def test_a_port_in_use_is_said() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"127\.0\.0\.1:{port}: another program has this port"):
            bind("127.0.0.1", port)
    with pytest.raises(UsageError, match="cannot listen there"):
        bind("192.0.2.1", 0)


@pytest.mark.parametrize("name", ["max_texts", "queue_tokens", "timeout_seconds"])
def test_limits_are_above_zero(name: str) -> None:
    with pytest.raises(UsageError, match="expected a number above 0"):
        Limits(**{name: 0})


def queue_of(*sizes: int) -> deque[Work]:
    async def make() -> deque[Work]:
        found: deque[Work] = deque()
        for size in sizes:
            work = Work(cast("Any", None), Question([("a",)] * size), time.monotonic() + 60, cast("Any", None))
            work.costs = [10] * size
            found.append(work)
        return found

    return asyncio.run(make())


def test_a_large_request_leaves_room_for_the_others() -> None:
    waiting = queue_of(10_000, *[1] * 30)
    large = waiting[0]
    first = take(waiting, 800)
    assert {piece.stop - piece.start for piece in first if piece.work is not large} == {1}
    assert len(first) == 31
    assert sum(piece.tokens for piece in first) == 800
    second = take(waiting, 800)
    assert [(piece.work is large, piece.start, piece.tokens) for piece in second] == [(True, first[0].stop, 800)]


def test_all_rows_are_taken_once_and_in_order() -> None:
    waiting = queue_of(7, 100, 1, 33)
    works = list(waiting)
    rows: dict[int, list[int]] = {id(work): [] for work in works}
    while pieces := take(waiting, 64):
        for piece in pieces:
            rows[id(piece.work)] += range(piece.start, piece.stop)
    assert [rows[id(work)] for work in works] == [list(range(len(work.costs))) for work in works]


def test_who_is_gone_or_late_takes_no_tokens() -> None:
    waiting = queue_of(5, 5, 5)
    waiting[0].gone = True
    waiting[1].deadline = time.monotonic() - 1
    last = waiting[2]
    assert [piece.work for piece in take(waiting, 1000)] == [last]
    assert not waiting
