"""The hub: which commit a name stands for, and a clear error within seconds where the hub cannot be asked.

Nothing is imported and nothing is asked before a function is called, so work without hub names touches no network.
"""

import errno
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, TypeVar

from manyhead.errors import ManyheadError, Problem, UsageError, WriteError

ANSWER_SECONDS = 6.0
"""How long the hub is waited for. The error has to reach the user within 10 s, imports included."""

Kind = Literal["model", "dataset"]

_SILENCE_SECONDS = 30.0
_silent_since: dict[str, float] = {}
_COMMIT = re.compile(r"[0-9a-f]{40}")
_INSTEAD: dict[Kind, str] = {
    "model": "name an existing folder with config.json and model.safetensors, or 'embedded' "
    "(pip install 'manyhead[embedded]')",
    "dataset": "download its files elsewhere and name them under 'files'",
}
_LOGIN = "log in with 'hf auth login'"
_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}
# Headers of which the hub's own answers carry one, and a proxy's do not.
_SIGNATURES = {"x-error-code", "x-error-message", "x-request-id"}
_BUSY = {408, 429, *range(500, 600)}

T = TypeVar("T")


class HubUnreachableError(UsageError):
    """The hub gave no answer: no network, offline mode, or a server in trouble."""


@dataclass(frozen=True)
class Commit:
    """A commit of a repository: its 40 hexadecimal digits, and the files in it (paths with ``/``)."""

    sha: str
    files: frozenset[str]


def is_commit(revision: str | None) -> bool:
    """Whether ``revision`` is a full commit id, which stands for the same files for ever."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def find_commit(repo: str, revision: str | None, kind: Kind) -> Commit:
    """The commit that ``revision`` (None: the default branch) of ``repo`` is now.

    Raises `HubUnreachableError` within `ANSWER_SECONDS` where there is no answer, and `UsageError` where the hub
    refuses: no such repository or revision, or one that needs a login. Both name what to use instead.
    """
    from huggingface_hub import HfApi, constants

    api = HfApi()
    ask = api.model_info if kind == "model" else api.dataset_info
    # The library's own limit is the longer one, so that `_in_time` sees every silence.
    limit = 2 * ANSWER_SECONDS
    try:
        info = _in_time(constants.ENDPOINT, lambda: ask(repo, revision=revision, timeout=limit))
    # Proxies, certificates, name servers and login pages each fail in their own way: all mean no answer from the hub.
    except Exception as error:
        raise _explain(error, repo, revision, kind) from error
    if info.sha is None:
        raise _unreachable(repo, kind, "it names no commits")
    return Commit(info.sha, frozenset(file.rfilename for file in info.siblings or []))


def download_error(name: str, error: Exception, do: str) -> ManyheadError:
    """What to raise for ``error`` out of a library that was fetching ``name`` from the hub; ``do`` is the advice."""
    chain = _causes(error)
    reason = ": ".join(dict.fromkeys(_one_line(cause) for cause in chain))
    if any(isinstance(cause, OSError) and cause.errno in _CANNOT_WRITE for cause in chain):
        return WriteError(
            str(Problem(f"'{name}' could not be stored: {reason}", do="make room there, or write access"))
        )
    return UsageError(str(Problem(f"'{name}' could not be fetched: {reason}", do=do)))


def _in_time(endpoint: str, call: Callable[[], T]) -> T:
    """``call()``, or TimeoutError after `ANSWER_SECONDS`, and again at once for a while after such a failure.

    A thread, because looking a name up has no time limit of its own; the memory, because a recipe names many files.
    """
    if time.monotonic() - _silent_since.get(endpoint, -_SILENCE_SECONDS) < _SILENCE_SECONDS:
        raise TimeoutError("it gave no answer a moment ago")
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, name="hub", daemon=True).start()
    try:
        return future.result(timeout=ANSWER_SECONDS)
    except TimeoutError as error:
        _silent_since[endpoint] = time.monotonic()
        raise TimeoutError(f"no answer within {ANSWER_SECONDS:.0f} s") from error


def _explain(error: Exception, repo: str, revision: str | None, kind: Kind) -> UsageError:
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo}"
    match error:
        case errors.GatedRepoError():
            problem, do = "is open only to those who agreed to its terms", f"agree at {page}, {_LOGIN}"
        case errors.RepositoryNotFoundError():
            problem, do = f"is no {kind} on the hub, or a private one", f"check the name, {_LOGIN}"
        case errors.RevisionNotFoundError():
            problem, do = f"has no revision '{revision}'", "use a branch, a tag or a commit of it"
        case errors.HFValidationError():
            problem, do = f"is no hub name ({_one_line(error)})", "write OWNER/NAME"
        case errors.HfHubHTTPError(response=response) if response.status_code in _BUSY:
            return _unreachable(repo, kind, f"it answered with status {response.status_code}")
        case errors.HfHubHTTPError(response=response) if _SIGNATURES & set(response.headers):
            problem, do = f"was refused by the hub with status {response.status_code}", f"check the name, {_LOGIN}"
        case ValueError() | errors.HfHubHTTPError():
            return _unreachable(repo, kind, "what answers there, perhaps a proxy or a login page, is not the hub")
        case _:
            return _unreachable(repo, kind, _one_line(error))
    return UsageError(str(Problem(f"'{repo}' {problem}", do=f"{do}, or {_INSTEAD[kind]}")))


def _unreachable(repo: str, kind: Kind, reason: str) -> HubUnreachableError:
    from huggingface_hub import constants

    problem = f"'{repo}': the hub at {constants.ENDPOINT} cannot be reached ({reason})"
    return HubUnreachableError(str(Problem(problem, do=f"check the network, or {_INSTEAD[kind]}")))


def _causes(error: BaseException | None) -> list[BaseException]:
    """``error`` and what it was raised from, in turn."""
    return [] if error is None else [error, *_causes(error.__cause__)]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
