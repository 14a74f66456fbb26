"""A trained model on disk: recipe.yaml, weights.safetensors and encoder/ with configuration and tokenizer.

A run has the same recipe.yaml and encoder/; until its model/ exists, the weights are those of its best checkpoint.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PretrainedConfig

from manyhead.encoder.load import read_config
from manyhead.encoder.tokenizer import check_vocabulary, load_tokenizer, save_tokenizer
from manyhead.errors import CheckpointError, ManyheadError, RecipeError
from manyhead.files import new_folder, writing
from manyhead.model import MultiTaskModel, build_model, load_weights, save_weights
from manyhead.recipe.schema import Recipe, Tables
from manyhead.recipe.stored import load_stored_recipe

RECIPE = "recipe.yaml"
WEIGHTS = "weights.safetensors"
ENCODER = "encoder"
_CONFIG = "config.json"


@dataclass(frozen=True)
class StoredModel:
    """A model read back: in fp32, on the CPU, in evaluation mode."""

    model: MultiTaskModel
    recipe: Recipe
    tables: Tables
    tokenizer: Tokenizer
    folder: Path


def save_encoder_files(source: Path, config: PretrainedConfig, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes an encoder's configuration and tokenizer, without weights, into the existing ``folder``."""
    values = {key: value for key, value in config.to_dict().items() if not key.startswith("_")}
    (folder / _CONFIG).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    save_tokenizer(source, tokenizer, folder)


def write_model(folder: Path, model: MultiTaskModel, recipe_text: str, encoder_files: Path) -> None:
    """Writes the self-contained model folder; ``encoder_files`` is a run's or a model's encoder/."""
    with writing(str(folder)), new_folder(folder) as temporary:
        (temporary / RECIPE).write_text(recipe_text, encoding="utf-8")
        (temporary / ENCODER).mkdir()
        for path in sorted(encoder_files.iterdir()):
            (temporary / ENCODER / path.name).write_bytes(path.read_bytes())
        save_weights(model, temporary / WEIGHTS)


def read_model(path: Path, *, plugins: Sequence[str] = ()) -> StoredModel:
    """The model in a model folder, or the best one of a run.

    Raises `CheckpointError` where there is none or it is damaged, `UsageError` where it needs a plugin that ``plugins``
    does not allow: a model never chooses the code that runs.
    """
    folder, weights = model_in(path), weights_of(path)
    for needed in (folder / RECIPE, folder / ENCODER / _CONFIG, weights):
        if not needed.is_file():
            raise CheckpointError(
                f"{path}: no model there, {needed.relative_to(path)} is missing; expected a run with a checkpoint, a "
                "model folder, or a hub id of one"
            )
    recipe, tables = _recipe_of(folder / RECIPE, plugins)
    encoder = folder / ENCODER
    try:
        config = read_config(
            encoder, dropout=recipe.encoder.dropout, attention_dropout=recipe.encoder.attention_dropout
        )
        tokenizer = load_tokenizer(encoder)
        check_vocabulary(tokenizer, config.vocab_size, encoder)
        model = build_model(recipe, tables, config, None)
    except CheckpointError:
        raise
    except (ManyheadError, ValueError) as error:
        raise CheckpointError(f"{folder}: the model cannot be built: {error}") from error
    load_weights(model, weights)
    return StoredModel(model.eval(), recipe, tables, tokenizer, folder)


def weights_of(path: Path) -> Path:
    """The file of the weights of a model folder or of a run, where one is."""
    weights = model_in(path) / WEIGHTS
    return weights if weights.is_file() else path / "best" / WEIGHTS


def model_in(path: Path) -> Path:
    """Where recipe and encoder/ are: in the model/ of a finished run, else in ``path`` itself."""
    return path / "model" if (path / "model" / RECIPE).is_file() else path


def _recipe_of(path: Path, plugins: Sequence[str]) -> tuple[Recipe, Tables]:
    try:
        loaded = load_stored_recipe(path, plugins=plugins)
    except RecipeError as error:
        raise CheckpointError(f"{path}: the model's recipe cannot be used: {error}") from error
    return loaded.recipe, loaded.tables
