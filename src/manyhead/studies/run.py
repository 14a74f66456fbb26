"""Running a study: the one function behind ``manyhead study``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manyhead.errors import DivergedError, UsageError
from manyhead.files import write_json, write_text, writing
from manyhead.recipe.layers import Overrides
from manyhead.recipe.load import LoadedRecipe
from manyhead.studies.folder import StudyFolder, open_study
from manyhead.studies.load import LoadedStudy, load_study
from manyhead.studies.plan import plan_study
from manyhead.studies.planner import Options, Planner
from manyhead.studies.proposals import distributions
from manyhead.studies.runner import Runner
from manyhead.studies.schema import BudgetName
from manyhead.studies.search import Searcher
from manyhead.studies.table import Header, csv_text, markdown_text, study_document

TABLE = "table"


@dataclass(frozen=True)
class StudyResult:
    """A study that has been run: its folder, and what table.json says."""

    path: Path
    document: Mapping[str, Any] = field(repr=False)

    @property
    def exit_code(self) -> int:
        """0 where all runs finished, 3 where one diverged, 2 where one failed otherwise."""
        return exit_code_of(self.document["failures"])


def exit_code_of(failures: Sequence[Mapping[str, Any]]) -> int:
    """0 without ``failures``, 3 where a run diverged, 2 where all failed otherwise."""
    statuses = {run["status"] for run in failures}
    if not statuses:
        return 0
    return DivergedError.exit_code if "diverged" in statuses else UsageError.exit_code


def run_study(
    source: str | Path,
    *,
    seeds: int | None = None,
    budget: BudgetName = "full",
    out: Path | None = None,
    jobs: int = 1,
    data_dir: Path | None = None,
    overrides: Overrides = (),
    keep_models: bool = False,
    command: Sequence[str] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> StudyResult:
    """Runs what is left of a study, and writes its table.

    Args:
        source: A shipped study, a study's file, or a recipe, each point of whose grid is then a row.
        seeds: Seeds of each row; the study's own number by default.
        budget: How much of each recipe is run.
        out: The study's folder; ``runs/studies/NAME-BUDGET`` by default. What is done there is not done again.
        jobs: Runs at a time.
        data_dir: Replaces the recipes' ``data_dir``.
        overrides: Keys that are set in every recipe.
        keep_models: Keep the model of each run, not only its scores, log, predictions and report.
        command: How the study was called, for its table.
        tell: Is given a line for the user when something happens.

    Returns:
        The table. A run that failed or diverged is in it as such, and is no error.

    Raises:
        RecipeError, DataError: Everything wrong with the study, its recipes and their data, before anything is run.
        UsageError: The folder holds something else, or another process works in it.
        StoppedError: A signal ended it; called again, it goes on.
    """
    loaded = load_study(source)
    study = loaded.study
    options = Options(study.budget(budget), seeds or study.seeds, overrides, data_dir)
    header = Header(study, budget, options.budget, options.seeds, command)
    planner = Planner(options)
    searched = _searched(planner, loaded)
    plan = None if searched else plan_study(planner, loaded)
    folder = open_study(out or Path("runs/studies") / f"{study.name}-{budget}", study.name, budget)
    with folder.locked(tell) as lock:
        searcher = Searcher(planner, loaded.path, searched, folder) if searched else None

        def write() -> dict[str, Any]:
            rows = searcher.plan if searcher else plan
            assert rows is not None
            document = study_document(header, rows, folder)
            write_table(folder, document)
            return document

        runner = Runner(folder, jobs=jobs, keep_models=keep_models, tell=tell, ended=write)
        if searcher:
            searcher.run(runner, lock)
        elif plan:
            runner.run(plan.runs, lock)
        return StudyResult(folder.path, write())


def _searched(planner: Planner, loaded: LoadedStudy) -> LoadedRecipe | None:
    """The recipe whose search the study is, if it is one. Raises `UsageError` for what does not go with a search."""
    if not loaded.is_recipe:
        return None
    found = planner.load(loaded.path)
    if found.recipe.search is None:
        return None
    if planner.options.seeds > 1:
        raise UsageError(f"{loaded.path}: a search with several seeds; expected one; leave --seeds out")
    if all(task.files.dev is None for task in found.recipe.tasks.values()):
        raise UsageError(f"{loaded.path}: a search needs a dev score; add files.dev to a task")
    distributions(found.recipe.search)
    planner.drafts(found, found.recipe.name)
    return found


def write_table(folder: StudyFolder, document: Mapping[str, Any]) -> None:
    """Writes table.json, table.csv and table.md."""
    with writing(str(folder.path / TABLE)):
        write_json(folder.path / f"{TABLE}.json", document)
        write_text(folder.path / f"{TABLE}.csv", csv_text(document))
        write_text(folder.path / f"{TABLE}.md", markdown_text(document))
