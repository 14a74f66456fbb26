"""``manyhead serve``: a model behind HTTP, with a page."""

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manyhead.cli.options import Json, Overrides, Plugins, Precision, Quiet, RunOrModel, listed
from manyhead.cli.output import Output, speaking
from manyhead.cli.stored import Stored, find_model
from manyhead.errors import StoppedError, UsageError

if TYPE_CHECKING:
    from manyhead.serving.served import Served

EXAMPLES = (
    "manyhead serve runs/cs224n",
    "manyhead serve runs/cs224n --port 0 --json",
    "manyhead serve model --host 0.0.0.0 --token-file token.txt",
)


def serve(
    model: RunOrModel,
    *,
    host: Annotated[
        str, typer.Option("--host", metavar="H", help="Address to listen at; one beyond this machine needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 chooses a free one.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="F", help="File with the token of requests; or set MANYHEAD_TOKEN."),
    ] = None,
    max_texts: Annotated[int, typer.Option("--max-texts", help="Texts in a request.")] = 1024,
    max_bytes: Annotated[int, typer.Option("--max-bytes", help="Bytes in a request's body.")] = 4 << 20,
    queue_tokens: Annotated[
        int, typer.Option("--queue-tokens", help="Tokens that may wait; beyond them requests get 429.")
    ] = 1 << 16,
    batch_tokens: Annotated[int, typer.Option("--batch-tokens", help="Most tokens of a batch.")] = 4096,
    timeout_seconds: Annotated[
        float, typer.Option("--timeout", metavar="S", help="Seconds of a request that names none.")
    ] = 30.0,
    max_connections: Annotated[
        int, typer.Option("--max-connections", help="Open sockets; beyond them the longest idle is closed.")
    ] = 4096,
    precision: Precision = None,
    overrides: Overrides = None,
    plugins: Plugins = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Serve all tasks of a model over HTTP, with a page to try them.

    SIGTERM lets requests finish, SIGHUP takes the model from its folder anew. With --json one line is printed once
    requests are taken.
    """
    with speaking(as_json=as_json, quiet=quiet) as output:
        _check_extra()
        from manyhead.serving.auth import check_host, read_token
        from manyhead.serving.limits import Limits
        from manyhead.serving.served import serve_model
        from manyhead.serving.server import Server, Serving

        token = read_token(token_file)
        check_host(host, token)
        limits = Limits(
            max_texts=max_texts,
            max_bytes=max_bytes,
            queue_tokens=queue_tokens,
            batch_tokens=batch_tokens,
            timeout_seconds=timeout_seconds,
            max_connections=max_connections,
        )

        def found() -> Stored:
            return find_model(model, plugins=listed(plugins), overrides=listed(overrides), precision=precision)

        def load() -> "Served":
            stored = found()
            return serve_model(stored.folder, stored.load)

        def tell(url: str, served: "Served") -> None:
            _tell(output, url, served)

        found()  # before the port is taken
        left_over = Server(Serving(host, port, token, limits, load, tell)).run()
        if left_over is not None:
            raise StoppedError("stopped before all requests were answered", left_over)


def _tell(output: Output, url: str, served: "Served") -> None:
    tasks = list(served.tasks)
    if output.as_json:
        output.show(json.dumps({"address": url, "tasks": tasks, "model_id": served.model_id}))
    else:
        output.show(f"{url} answers for {', '.join(tasks)}")


def _check_extra() -> None:
    """Raises `UsageError` where the packages of the extra are missing."""
    if any(importlib.util.find_spec(name) is None for name in ("fastapi", "uvicorn")):
        raise UsageError("serve needs fastapi and uvicorn; pip install 'manyhead[serve]'")
