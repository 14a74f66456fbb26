"""One tiny world for the tests of regularisers."""

from pathlib import Path

import pytest
from passes import World, new_world


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("regularisers") / "encoder"


@pytest.fixture
def world(folder: Path) -> World:
    """Without dropout: in evaluation mode."""
    found = new_world(folder)
    found.model.eval()
    return found


@pytest.fixture
def dropping(folder: Path) -> World:
    """With dropout, in training mode."""
    found = new_world(folder, dropout=0.3)
    found.model.train()
    return found
