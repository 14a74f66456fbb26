"""The page at ``/``: the files of the package's folder ``page``, read once. No request ever names a path."""

from importlib import resources

from fastapi import FastAPI, Response

from manyhead.serving.schemas import errors

INDEX = "index.html"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""The page loads nothing but its own files, and asks nobody but its own server."""

_HEADERS = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"}


def page_files() -> dict[str, tuple[bytes, str]]:
    """Each file of the page by name: its bytes and its kind."""
    folder = resources.files("manyhead.serving").joinpath("page")
    return {
        each.name: (each.read_bytes(), kind)
        for each in folder.iterdir()
        if (kind := KINDS.get("." + each.name.rpartition(".")[2])) is not None
    }


def add_page(app: FastAPI) -> None:
    """``/`` is the page, ``/page/NAME`` its other files."""
    for name, (content, kind) in page_files().items():
        _add(app, "/" if name == INDEX else f"/page/{name}", content, kind)


def _add(app: FastAPI, path: str, content: bytes, kind: str) -> None:
    @app.get(path, include_in_schema=False, responses=errors(405), response_class=Response)
    async def file() -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)
