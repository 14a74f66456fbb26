"""The names that ``import manyhead`` gives."""

from pathlib import Path

import pytest

import manyhead
from tiny import tiny_encoder, tiny_recipe


def test_train_and_load_from_python(tmp_path: Path) -> None:
    recipe = tiny_recipe(tiny_encoder(tmp_path / "encoder"))
    run = manyhead.train(recipe, overrides={"stages.0.epochs": 1}, out=tmp_path / "run", seed=7)
    assert run.summary["steps"] == 3
    assert run.summary["seed"] == 7
    model = manyhead.Model.load(run.path)
    prediction = model.predict("reviews", ["a fine evening"])[0]
    assert isinstance(prediction, manyhead.Prediction)
    assert isinstance(run, manyhead.Run)
    again = manyhead.train(recipe, ["stages.0.epochs=1"], tmp_path / "run", seed=7, resume=True)
    assert again.summary == run.summary


def test_everything_promised_is_there_and_nothing_else() -> None:
    for name in manyhead.__all__:
        assert getattr(manyhead, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = manyhead.nothing
