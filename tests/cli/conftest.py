"""A recipe on a tiny encoder, and one run of it that all tests of finished runs look at."""

from pathlib import Path

import pytest
from commands import run, write_recipe

from tiny import tiny_encoder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def trained(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("trained")
    run("train", write_recipe(folder / "tiny.yaml", encoder), "--out", folder / "run", "-q")
    return folder / "run"


@pytest.fixture
def recipe(encoder: Path, tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "tiny.yaml", encoder)
