"""What tests of faults share: hooks that make something fail at a place, and everything that two equal runs have."""

import hashlib
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from manyhead.build import Run, train
from manyhead.recipe.load import load_recipe
from manyhead.training.checkpoint import checkpoint_folders
from manyhead.training.observer import Observer
from stopping import records_of
from tiny import tiny_recipe

DROPOUT_OFF: dict[str, Any] = {
    "encoder.dropout": 0.0,
    "tasks.reviews.head.dropout": 0.0,
    "tasks.questions.head.dropout": 0.0,
}
_CLOCKS = ("seconds", "logged_bytes", "logged_sha256")


class Events(Observer):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def event(self, text: str) -> None:
        self.texts.append(text)

    def __contains__(self, part: str) -> bool:
        return any(part in text for text in self.texts)


class AtVisit:
    """A hook that does something at one visit of a place, and counts the visits of all."""

    def __init__(self, place: str, do: Callable[[Any], Any], visit: int = 1) -> None:
        self.place, self.do, self.visit = place, do, visit
        self.visits: Counter[str] = Counter()

    def __call__(self, place: str, value: Any) -> Any:
        self.visits[place] += 1
        if place == self.place and self.visits[place] == self.visit:
            found = self.do(value)
            return value if found is None else found
        return value


def send(number: signal.Signals) -> Callable[[Any], None]:
    """Sends this process a signal; it is handled before the next line runs."""
    return lambda _: os.kill(os.getpid(), number)


def staged(
    encoder: Path, *stages: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any]] | None = None, **keys: Any
) -> dict[str, Any]:
    """The tiny recipe with other stages, and changes of its tasks and of its encoder."""
    recipe = tiny_recipe(encoder)
    common = recipe["stages"][0]
    recipe["stages"] = [{**common, **stage} for stage in stages]
    for name, changes in (tasks or {}).items():
        recipe["tasks"][name] |= changes
    recipe["encoder"] |= keys
    return recipe


def run(
    recipe: Mapping[str, Any],
    out: Path,
    observer: Observer | None = None,
    *,
    resume: bool = False,
    allow: tuple[str, ...] = (),
    **overrides: Any,
) -> Run:
    loaded = load_recipe(recipe, overrides=overrides)
    return train(loaded, out=out, observer=observer, resume=resume, allow_changes=allow)


def steps_of(path: Path) -> list[dict[str, Any]]:
    return [record for record in records_of(path) if record["kind"] == "step"]


def lasting(path: Path) -> dict[str, str]:
    """A digest of everything that a run leaves and an equal one leaves too, by name."""
    found = {"log": _digest(json.dumps(records_of(path)).encode())}
    for checkpoint in checkpoint_folders(path / "checkpoints"):
        for file in checkpoint.glob("*.safetensors"):
            found[f"{checkpoint.name}/{file.name}"] = _digest(file.read_bytes())
        state = json.loads((checkpoint / "state.json").read_text())
        del state["run"]
        state["progress"] = {key: value for key, value in state["progress"].items() if key not in _CLOCKS}
        found[f"{checkpoint.name}/state"] = _digest(json.dumps(state).encode())
    for file in sorted((path / "model").rglob("*")):
        # The recipe may say where this machine has the data; the manifest has the hash of it.
        if file.is_file() and file.name not in ("recipe.yaml", "manifest.json"):
            found[f"model/{file.relative_to(path / 'model')}"] = _digest(file.read_bytes())
    for file in sorted((path / "predictions").glob("*")):
        found[f"predictions/{file.name}"] = _digest(file.read_bytes())
    found["maps"] = _digest((path / "maps.json").read_bytes())
    summary = json.loads((path / "summary.json").read_text())
    found["summary"] = _digest(json.dumps({key: value for key, value in summary.items() if key != "seconds"}).encode())
    if (path / "best").is_symlink():
        found["best"] = str((path / "best").readlink())
    return found


def ending(path: Path) -> dict[str, str]:
    """`lasting`, of the checkpoints only the newest: a run that was stopped by a signal has others before it."""
    newest = checkpoint_folders(path / "checkpoints")[-1].name
    return {name: digest for name, digest in lasting(path).items() if not name.startswith("step-") or newest in name}


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """The names whose digests differ, or that only one has."""
    return [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]


def leftovers(path: Path) -> list[str]:
    """Temporary names below ``path``."""
    return [str(each.relative_to(path)) for each in path.rglob(".tmp-*")]


def flip_a_bit(path: Path, place: int | None = None, bit: int = 0) -> None:
    """Flips one bit of a file, in its middle unless told where."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1 << bit
    path.write_bytes(content)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
