"""Who may ask: anybody on this machine, or whoever has the token."""

import hmac
import ipaddress
import os
import re
from pathlib import Path

from manyhead.errors import UsageError
from manyhead.serving.page import page_files
from manyhead.serving.refusals import Refusal

TOKEN_VARIABLE = "MANYHEAD_TOKEN"  # noqa: S105, the name of a variable
_LEAST_CHARS = 16
_FREE = frozenset(("/health", "/ready", "/openapi.json", *page_files()))
"""Paths that tell nothing of the model."""


class Guard:
    """Looks at a request's path and headers. Without a token only requests to this machine's own names are let in.

    Otherwise a web page anywhere could have the browser of somebody here ask this server, by a name of its own that
    leads here.
    """

    def __init__(self, token: str | None, host: str) -> None:
        self._token = None if token is None else token.encode()
        self._names = {"localhost", host}

    def check(self, path: str, headers: dict[bytes, bytes]) -> None:
        """Raises `Refusal`."""
        if self._token is None:
            name = re.sub(r":\d*$", "", headers.get(b"host", b"localhost").decode("latin-1")).lower()
            if name not in self._names and not _is_loopback(name.strip("[]")):
                raise Refusal(
                    400, "host", "without a token this server answers to localhost alone; start it with --token-file"
                )
            return
        if path in _FREE:
            return
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._token):
            raise Refusal(
                401, "token", "expected the header Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
            )


def read_token(file: Path | None) -> str | None:
    """The token in ``file``, else the variable's, else None. Raises `UsageError` for one that is no use."""
    if file is not None:
        try:
            token, source = file.read_text(encoding="utf-8").strip(), str(file)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{file}: the token cannot be read: {error}; expected a file with one line") from error
    elif TOKEN_VARIABLE in os.environ:
        token, source = os.environ[TOKEN_VARIABLE].strip(), TOKEN_VARIABLE
    else:
        return None
    if len(token) < _LEAST_CHARS or not re.fullmatch(r"[!-~]+", token):
        raise UsageError(
            f"{source}: the token is too short or has odd characters; expected at least {_LEAST_CHARS} letters, digits "
            "or signs of ASCII, such as `openssl rand -hex 32` prints"
        )
    return token


def check_host(host: str, token: str | None) -> None:
    """Raises `UsageError` where other machines could reach a server without a token."""
    if token is None and not _is_loopback(host):
        raise UsageError(
            f"--host {host} can be reached from other machines, and there is no token; expected --token-file FILE or "
            f"{TOKEN_VARIABLE}; or leave --host out"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
