"""A tiny encoder, and a finished run with cosines that was watched while it trained."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from watched_runs import train_tiny

from tiny import tiny_encoder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def finished(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tracked") / "a run"
    train_tiny(encoder, path, ["raises_at_log", "witness"], balancing="pcgrad", schedule="parallel")
    return path


@pytest.fixture
def copied(finished: Path) -> Callable[[Path], Path]:
    """Copies the finished run."""
    return lambda target: shutil.copytree(finished, target, symlinks=True)
