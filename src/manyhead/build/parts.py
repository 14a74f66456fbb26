"""Everything a run reads before it trains: the encoder's files, the tokenizer, the data."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer
from transformers import PretrainedConfig

from manyhead.build.starting import Start, plan_start
from manyhead.build.teachers import check_teachers
from manyhead.build.trainable import trainable_problems
from manyhead.data.cache import load_task_data
from manyhead.data.check import DataReport
from manyhead.data.checked import checked_data
from manyhead.data.examples import reference_of
from manyhead.data.fetch import pin_recipe_references
from manyhead.data.resolve import hub_cache, resolve_files
from manyhead.data.task_data import TaskData
from manyhead.device import Hardware, choose_hardware
from manyhead.encoder.load import read_config
from manyhead.encoder.source import EncoderSource, locate_encoder
from manyhead.encoder.tokenizer import check_tokenizer, load_tokenizer
from manyhead.errors import Problem, RecipeError
from manyhead.files import FileHashes
from manyhead.inference.model_folder import ENCODER, model_in, save_encoder_files
from manyhead.recipe.load import LoadedRecipe
from manyhead.recipe.schema import Recipe, Split, Tables
from manyhead.tracking.run import missing_packages
from manyhead.training.observer import Observer

TRAINING_SPLITS: tuple[Split, ...] = ("train", "dev")


@dataclass(frozen=True)
class Parts:
    """Everything read before training starts.

    ``encoder`` is the folder of configuration and tokenizer. ``source`` has the weights to start from; None where those
    of a checkpoint are to come. ``start`` says which of them are taken over.
    """

    recipe: Recipe
    tables: Tables
    source: EncoderSource | None
    encoder: Path
    config: PretrainedConfig
    tokenizer: Tokenizer
    data: Mapping[tuple[str, str], TaskData]
    hardware: Hardware
    start: Start = field(default_factory=Start)

    def save_encoder(self, folder: Path) -> None:
        """Writes the encoder's configuration and tokenizer into ``folder``."""
        save_encoder_files(self.encoder, self.config, self.tokenizer, folder)

    def split(self, split: str) -> dict[str, TaskData]:
        """The tasks' data of one split, in recipe order."""
        return {task: data for (task, name), data in self.data.items() if name == split}


class FoundEncoder(NamedTuple):
    """Where the encoder is, the folder of its configuration, the configuration, and what of it a run begins with."""

    source: EncoderSource | None
    folder: Path
    config: PretrainedConfig
    start: Start


def read_encoder(loaded: LoadedRecipe, watcher: Observer, folder: Path | None = None) -> FoundEncoder:
    """The recipe's encoder; without a source where ``folder``, of its configuration, is given.

    Raises `UsageError` where there is none, and `RecipeError` where teachers or the checkpoint's head do not fit or
    stages train nothing.
    """
    options, source, start = loaded.recipe.encoder, None, Start()
    if folder is None:
        source = locate_encoder(options.checkpoint, options.revision)
        for note in source.notes:
            watcher.event(note)
        folder = model_in(source.folder) / ENCODER if source.kind == "manyhead" else source.folder
    config = read_config(folder, dropout=options.dropout, attention_dropout=options.attention_dropout)
    if source is not None:
        start = plan_start(loaded.recipe, loaded.tables, source)
        for note in start.notes:
            watcher.event(note)
    problems = [
        *check_teachers(loaded.recipe),
        *trainable_problems(loaded.recipe, loaded.tables, config),
        *missing_packages(loaded.recipe),
        *start.problems,
    ]
    if problems:
        raise RecipeError([_placed(loaded, problem) for problem in problems])
    return FoundEncoder(source, folder, config, start)


def read_parts(
    loaded: LoadedRecipe,
    watcher: Observer,
    *,
    report: DataReport | None = None,
    encoder: Path | None = None,
    hardware: Hardware | None = None,
) -> Parts:
    """Reads all parts of ``loaded``; nothing is trained and nothing written but caches.

    ``report`` of an earlier `checked_data` saves another check. ``encoder`` is a run's own configuration and tokenizer,
    to go on from its checkpoint; without it the recipe's checkpoint is located. Raises `UsageError`, `RecipeError` and
    `DataError`.
    """
    source, encoder, config, start = read_encoder(loaded, watcher, encoder)
    tokenizer = load_tokenizer(encoder)
    check_tokenizer(tokenizer, config, encoder)
    recipe = loaded.recipe
    revision = recipe.encoder.revision if source is None else source.revision
    recipe = pin_recipe_references(recipe, hub_cache(), encoder_revision=revision)
    resolve = resolve_files(recipe)
    hashes = FileHashes()
    report = report or checked_data(recipe, place=loaded.place, resolve=resolve, hashes=hashes)
    report.raise_errors()
    for warning in report.warnings:
        watcher.event(f"warning: {warning}")
    data = {
        (name, split): load_task_data(name, split, recipe, tokenizer, resolve=resolve, hashes=hashes)
        for split in TRAINING_SPLITS
        for name, task in recipe.tasks.items()
        if reference_of(task, split) is not None
    }
    hardware = hardware or choose_hardware(recipe.device, recipe.precision, recipe.threads)
    return Parts(recipe, loaded.tables, source, encoder, config, tokenizer, data, hardware, start)


def _placed(loaded: LoadedRecipe, problem: Problem) -> Problem:
    """The problem with the file and line of its key."""
    path, line = loaded.place(problem.key or "")
    return replace(problem, path=path, line=line)
