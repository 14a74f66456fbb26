"""The page that the server shows at `/`: a fixed table of files, and what every one of them is sent with.

Nothing in a request chooses a file: a path is in the table, or there is none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_TABLE = (
    ("/", "index.html", "text/html; charset=utf-8"),
    ("/page/style.css", "style.css", "text/css; charset=utf-8"),
    ("/page/page.js", "page.js", "text/javascript; charset=utf-8"),
    ("/page/server.js", "server.js", "text/javascript; charset=utf-8"),
    ("/page/drawing.js", "drawing.js", "text/javascript; charset=utf-8"),
    ("/page/icon.svg", "icon.svg", "image/svg+xml"),
)

PAGE_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""The browser runs the page's own files only, asks this server only, and makes markup of no text."""


@dataclass(frozen=True)
class PageFile:
    """A file of the page, as it is sent."""

    content: bytes
    media_type: str


@cache
def page_files() -> Mapping[str, PageFile]:
    """The files by the paths at which they are served."""
    folder = files(__name__)
    return {path: PageFile(folder.joinpath(name).read_bytes(), kind) for path, name, kind in _TABLE}
