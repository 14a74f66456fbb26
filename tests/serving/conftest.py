"""One trained tiny run, and one server of it that tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from live import Live, live

from manyhead.build import train
from manyhead.inference.predictor import Model
from manyhead.recipe.load import load_recipe
from tiny import tiny_encoder, tiny_recipe


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("served")
    return train(load_recipe(tiny_recipe(tiny_encoder(base / "encoder"))), out=base / "run").path


@pytest.fixture(scope="session")
def model(run: Path) -> Model:
    return Model.load(run)


@pytest.fixture(scope="session")
def shared(run: Path) -> Iterator[Live]:
    with live(run) as found:
        yield found
