"""A hub on this machine: the requests that `huggingface_hub` and `datasets` make, answered out of a dictionary.

Both libraries read the hub's address when they are imported, so what is tested runs in a process of its own that was
started with that address: `HubStandIn.worker`.
"""

import hashlib
import json
import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ParamSpec, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

P = ParamSpec("P")
T = TypeVar("T")

_LIMIT_SECONDS = 60.0


@dataclass
class Repo:
    """A repository: its commits, oldest first, and names of some of them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def commit_of(self, revision: str) -> str | None:
        newest = next(reversed(self.commits))
        found = newest if revision in {"main", "HEAD"} else self.tags.get(revision, revision)
        return found if found in self.commits else None


class HubStandIn:
    """The server. ``requests`` lists what was asked; ``failing`` maps the end of a path to the status it answers.

    ``writes``, if there is one, is asked first: it answers requests that write, and None to others.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[str] = []
        self.failing: dict[str, int] = {}
        self.page: tuple[int, bytes] | None = None
        self.writes: Callable[[str, str, bytes, Mapping[str, str]], tuple[int, dict[str, str], bytes] | None] | None
        self.writes = None
        self.answering = threading.Event()
        self.answering.set()
        self.port = 0
        self._start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, name: str, files: Mapping[str, bytes | str], *, gated: bool = False, tag: str | None = None) -> str:
        """A new commit of ``models/OWNER/NAME`` or ``datasets/OWNER/NAME``, holding ``files``; its id."""
        repo = self.repos.setdefault(name, Repo())
        repo.gated = gated
        content = {path: data.encode() if isinstance(data, str) else data for path, data in files.items()}
        digest = hashlib.sha1(f"{name} {len(repo.commits)} {sorted(content.items())}".encode())
        sha = digest.hexdigest()
        repo.commits[sha] = content
        if tag is not None:
            repo.tags[tag] = sha
        return sha

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Nothing listens at the address meanwhile."""
        self._stop()
        try:
            yield
        finally:
            self._start()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Connections are accepted and never answered meanwhile."""
        self.answering.clear()
        try:
            yield
        finally:
            self.answering.set()

    @contextmanager
    def answering_with(
        self, *, failing: Mapping[str, int] | None = None, page: tuple[int, bytes] | None = None
    ) -> Iterator[None]:
        """Some paths fail meanwhile, or every request gets the same web page, with that status."""
        self.failing, self.page = dict(failing or {}), page
        try:
            yield
        finally:
            self.failing, self.page = {}, None

    @contextmanager
    def worker(self, home: Path, *, processes: int = 1, **environment: str) -> Iterator["Worker"]:
        """Processes that take this server for the hub and ``home`` for their cache of it."""
        values = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
        }
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
                patch.delenv(name)
            for name, value in (values | environment).items():
                patch.setenv(name, value)
            pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
            for started in [pool.submit(os.getpid) for _ in range(processes)]:
                started.result(_LIMIT_SECONDS)
        with pool:
            yield Worker(pool)

    def close(self) -> None:
        self.answering.set()
        self._stop()

    def _start(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), _handler(self))
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def _stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Worker:
    """Calls functions where the stand-in is the hub."""

    pool: ProcessPoolExecutor

    def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self.start(function, *args, **kwargs).result(_LIMIT_SECONDS)

    def start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return self.pool.submit(function, *args, **kwargs)


def running_hub() -> Iterator[HubStandIn]:
    """Fixture: a hub without repositories."""
    hub = HubStandIn()
    yield hub
    hub.close()


def with_warnings(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, list[str]]:
    """What ``function`` returns, and what our own loggers warned of meanwhile."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("manyhead")
    logger.addHandler(handler)
    try:
        return function(*args, **kwargs), messages
    finally:
        logger.removeHandler(handler)


def without_module(module: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``function`` returns where ``module`` cannot be imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module, None)
        return function(*args, **kwargs)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that gave up are no news."""


_Answer = tuple[int, dict[str, str], bytes]


def _handler(hub: HubStandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._respond(b"")

        def do_GET(self) -> None:
            self._respond(b"")

        def do_POST(self) -> None:
            self._respond(self.rfile.read(int(self.headers["Content-Length"])))

        def do_PUT(self) -> None:
            self._respond(self.rfile.read(int(self.headers["Content-Length"])))

        def log_message(self, format: str, *args: object) -> None:
            """`HubStandIn.requests` is the log."""

        def _respond(self, body: bytes) -> None:
            if not hub.answering.wait(_LIMIT_SECONDS):
                return
            hub.requests.append(f"{self.command} {self.path}")
            path = unquote(urlsplit(self.path).path)
            asked = None if hub.writes is None else hub.writes(self.command, path, body, dict(self.headers))
            status, headers, content = asked or _answer(hub, path, body)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    return Handler


def _answer(hub: HubStandIn, path: str, body: bytes) -> _Answer:
    if hub.page is not None:
        return hub.page[0], {"Content-Type": "text/html"}, hub.page[1]
    for end, status in hub.failing.items():
        if path.endswith(end):
            return status, {"X-Request-Id": "1"}, b""
    for name, repo in hub.repos.items():
        api, files = f"/api/{name}", f"/{name.removeprefix('models/')}/resolve/"
        if path == api or path.startswith(f"{api}/"):
            return _refusal(repo) or _api(name, repo, path.removeprefix(api).strip("/"), body)
        if path.startswith(files):
            return _refusal(repo) or _file(repo, path.removeprefix(files))
    return _missing("RepoNotFound")


def _refusal(repo: Repo) -> _Answer | None:
    return (403, {"X-Error-Code": "GatedRepo"}, b"") if repo.gated else None


def _api(name: str, repo: Repo, rest: str, body: bytes) -> _Answer:
    what, _, where = rest.partition("/")
    revision, inside = (where, "") if what in {"", "revision"} else _split_revision(repo, where)
    sha = repo.commit_of(revision or "main")
    if sha is None:
        return _missing("RevisionNotFound")
    files = repo.commits[sha]
    if what in {"", "revision"}:
        siblings = [{"rfilename": path} for path in files]
        return _json({"id": name.split("/", 1)[1], "sha": sha, "siblings": siblings, "private": False, "tags": []})
    entries = _entries(files)
    if what == "tree":
        return _json([entry for path, entry in entries.items() if path.startswith(f"{inside}/" if inside else "")])
    if what == "paths-info":
        return _json([entries[path] for path in parse_qs(body.decode()).get("paths", []) if path in entries])
    return _missing("EntryNotFound")


def _split_revision(repo: Repo, where: str) -> tuple[str, str]:
    for revision in ("main", *repo.tags, *repo.commits):
        if where == revision or where.startswith(f"{revision}/"):
            return revision, where.removeprefix(revision).strip("/")
    return where, ""


def _entries(files: Mapping[str, bytes]) -> dict[str, dict[str, object]]:
    folders = {str(parent): parent for path in files for parent in Path(path).parents if str(parent) != "."}
    entries: dict[str, dict[str, object]] = {
        path: {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0}
        for path in folders
    }
    for path, data in files.items():
        entries[path] = {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    return entries


def _file(repo: Repo, rest: str) -> _Answer:
    revision, path = _split_revision(repo, rest)
    sha = repo.commit_of(revision)
    if sha is None:
        return _missing("RevisionNotFound")
    data = repo.commits[sha].get(path)
    if data is None:
        status, headers, content = _missing("EntryNotFound")
        return status, headers | {"X-Repo-Commit": sha}, content
    return 200, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": sha}, data


def _json(value: object) -> _Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _missing(code: str) -> _Answer:
    return 404, {"X-Error-Code": code}, b""
