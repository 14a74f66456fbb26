"""The folder of a sentence-transformers model: where in it the encoder is, and what happens behind the encoder.

``modules.json`` lists modules in the order they run. Files are looked at, never loaded: no class they name is imported.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from manyhead.encoder.foreign import CONFIG, read_object
from manyhead.errors import Problem, UsageError

MODULES = "modules.json"
SENTENCE_FILES = (MODULES, "config_sentence_transformers.json", "*_Pooling/config.json")
"""What of such a model is fetched from the hub beside the encoder."""

_SETTINGS = "config_sentence_transformers.json"
_LEGACY = "sentence_bert_config.json"
_PACKAGE = "sentence_transformers."
_POOLINGS = {"cls": "cls", "max": "max", "mean": "mean"}  # theirs, and ours
_OLD_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class SentenceModel:
    """What a sentence-transformers model is made of.

    ``encoder`` is the folder of its Transformer. ``pooling`` is ours that does what theirs, ``pools_by``, does; None
    where there is none. ``normalizes``: its vectors have length 1. ``left_out`` names what has no counterpart.
    """

    encoder: Path
    pools_by: str | None
    pooling: str | None
    normalizes: bool
    left_out: tuple[str, ...]


def read_sentence_model(folder: Path) -> SentenceModel | None:
    """The sentence-transformers model in ``folder``; None where it is none.

    Raises `UsageError` where its list of modules, or a module that is needed, is missing or damaged.
    """
    if not (folder / MODULES).is_file():
        return None
    modules = _modules(folder)
    kind, encoder = modules[0]
    if kind != "Transformer" and not (encoder / CONFIG).is_file():
        raise _error(f"{folder / MODULES}: begins with {kind}", "a Transformer", "use another checkpoint")
    if not encoder.is_dir() or (encoder != folder and not (encoder / CONFIG).is_file()):
        problem = f"{folder / MODULES}: its Transformer is in {encoder}, where there is no {CONFIG}"
        raise _error(problem, "the encoder's files there", "copy the whole folder again")
    left_out = [] if kind == "Transformer" else [f"the code of {kind}"]
    pools_by, pooling, normalizes = None, None, False
    for kind, place in modules[1:]:
        if kind == "Pooling" and pools_by is None:
            pools_by, pooling, odd = _pooling(place)
            left_out += odd
        elif kind == "Normalize":
            normalizes = True
        else:
            left_out.append(_described(kind, place))
    return SentenceModel(encoder, pools_by, pooling, normalizes, (*left_out, *_of_texts(folder, encoder)))


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """The kind and the folder of each module."""
    path = folder / MODULES
    try:
        listed = json.loads(path.read_text("utf-8"))
        entries = [(str(each["type"]), str(each["path"])) for each in cast("list[dict[str, Any]]", listed)]
        places = [(kind, (folder / below).resolve()) for kind, below in entries]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise _error(f"{path}: cannot be used: {error!r}", "a list of modules, each with type and path") from error
    inside = folder.resolve()
    for _, place in places:
        if not place.is_relative_to(inside):
            raise _error(f"{path}: names {place}, outside its folder", "folders in it", "use another checkpoint")
    if not places:
        raise _error(f"{path}: names no module", "a Transformer and a Pooling")
    # A class of another package is code that comes with the model, whatever it is called.
    kinds = [kind.rpartition(".")[2] if kind.startswith(_PACKAGE) else kind for kind, _ in entries]
    return [(kind, folder if place == inside else place) for kind, (_, place) in zip(kinds, places, strict=True)]


def _pooling(place: Path) -> tuple[str, str | None, list[str]]:
    """How it pools in its words, in ours if there is one, and what is odd about it."""
    settings = read_object(place / CONFIG)
    modes = settings.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _OLD_KEYS.items() if settings.get(key)] or ["mean"]
    names = [str(mode) for mode in cast("list[object]", modes)] if isinstance(modes, list) else [str(modes)]
    ours = _POOLINGS.get(names[0]) if len(names) == 1 else None
    return " and ".join(names), ours, [] if settings.get("include_prompt", True) else ["include_prompt: false"]


def _described(kind: str, place: Path) -> str:
    """A module in a few words."""
    settings = read_object(place / CONFIG) if (place / CONFIG).is_file() else {}
    if kind != "Dense":
        return kind
    activation = str(settings.get("activation_function", "none")).rpartition(".")[2]
    return f"Dense ({settings.get('in_features')} to {settings.get('out_features')}, {activation})"


def _of_texts(folder: Path, encoder: Path) -> list[str]:
    """What it does to texts ahead of the tokenizer, beyond it."""
    found: list[str] = []
    settings = read_object(folder / _SETTINGS) if (folder / _SETTINGS).is_file() else {}
    name, prompts = settings.get("default_prompt_name"), settings.get("prompts")
    prompt = cast("dict[str, object]", prompts).get(str(name)) if isinstance(prompts, dict) else None
    if prompt:
        found.append(f"the prompt {prompt!r} before each text")
    if (encoder / _LEGACY).is_file() and read_object(encoder / _LEGACY).get("do_lower_case"):
        found.append("lower-casing of texts")
    return found


def _error(problem: str, expected: str | None = None, do: str | None = None) -> UsageError:
    return UsageError(str(Problem(problem, expected=expected, do=do)))
