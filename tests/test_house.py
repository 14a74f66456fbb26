"""Rules of the house: packaging, pins, and what source files must not contain."""

import ast
import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = [Requirement(line) for lines in (PROJECT["dependencies"], *EXTRAS.values()) for line in lines]

# Where the project's own text lives; anything else in the folder is built, fetched or private.
OWN_FILES = ("*.md", "Makefile", "pyproject.toml", "constraints.txt", ".pre-commit-config.yaml", ".gitignore")
OWN_FOLDERS = ("src", "tests", "docs", "examples", "benchmarks", "schema", ".ci")
BINARY = {".png", ".gz", ".parquet", ".arrow", ".safetensors", ".pyc"}

# A registry is the business of the machine's pip settings; a path of one machine is of no use on another.
REGISTRIES = re.compile(r"\b(pypi\.org|pythonhosted\.org|download\.pytorch\.org|npmjs\.\w+|anaconda\.org|crates\.io)\b")
MACHINE_PATHS = re.compile(r"(?<![\w.\-/}])/(work|root|home|Users|opt)/\w|\.\./shared\b")
PLATFORM = re.compile(r"platform|os_name|implementation")
ALLOWED = {Path(__file__).resolve()}


def own_texts() -> list[Path]:
    found = [path for pattern in OWN_FILES for path in ROOT.glob(pattern)]
    found += [path for folder in OWN_FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    return sorted(path for path in found if path.suffix not in BINARY and path.resolve() not in ALLOWED)


def pins() -> dict[str, Version]:
    """Package to version, as constraints.txt gives it; fails on a line that is anything but NAME==VERSION."""
    found: dict[str, Version] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or not line:
            continue
        pin = re.fullmatch(r"([A-Za-z0-9][\w.-]*)==([\w.!]+)", line)
        assert pin, f"constraints.txt: {line!r}: expected NAME==VERSION, without a local version"
        name = canonicalize_name(pin[1])
        assert name not in found, f"constraints.txt: {name} is pinned twice"
        found[name] = Version(pin[2])
    return found


def needed(*, on_any_platform: bool) -> set[str]:
    """Packages that ours need, as the installed ones tell: all of them here, or those that no platform goes without."""
    names: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [(requirement.name, "") for requirement in DIRECT]
    while waiting:
        name, extra = waiting.pop()
        names.add(canonicalize_name(name))
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for requirement in map(Requirement, importlib.metadata.requires(name) or ()):
            marker = requirement.marker
            if marker and (not marker.evaluate({"extra": extra}) or (on_any_platform and PLATFORM.search(str(marker)))):
                continue
            waiting += [(requirement.name, wanted) for wanted in ("", *requirement.extras)]
    return names


def test_no_registries_and_no_machine_paths() -> None:
    texts = own_texts()
    assert {"Makefile", "constraints.txt", "run", "errors.py"} <= {path.name for path in texts}
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in texts
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1)
        for match in (*REGISTRIES.finditer(line), *MACHINE_PATHS.finditer(line))
    ]
    assert not found


@pytest.mark.parametrize("requirement", DIRECT, ids=str)
def test_requirements_are_names_with_versions(requirement: Requirement) -> None:
    assert requirement.url is None


@pytest.mark.parametrize("requirement", DIRECT, ids=str)
def test_constraints_pin_each_requirement_to_a_version_it_allows(requirement: Requirement) -> None:
    version = pins().get(canonicalize_name(requirement.name))
    assert version is not None, f"{requirement.name} is not pinned"
    assert version in requirement.specifier


def test_constraints_pin_everything_that_is_needed_and_nothing_else() -> None:
    assert needed(on_any_platform=True) - pins().keys() == set()
    assert pins().keys() - needed(on_any_platform=False) == set()


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "src/manyhead/py.typed").is_file()


def test_the_version_stands_in_one_place() -> None:
    version = PROJECT["version"]
    assert importlib.metadata.version("manyhead") == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for path in SOURCES:
        constants = (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Constant))
        assert version not in [node.value for node in constants], f"{path}: use importlib.metadata.version"


def test_the_licence_comes_whole() -> None:
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
