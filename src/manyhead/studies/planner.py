"""From recipes to runs: their data counted, their budgets kept, and stages that they share cut alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from manyhead.data.examples import read_examples, reference_of
from manyhead.data.resolve import resolve_files
from manyhead.files import sha256_of
from manyhead.recipe.keys import Keys, split_assignment, split_key
from manyhead.recipe.layers import Overrides
from manyhead.recipe.load import LoadedRecipe, load_recipe
from manyhead.recipe.overrides import Place
from manyhead.recipe.schema import Recipe, Split, Tables
from manyhead.studies.budget import allowances, cut, shorten
from manyhead.studies.load import slug
from manyhead.studies.runs import PlannedRun, digest_of, prefix_digests
from manyhead.studies.schema import Budget

Setting = tuple[Keys, object, Place]
"""A key of a recipe, its value, and where that is written."""

_SPLITS: tuple[Split, ...] = ("train", "dev")
_READ_ALIKE = {"head", "head_from", "loss", "auxiliary", "metric"}
"""Keys of a task that do not matter to which of its rows can be used."""


@dataclass(frozen=True)
class Options:
    """What a study is run with: the same for all its recipes."""

    budget: Budget
    seeds: int
    overrides: Overrides = ()
    data_dir: Path | None = None


@dataclass(frozen=True)
class Draft:
    """A run before its stages are cut. ``rows``: usable training rows by task; ``data``: see `PlannedRun`."""

    name: str
    recipe: Recipe
    tables: Tables
    rows: Mapping[str, int]
    data: Mapping[str, str]


class Planner:
    """Makes runs of recipes. Files of data are read once, however many recipes name them."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._counts: dict[str, int] = {}
        self._hashes: dict[Path, str] = {}

    def load(self, path: Path, settings: Sequence[Setting] = ()) -> LoadedRecipe:
        """A recipe with ``settings`` and the study's overrides. Raises `RecipeError`."""
        options = self.options
        return load_recipe(path, overrides=options.overrides, data_dir=options.data_dir, settings=settings)

    def drafts(self, loaded: LoadedRecipe, row: str, settings: Sequence[Setting] = ()) -> list[Draft]:
        """One for each seed: the recipe's, and those after it. Raises `DataError`, and `UsageError` for the hub's."""
        found: list[Draft] = []
        for number in range(self.options.seeds):
            recipe = loaded.recipe.reseeded(loaded.recipe.seed + number).with_changes(grid={}, search=None)
            rows, data = self.data_of(recipe)
            short = shorten(recipe, self.options.budget, keep_encoder=self._names_encoder(settings))
            found.append(Draft(f"{slug(row)}-seed{recipe.seed}", short, loaded.tables, rows, data))
        return found

    def runs(self, drafts: Sequence[Draft]) -> list[PlannedRun]:
        """The runs of drafts, in their order."""
        limit = self.options.budget.examples
        if limit is None:
            recipes = [draft.recipe for draft in drafts]
        else:
            allowed = [allowances(draft.recipe, draft.rows, draft.tables, self.options.budget) for draft in drafts]
            recipes = [
                cut(draft.recipe, draft.rows, draft.tables, each)
                for draft, each in zip(drafts, _shared(drafts, allowed, limit), strict=True)
            ]
        return [_run(draft, recipe) for draft, recipe in zip(drafts, recipes, strict=True)]

    def data_of(self, recipe: Recipe) -> tuple[dict[str, int], dict[str, str]]:
        """Usable training rows by task, and the sha256 of each file by TASK.SPLIT."""
        counts: dict[str, int] = {}
        hashes: dict[str, str] = {}
        resolve = resolve_files(recipe)
        for name, task in recipe.tasks.items():
            for split in _SPLITS:
                reference = reference_of(task, split)
                if reference is None:
                    continue
                path = resolve(reference)
                if split == "train":
                    key = f"{path} {name} {recipe.seed} {task.model_dump_json(exclude=_READ_ALIKE)}"
                    if key not in self._counts:
                        self._counts[key] = sum(1 for _ in read_examples(name, task, split, path, seed=recipe.seed))
                    counts[name] = self._counts[key]
                if path not in self._hashes:
                    read_examples(name, task, split, path, seed=recipe.seed)
                    self._hashes[path] = sha256_of(path)
                hashes[f"{name}.{split}"] = self._hashes[path]
        return counts, hashes

    def _names_encoder(self, settings: Sequence[Setting]) -> bool:
        given = self.options.overrides
        keys = [keys for keys, _, _ in settings]
        if isinstance(given, Mapping):
            keys += [split_key(key) for key in given]
        else:
            keys += [split_assignment(text)[0] for text in given]
        return any(each in (("encoder",), ("encoder", "checkpoint")) for each in keys)


def _run(draft: Draft, recipe: Recipe) -> PlannedRun:
    digest = digest_of(recipe, draft.data)
    return PlannedRun(f"{draft.name}-{digest}", digest, recipe, draft.data)


def _shared(drafts: Sequence[Draft], allowed: Sequence[Sequence[float]], limit: int) -> list[list[float]]:
    """What each stage may see where recipes that begin alike have their common stages cut alike.

    A stage is given the least that any of them has for it; what is left over goes to the last stage.
    """
    keys = [prefix_digests(draft.recipe, draft.data)[:-1] for draft in drafts]
    least: dict[str, float] = {}
    for own, each in zip(keys, allowed, strict=True):
        for key, examples in zip(own, each, strict=False):
            least[key] = min(examples, least.get(key, examples))
    found: list[list[float]] = []
    for own, each in zip(keys, allowed, strict=True):
        before = [least[key] for key in own]
        found.append([*before, each[-1] if before == each[:-1] else limit - sum(before)])
    return found
