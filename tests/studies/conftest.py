"""A tiny encoder, and recipes on it as files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tiny import tiny_encoder, tiny_recipe

WriteRecipe = Callable[..., Path]


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def write_recipe(encoder: Path, tmp_path: Path) -> WriteRecipe:
    """Writes NAME.yaml: the tiny recipe with other stages, other keys and lines of comments."""

    def write(name: str, *stages: dict[str, Any], header: str = "", **changes: Any) -> Path:
        values: dict[str, Any] = tiny_recipe(encoder) | {"name": name} | changes
        first = values["stages"][0]
        values["stages"] = [{**first, "name": f"s{place}", **stage} for place, stage in enumerate(stages or ({},))]
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"# {name}\n{header}" + yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.fixture
def write_study(tmp_path: Path) -> Callable[[str], Path]:
    """Writes study.yaml beside the recipes."""

    def write(text: str) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write
