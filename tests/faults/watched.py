"""A process that loads foreign models and tells what it touched that no model may make it touch."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CODE = {".py", ".so", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"}
FORBIDDEN = {"pickle.find_class", "ctypes.dlopen", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname"}
FORBIDDEN |= {"os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen"}
HARMLESS = {"uname", None}  # how `platform` learns about the machine; the process itself, opened as a library
LIMIT_SECONDS = 120


@dataclass(frozen=True)
class Outcome:
    """What became of one job: the error's class and message (None if there was none), and what was touched."""

    error: str | None
    message: str
    touched: list[str]


def run_watched(root: Path, jobs: Sequence[tuple[str, Path]]) -> list[Outcome]:
    """Does the jobs (an action below, and its folder) in a new process that may ask the network and must not.

    ``root`` is where the foreign folders are. The first job warms the process up: it is not watched.
    """
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, __file__, str(root)],
        input=json.dumps([(action, str(path)) for action, path in jobs]),
        env=environment | {"HF_ENDPOINT": "http://127.0.0.1:9", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [Outcome(**each) for each in json.loads(done.stdout.splitlines()[-1])]


class Watch:
    """An audit hook that lists, and stops, what is forbidden; it is deaf until ``on``."""

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root) + os.sep
        self.on = False
        self.touched: list[str] = []

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.on and (what := self.finds(event, args)):
            self.touched.append(what)
            raise RuntimeError(f"forbidden: {what}")

    def finds(self, event: str, args: tuple[Any, ...]) -> str | None:
        if event in FORBIDDEN:
            return None if args and args[0] in HARMLESS else f"{event} {args[0] if args else ''}"
        if event == "import":
            return f"import {args[0]}" if self.inside(args[1]) or str(args[0]).startswith("evil") else None
        if event == "exec":
            return f"exec {args[0].co_filename}" if self.inside(args[0].co_filename) else None
        if event == "open" and self.inside(args[0]) and Path(os.fsdecode(args[0])).suffix in CODE:
            return f"open {os.fsdecode(args[0])}"
        return None

    def inside(self, path: object) -> bool:
        return isinstance(path, str | bytes) and os.path.realpath(os.fsdecode(path)).startswith(self.root)


def load_encoder(folder: Path) -> str:
    from manyhead.encoder.load import build_encoder, read_config
    from manyhead.encoder.source import locate_encoder
    from manyhead.encoder.tokenizer import check_tokenizer, load_tokenizer

    source = locate_encoder(str(folder), None)
    config = read_config(source.folder, dropout=0.0, attention_dropout=None)
    tokenizer = load_tokenizer(source.folder)
    check_tokenizer(tokenizer, config, source.folder)
    build_encoder(config, source.folder, layer=-1, capture=False, max_tokens=16)
    return "\n".join((*source.notes, " ".join(tokenizer.encode("a film").tokens)))


def load_model(folder: Path) -> str:
    from manyhead.inference.predictor import Model

    return str(Model.load(folder).predict("reviews", ["a good film"])[0].label)


def resume(folder: Path) -> str:
    from manyhead.build import train
    from manyhead.recipe.load import load_recipe

    return str(train(load_recipe(folder / "recipe.yaml"), out=folder, resume=True).summary["status"])


def touch(folder: Path) -> str:
    """Does what must be noticed: proof that the hook hears."""
    import pickle
    import socket

    found: list[str] = []
    for name in ("modeling.py", "weights.pt"):
        try:
            (folder / name).read_bytes()
        except RuntimeError as error:
            found.append(str(error))
    for act in (
        lambda: pickle.loads(b"cos\nsystem\n."),
        lambda: socket.create_connection(("127.0.0.1", 9)),
        lambda: exec(compile("1", str(folder / "evil.py"), "exec")),
        lambda: __import__("evil_module"),
    ):
        try:
            act()
        except RuntimeError as error:
            found.append(str(error))
    return str(len(found))


ACTIONS = {"encoder": load_encoder, "model": load_model, "resume": resume, "touch": touch}


def main() -> None:
    watch = Watch(sys.argv[1])
    sys.addaudithook(watch)
    outcomes: list[dict[str, Any]] = []
    for number, (action, path) in enumerate(json.load(sys.stdin)):
        watch.on, watch.touched = number > 0, []
        error, message = None, ""
        try:
            message = ACTIONS[action](Path(path))
        except Exception as raised:
            error, message = type(raised).__name__, str(raised)
        watch.on = False
        outcomes.append({"error": error, "message": message, "touched": watch.touched})
    print()
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
