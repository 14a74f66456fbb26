"""No pickle anywhere: no source of ours reads or writes one, and one that was planted is never opened."""

import ast
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from watched import run_watched

import manyhead
from manyhead.build import train
from manyhead.errors import CheckpointError, ManyheadError, StoppedError
from manyhead.recipe.load import load_recipe
from manyhead.recipe.stored import load_stored_recipe
from stopping import StopAt
from tiny import tiny_encoder, tiny_recipe

SOURCES = sorted(Path(manyhead.__file__).parent.rglob("*.py"))

MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "copyreg"}
# What these hand to another process is pickled.
MODULES |= {"multiprocessing", "concurrent.futures.process"}
CALLS = {f"torch.{name}" for name in ("load", "save", "jit.load", "hub.load", "package", "multiprocessing")}
CALLS |= {"pandas.read_pickle", "concurrent.futures.ProcessPoolExecutor", "runpy.run_path", "runpy.run_module"}
CALLS |= {f"yaml.{kind}{name}" for kind in ("", "full_", "unsafe_") for name in ("load", "load_all")}
CALLS |= {f"yaml.{safe}{name}" for safe in ("", "C") for name in ("Loader", "FullLoader", "UnsafeLoader", "Dumper")}
BUILTINS = {"eval", "exec", "compile", "__import__"}
KEYWORDS = {"trust_remote_code", "allow_pickle"}
ALLOWED: dict[str, set[str]] = {
    "export/readers/onnx.py": {"exec"},  # the program that an export shows its users, as it was just written
}
"""Uses by file, below src/manyhead, that are known and safe; each with its reason beside it."""

PLANTED = ("pytorch_model.bin", "weights.pt", "model.pth", "best.ckpt", "state.pkl", "rng_state.pth", "optimizer.pt")
PLANTED += ("training_args.bin", "scheduler.pt", "adapter_model.bin", "extras.pickle", "cache.joblib", "modeling.py")


def unsafe_uses(tree: ast.AST) -> Iterator[str]:
    """What in ``tree`` could run code out of a file, or write one that could."""
    full_names = {
        alias.asname or alias.name: f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    for name in full_names.values():
        parts = name.split(".")
        if MODULES & {".".join(parts[:length]) for length in range(1, len(parts) + 1)} or name in CALLS:
            yield f"import {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            if (name := f"{full_names.get(first, first)}.{rest}") in CALLS:
                yield name
        elif isinstance(node, ast.Name) and node.id in BUILTINS:
            yield node.id
        elif isinstance(node, ast.keyword) and node.arg in KEYWORDS and ast.unparse(node.value) != "False":
            yield f"{node.arg}={ast.unparse(node.value)}"


def test_no_source_of_ours_runs_code_out_of_files() -> None:
    assert len(SOURCES) > 150
    found = {
        str(path.relative_to(Path(manyhead.__file__).parent)): uses
        for path in SOURCES
        if (uses := set(unsafe_uses(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert found == ALLOWED


@pytest.mark.parametrize(
    "source",
    [
        *(f"import {name}" for name in ("pickle", "dill as d", "joblib", "shelve", "marshal", "multiprocessing.pool")),
        *("from joblib import dump", "from concurrent.futures import ProcessPoolExecutor", "from torch import load"),
        *("import torch\ntorch.load('x')", "import torch as t\nread = t.load", "import torch\ntorch.save(m, 'x')"),
        *("import yaml\nyaml.load(f, L)", "from yaml import unsafe_load", "import yaml\nclass L(yaml.CLoader): ..."),
        *("eval('1')", "exec(code)", "f = compile(s, p, 'exec')", "__import__(name)"),
        *("f('x', trust_remote_code=True)", "f('x', allow_pickle=flag)"),
    ],
)
def test_unsafe_uses_are_found(source: str) -> None:
    assert list(unsafe_uses(ast.parse(source)))


def test_safe_uses_are_not() -> None:
    source = "import torch, json, re, yaml\njson.load(f)\nmodel.load('x')\nmodel.eval()\nre.compile('x')\n"
    source += "yaml.safe_load(f)\nf('x', trust_remote_code=False)\nclass L(yaml.CSafeLoader): ..."
    assert not list(unsafe_uses(ast.parse(source)))


class Evil:
    """Its pickle creates a file where it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def plant(folder: Path, marker: Path) -> None:
    """Puts pickles, and code, of every usual name into ``folder`` and all folders below."""
    for each in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        for name in PLANTED:
            (each / name).write_bytes(pickle.dumps(Evil(marker)))
        (each / "adapter_config.json").write_text('{"base_model_name_or_path": "acme/evil", "peft_type": "LORA"}')


def test_planted_pickles_are_never_opened(tmp_path: Path) -> None:
    """In an encoder, a model folder, and a run that is gone on with; the predictions are those without them."""
    encoder = tiny_encoder(tmp_path / "encoder")
    plain = Path(shutil.copytree(encoder, tmp_path / "plain"))
    recipe = load_recipe(tiny_recipe(encoder))
    done = train(recipe, out=tmp_path / "done").path
    with pytest.raises(StoppedError):
        train(recipe, out=tmp_path / "stopped", observer=StopAt(3))
    clean = Path(shutil.copytree(done / "model", tmp_path / "clean"))
    marker = tmp_path / "marker"
    for folder in (encoder, done, tmp_path / "stopped"):
        plant(folder, marker)
    jobs = [("encoder", plain), ("touch", encoder), ("model", clean), ("encoder", plain), ("encoder", encoder)]
    jobs += [("model", done / "model"), ("model", done), ("resume", tmp_path / "stopped"), ("resume", done)]
    _, heard, before, bare, *after = run_watched(tmp_path, jobs)
    kinds = ["open", "open", "pickle.find_class", "socket.getaddrinfo", "exec", "import"]
    assert (heard.message, [text.split()[0] for text in heard.touched]) == ("6", kinds)
    assert [(outcome.error, outcome.touched) for outcome in (before, bare, *after)] == [(None, [])] * 7
    assert [outcome.message for outcome in after] == [bare.message, *[before.message] * 2, "finished", "finished"]
    assert not marker.exists()


@pytest.mark.parametrize(
    "tag",
    ["!!python/object/apply:os.system [touch marker]", "!!python/name:os.system", "!!python/object:os.PathLike {}"],
)
def test_objects_in_yaml_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str) -> None:
    monkeypatch.chdir(tmp_path)
    for text in (f"manyhead: 1\nname: {tag}\n", f"manyhead: 1\nplugins: {tag}\n", tag):
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ManyheadError, match=r"recipe\.yaml"):
            load_recipe(path)
        with pytest.raises(CheckpointError, match="python"):
            load_stored_recipe(path)
    assert not (tmp_path / "marker").exists()
