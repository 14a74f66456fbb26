"""The JSON beside an encoder's weights, which anybody may have written: what in it would load code is not obeyed.

Keys that name code to be fetched, or say that it may run, are refused. Others that can load code, such as ``auto_map``,
stand in many checkpoints that work without; they are left out and told of.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manyhead.errors import Problem, UsageError

CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"

_IMPLEMENTATIONS = {"attn_implementation", "experts_implementation"}
_PERMISSIONS = {"trust_remote_code", "custom_pipelines"}
_NAMES_CODE = {"auto_map", "transformers_weights", *_IMPLEMENTATIONS, *_PERMISSIONS}
_SHOWN = 80


def load_config_dict(folder: Path) -> dict[str, Any]:
    """What ``config.json`` in ``folder`` says, without keys that can load code and without private keys (``_...``).

    Raises `UsageError` for a file that is missing or no JSON object, and for keys that are refused.
    """
    return read_without_code(folder / CONFIG)[0]


def code_notes(folder: Path) -> tuple[str, ...]:
    """A line for each of the folder's JSON files that has keys which are left out. Raises as `load_config_dict`."""
    paths = [folder / CONFIG, folder / TOKENIZER_CONFIG]
    found = {path: read_without_code(path)[1] for path in paths if path.name == CONFIG or path.is_file()}
    return tuple(f"{path}: left out {', '.join(names)}, which can load code" for path, names in found.items() if names)


def read_without_code(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The JSON object in a file without its private keys and those that can load code; the latter's names.

    Raises `UsageError` as `load_config_dict` does, with all refused keys at once.
    """
    value = read_object(path)
    if problems := [problem for keys, item in _entries(value, ()) if (problem := _refused(path, keys, item))]:
        raise UsageError("\n".join(map(str, problems)))
    names = {keys[-1] for keys, _ in _entries(value, ()) if _plain(keys[-1]) in _NAMES_CODE}
    return _without_code(value), sorted(names)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises `UsageError` where there is none."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise _unreadable(f"{path}: cannot be read: {error.strerror or error}", "check the folder") from error
    except (ValueError, RecursionError) as error:
        raise _unreadable(f"{path}: is no JSON: {error}", "copy it again") from error
    if not isinstance(value, dict):
        raise _unreadable(f"{path}: holds no JSON object", "copy it again")
    return value


def _entries(value: Any, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All keys in ``value``, at any depth, each with those above it, and what they hold."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*above, key), item
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _entries(item, (*above, str(key)))


def _refused(path: Path, keys: tuple[str, ...], value: Any) -> Problem | None:
    name = _plain(keys[-1])
    if name in _IMPLEMENTATIONS and any("/" in text for text in _strings(value)):
        reason = "names code on the hub to run instead of the library's"
    elif name in _PERMISSIONS and value:
        reason = "asks for code to run that comes with the model"
    elif name == "quantization_config" and value is not None:
        reason = "says that the weights are quantised, and by which code"
        return Problem(_shown(value, reason), path, None, ".".join(keys), "weights in floating point")
    else:
        return None
    do = f"delete it from {path.name} in a copy of the model, if you trust the rest"
    return Problem(_shown(value, reason), path, None, ".".join(keys), "weights and settings alone", do)


def _shown(value: Any, reason: str) -> str:
    text = json.dumps(value)
    return f"{text if len(text) <= _SHOWN else text[:_SHOWN] + '...'} {reason}"


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _without_code(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_code(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: item for key, item in value.items() if not key.startswith("_") and _plain(key) not in _NAMES_CODE}
    return {key: _without_code(item) for key, item in kept.items()}


def _plain(key: str) -> str:
    """A key without the marks of its private forms."""
    return key.lstrip("_").removesuffix("_internal")


def _unreadable(problem: str, do: str) -> UsageError:
    return UsageError(str(Problem(problem, expected="a JSON object", do=do)))
