"""A trained model on disk: recipe.yaml, weights.safetensors, encoder/ with configuration and tokenizer, manifest.json.

The manifest proves that these files belong together: neither another recipe's labels nor another model's weights can
take their places unnoticed. Where probabilities have a temperature, calibration.json, which is listed as well, has it.
A run has the same recipe.yaml and encoder/; until its model/ exists, the weights are those of its best checkpoint.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PretrainedConfig

from manyhead.encoder.foreign import code_notes
from manyhead.encoder.load import read_config
from manyhead.encoder.tokenizer import TOKENIZER_FILES, check_tokenizer, load_tokenizer, save_tokenizer
from manyhead.errors import CheckpointError, ManyheadError, RecipeError
from manyhead.files import is_listed, manifest_problem, new_folder, write_json, write_manifest, writing
from manyhead.inference.temperatures import CALIBRATION, read_temperatures
from manyhead.model import MultiTaskModel, build_model, empty_model, load_weights, save_weights
from manyhead.recipe.schema import Recipe, Tables
from manyhead.recipe.stored import load_stored_recipe

RECIPE = "recipe.yaml"
WEIGHTS = "weights.safetensors"
ENCODER = "encoder"
_CONFIG = f"{ENCODER}/config.json"
_TOKENIZER = f"{ENCODER}/tokenizer.json"


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
    (folder / Path(_CONFIG).name).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    save_tokenizer(source, tokenizer, folder)


def write_model(
    folder: Path,
    model: MultiTaskModel,
    recipe_text: str,
    encoder_files: Path,
    calibration: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Writes the self-contained model folder; ``encoder_files`` is a run's or a model's encoder/.

    ``calibration``: of each task that has a temperature, that and what it was fitted on.
    """
    with writing(str(folder)), new_folder(folder) as temporary:
        (temporary / RECIPE).write_text(recipe_text, encoding="utf-8")
        (temporary / ENCODER).mkdir()
        for path in (encoder_files / name for name in (Path(_CONFIG).name, *TOKENIZER_FILES)):
            if path.is_file():
                (temporary / ENCODER / path.name).write_bytes(path.read_bytes())
        save_weights(model, temporary / WEIGHTS)
        if calibration:
            write_json(temporary / CALIBRATION, {"tasks": calibration})
        write_manifest(temporary)


def read_model(path: Path, *, plugins: Sequence[str] = ()) -> StoredModel:
    """The model in a model folder, or the best one of a run.

    Raises `CheckpointError` where there is none or it is damaged, `UsageError` where it needs a plugin that ``plugins``
    does not allow: a model never chooses the code that runs.
    """
    folder, weights = model_in(path), weights_of(path)
    for needed in (folder / RECIPE, folder / _CONFIG, folder / _TOKENIZER, weights):
        if not needed.is_file():
            raise CheckpointError(
                f"{path}: no model there, {needed.relative_to(path)} is missing; expected a run with a checkpoint, a "
                "model folder, or a hub id of one"
            )
    _check_whole(folder, weights)
    recipe, tables = _recipe_of(folder / RECIPE, plugins)
    encoder = folder / ENCODER
    try:
        if notes := code_notes(encoder):
            raise CheckpointError(f"{notes[0]}; expected what manyhead wrote; use a model that you trust")
        config = read_config(
            encoder, dropout=recipe.encoder.dropout, attention_dropout=recipe.encoder.attention_dropout
        )
        tokenizer = load_tokenizer(encoder)
        check_tokenizer(tokenizer, config, encoder)
        _check_size(weights, empty_model(recipe, tables, config))
        model = build_model(recipe, tables, config, None)
    except CheckpointError:
        raise
    except (ManyheadError, ValueError) as error:
        raise CheckpointError(f"{folder}: the model cannot be built: {error}") from error
    try:
        load_weights(model, weights)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; copy the model again, or use another") from error
    model.temperatures = read_temperatures(folder, recipe.tasks)
    return StoredModel(model.eval(), recipe, tables, tokenizer, folder)


def weights_of(path: Path) -> Path:
    """The file of the weights of a model folder or of a run, where one is."""
    weights, best = model_in(path) / WEIGHTS, path / "best" / WEIGHTS
    is_run = model_in(path) == path and not weights.is_file()
    return best if is_run and best.is_file() else weights


def model_in(path: Path) -> Path:
    """Where recipe and encoder/ are: in the model/ of a finished run, else in ``path`` itself."""
    return path / "model" if (path / "model").is_dir() and (path / RECIPE).is_file() else path


def _check_whole(folder: Path, weights: Path) -> None:
    """Raises `CheckpointError` where a model folder, or the weights of a run's best checkpoint, are not as written."""
    needed = {folder: [RECIPE, _CONFIG, _TOKENIZER]}
    if (folder / CALIBRATION).exists() or is_listed(folder, CALIBRATION):
        needed[folder].append(CALIBRATION)
    needed.setdefault(weights.parent, []).append(WEIGHTS)
    for place, names in needed.items():
        problem = manifest_problem(place, names, others=False)
        if problem is not None:
            do = "copy the model again, or use another"
            if place != folder:
                do = "go on with the run by --resume, which uses the checkpoint before"
            raise CheckpointError(f"{place}: {problem}; expected the files as they were written; {do}")


def _check_size(weights: Path, empty: MultiTaskModel) -> None:
    """Raises `CheckpointError` before memory is taken for a model that is far larger than the file of its weights."""
    size, described = weights.stat().st_size, sum(parameter.numel() for parameter in empty.parameters())
    if size < 2 * described:
        raise CheckpointError(
            f"{weights}: has {size:,} bytes, but {RECIPE} and {_CONFIG} describe {described:,} parameters; expected 4 "
            "bytes for each; copy the model again, or use another"
        )


def _recipe_of(path: Path, plugins: Sequence[str]) -> tuple[Recipe, Tables]:
    try:
        loaded = load_stored_recipe(path, plugins=plugins)
    except RecipeError as error:
        raise CheckpointError(f"{path}: the model's recipe cannot be used: {error}") from error
    return loaded.recipe, loaded.tables
