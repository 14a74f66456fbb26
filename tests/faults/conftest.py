"""A tiny encoder that all tests of faults start from."""

from pathlib import Path

import pytest

from tiny import tiny_encoder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))
