"""Pushing an exported folder to the hub, in one commit: all of it is there afterwards, or nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manyhead.errors import ManyheadError, UsageError, WriteError
from manyhead.inference.model_folder import ENCODER
from manyhead.inference.temperatures import CALIBRATION

_REFUSED = {401, 403, 404}
_LOGIN = "log in with 'hf auth login' and a token that may write there, and check the name"


@dataclass(frozen=True)
class Pushed:
    """What is on the hub now: ``url`` of the repository, and the commit."""

    url: str
    commit: str


def check_name(repo: str) -> None:
    """Raises `UsageError` where ``repo`` is no OWNER/NAME."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UsageError(f"--push: {_line(error)}; expected OWNER/NAME") from error
    if "/" not in repo:
        raise UsageError(f"--push: '{repo}' has no owner; expected OWNER/NAME")


def push(folder: Path, repo: str, *, private: bool) -> Pushed:
    """Commits all files of ``folder`` to the model ``repo``, which is made if there is none.

    Files of a model that was there before are replaced or removed; others stay. Raises `UsageError` where the hub
    refuses and `WriteError` where it fails; both say what of it is on the hub. The token is the hub library's own.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(library_name="manyhead")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    url = f"{api.endpoint}/{repo}"
    try:
        api.create_repo(repo, private=private or None, exist_ok=True)
        info = api.model_info(repo)
    except Exception as error:  # the library passes on what the network, the certificates and the server raise
        raise _failure(error, url, f"nothing was uploaded; the export is in {folder}") from error
    stale = _stale([file.rfilename for file in info.siblings or []], names)
    operations: list[Any] = [CommitOperationAdd(name, folder / name) for name in names]
    operations += [CommitOperationDelete(name) for name in stale]
    try:
        done = api.create_commit(repo, operations, commit_message="Upload a model", parent_commit=info.sha)
    except Exception as error:
        state = _state(lambda: api.model_info(repo).sha, info.sha, len(names))
        raise _failure(error, url, f"{state}; the export is in {folder}") from error
    return Pushed(url, str(done.oid))


def _stale(there: list[str], names: list[str]) -> list[str]:
    """Files on the hub that belonged to the model before and would be taken for this one's."""
    return [name for name in there if (name == CALIBRATION or name.startswith(f"{ENCODER}/")) and name not in names]


def _state(ask: Callable[[], str | None], before: str | None, files: int) -> str:
    """What is on the hub after a commit that failed."""
    try:
        after = ask()
    except Exception:
        return (
            "whether the commit arrived is not known, since the hub does not answer now; look there before trying again"
        )
    if after != before:
        return f"yet a new commit is there ({after}): look first whether it holds the {files} files"
    return f"none of the {files} files is there: they are published by one commit, which was not made"


def _failure(error: Exception, url: str, state: str) -> ManyheadError:
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return UsageError(f"{url}: not pushed, since HF_HUB_OFFLINE is set; unset it; {state}")
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        said = f"{url}: not pushed: the hub answered with status {status}: {_line(error.server_message or error)}"
        return UsageError(f"{said}; {_LOGIN}; {state}") if status in _REFUSED else WriteError(f"{said}; {state}")
    return WriteError(f"{url}: not pushed: {type(error).__name__}: {_line(error)}; check the network; {state}")


def _line(error: object) -> str:
    """One line of what a library says, without the token, should it ever say it."""
    from huggingface_hub import get_token

    said, token = " ".join(str(error).split()), get_token()
    return said.replace(token, "***") if token else said
