"""Running a verdict: the one function behind ``manyhead verdict``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manyhead.data.examples import read_examples, reference_of
from manyhead.data.resolve import resolve_files
from manyhead.data.selection import halves_of
from manyhead.errors import DataError, Problem, UsageError
from manyhead.evaluation.scored import Scored
from manyhead.evaluation.statistics.comparison import Comparison
from manyhead.evidence.predictions import read_predictions
from manyhead.files import write_json, write_text, writing
from manyhead.recipe.layers import Overrides
from manyhead.recipe.load import LoadedRecipe, load_recipe
from manyhead.recipe.overrides import Place
from manyhead.recipe.schema import Recipe
from manyhead.studies.folder import StudyFolder, open_study
from manyhead.studies.planner import Options, Planner, Setting
from manyhead.studies.run import exit_code_of
from manyhead.studies.runner import Runner
from manyhead.studies.runs import PlannedRun
from manyhead.studies.schema import Budget
from manyhead.studies.verdict.budget import Equal, shared_budget, single_budget
from manyhead.studies.verdict.document import Header, Runs, compared, html_text, markdown_text, verdict_document
from manyhead.studies.verdict.single import scored_tasks, single_recipe
from manyhead.studies.verdict.tuning import SHARED, Side, tuned

FACTORS = (0.5, 1.0, 2.0)
"""What learning rates are multiplied by, in turn, to tune them."""

_PICKING: Setting = (("select_on",), {"dev": 0.5}, Place(None))
"""Which dev rows pick checkpoints and rates, where the recipe does not say: a score of them would be too good."""


@dataclass(frozen=True)
class VerdictResult:
    """A verdict: its folder, and what verdict.json says."""

    path: Path
    document: Mapping[str, Any] = field(repr=False)

    @property
    def exit_code(self) -> int:
        """0 where all runs finished, 3 where one diverged, 2 where one failed otherwise."""
        return exit_code_of(self.document["failures"])


def run_verdict(
    source: str | Path,
    *,
    seeds: int = 3,
    examples: int | None = None,
    equal: Equal = "task",
    factors: Sequence[float] = FACTORS,
    out: Path | None = None,
    jobs: int = 1,
    data_dir: Path | None = None,
    overrides: Overrides = (),
    keep_models: bool = False,
    command: Sequence[str] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> VerdictResult:
    """Trains what is left of a recipe and its single-task baselines, and says for each task whether sharing helped.

    Args:
        source: A recipe's file or the name of a shipped one.
        seeds: Seeds of each side: the recipe's, and those after it.
        examples: Most training examples that the shared run sees; None: as the recipe says.
        equal: What baselines are given as much of as the shared run: see `single_budget`.
        factors: What learning rates are multiplied by to tune each side; one factor: no tuning.
        out: The folder; ``runs/verdicts/NAME`` by default. What is done there is not done again.
        jobs: Runs at a time.
        data_dir: Replaces the recipe's ``data_dir``.
        overrides: Keys that are set in the recipe.
        keep_models: Keep the model of each run, not only its scores, log, predictions and report.
        command: How it was called, for the page.
        tell: Is given a line for the user when something happens.

    Returns:
        The verdict. A run that failed or diverged is in it as such, and is no error.

    Raises:
        RecipeError, DataError: Everything wrong with the recipe and its data, before anything is run.
        UsageError: Less than two tasks to compare, or the folder holds something else.
        StoppedError: A signal ended it; called again, it goes on.
    """
    loaded = load_recipe(source, overrides=overrides, data_dir=data_dir)
    if loaded.recipe.select_on is None:
        loaded = load_recipe(source, overrides=overrides, data_dir=data_dir, settings=[_PICKING])
    tasks = _comparable(loaded)
    sides = _sides(loaded, tasks, examples, equal)
    header = Header(loaded.recipe, tuple(tasks), seeds, examples, equal, tuple(factors), command)
    name = loaded.recipe.name
    folder = open_study(out or Path("runs/verdicts") / name, f"verdict on {name}", "verdict")

    with folder.locked(tell) as lock:
        runner = Runner(folder, jobs=jobs, keep_models=keep_models, tell=tell, ended=lambda: None)
        trials = [side.run(factor, 0) for side in sides for factor in factors]
        if len(factors) > 1:
            tell(f"tuning: {len(trials)} runs, {len(factors)} rates for each of {len(sides)} models")
        runner.run(trials, lock)
        rates = {side.name: tuned(side, factors, folder) for side in sides}
        chosen = {side.name: [side.run(rates[side.name].factor, number) for number in range(seeds)] for side in sides}
        tell(f"seeds: {seeds} of each model")
        runner.run([chosen[side.name][number] for number in range(seeds) for side in sides], lock)
        found = compared(*_predictions(folder, tasks, chosen))
        document = verdict_document(header, Runs(rates, trials, chosen), found, folder)
        write_verdict(folder, document, found)
    return VerdictResult(folder.path, document)


def write_verdict(folder: StudyFolder, document: Mapping[str, Any], found: Comparison | None) -> None:
    """Writes verdict.json, verdict.md and verdict.html."""
    with writing(str(folder.path / "verdict")):
        write_json(folder.path / "verdict.json", document)
        write_text(folder.path / "verdict.md", markdown_text(document))
        write_text(folder.path / "verdict.html", html_text(document, found))


def _comparable(loaded: LoadedRecipe) -> list[str]:
    recipe, source = loaded.recipe, loaded.path or loaded.recipe.name
    if recipe.grid or recipe.search is not None:
        raise UsageError(
            f"{source}: has a {'grid' if recipe.grid else 'search'}, so it stands for several recipes; expected one; "
            "choose its point by --set grid={} --set KEY=VALUE"
        )
    tasks = scored_tasks(recipe)
    if len(tasks) < 2:
        raise UsageError(
            f"{source}: {len(tasks)} task{'' if len(tasks) == 1 else 's'} that is trained and has dev data; expected "
            "two or more, whose sharing could help or hurt; add files.train and files.dev to more tasks"
        )
    return tasks


def _sides(loaded: LoadedRecipe, tasks: Sequence[str], examples: int | None, equal: Equal) -> list[Side]:
    """The shared model and those of each task alone, at their budgets."""
    planner = Planner(Options(Budget(), seeds=1))
    rows, data = planner.data_of(loaded.recipe)
    _check_halves(loaded.recipe, tasks)
    shared = shared_budget(loaded.recipe, rows, loaded.tables, examples)
    sides = [Side(SHARED, None, shared, data)]
    for task in tasks:
        single = single_recipe(loaded, task)
        recipe = single_budget(single, shared, rows, equal)
        own = {name: digest for name, digest in data.items() if name.rpartition(".")[0] == task}
        sides.append(Side(task, task, recipe, own))
    return sides


def _check_halves(recipe: Recipe, tasks: Sequence[str]) -> None:
    """Raises `DataError` where dev cannot be divided into rows that pick and rows that are scored."""
    problems: list[Problem] = []
    resolve = resolve_files(recipe)
    for name in tasks:
        reference = reference_of(recipe.tasks[name], "dev")
        assert reference is not None
        try:
            examples = read_examples(name, recipe.tasks[name], "dev", resolve(reference), seed=recipe.seed)
            halves_of(recipe, name, sum(1 for _ in examples))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)


def _predictions(
    folder: StudyFolder, tasks: Sequence[str], chosen: Mapping[str, Sequence[PlannedRun]]
) -> tuple[list[dict[str, Scored]], list[dict[str, Scored]]]:
    """By seed what the single-task models predicted, and what the shared one did, of seeds that all finished."""
    single: list[dict[str, Scored]] = []
    shared: list[dict[str, Scored]] = []
    for number in range(min(map(len, chosen.values()))):
        if not all(folder.summary(runs[number]) for runs in chosen.values()):
            continue
        single.append({task: _scored(folder, chosen[task][number], task) for task in tasks})
        shared.append({task: _scored(folder, chosen[SHARED][number], task) for task in tasks})
    return single, shared


def _scored(folder: StudyFolder, run: PlannedRun, task: str) -> Scored:
    return read_predictions(folder.run_path(run), task, run.recipe.tasks[task])
