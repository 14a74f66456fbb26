"""``manyhead check``: everything wrong with a recipe and its data, and what training would cost. Trains nothing."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from manyhead.cli.options import DataDir, Json, Overrides, Quiet, RecipeName, listed
from manyhead.cli.output import duration, speaking, table
from manyhead.errors import DataError, ManyheadError, Problem, RecipeError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from manyhead.build import Parts
    from manyhead.build.starting import Start
    from manyhead.build.trainable import StageParameters
    from manyhead.cli.cost import Cost
    from manyhead.data.check import DataReport, SplitReport
    from manyhead.data.examples import Resolve
    from manyhead.recipe.load import LoadedRecipe
    from manyhead.recipe.schema import Recipe

EXAMPLES = (
    "manyhead check my.yaml",
    "manyhead check cs224n-cpu --data-dir data/cs224n",
    "manyhead check my.yaml --set stages.0.batch_size=64 --json",
)

_GIGABYTE = 1e9


@dataclass(frozen=True)
class Checked:
    """What was found. ``truncated`` is the share of rows that are cut, by TASK.SPLIT; it and ``cost`` need an encoder.

    ``start`` says what of its checkpoint a run begins with; it and ``parameters`` need the encoder's configuration.
    ``failure`` is what is wrong beside the data: the encoder is missing or does not fit.
    """

    data: "DataReport"
    start: "Start | None"
    parameters: "StageParameters | None"
    truncated: dict[str, float]
    cost: "Cost | None"
    failure: ManyheadError | None

    @property
    def errors(self) -> list[str]:
        """Everything wrong, a line each."""
        return [*map(str, self.data.errors), *(str(self.failure).splitlines() if self.failure else [])]

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        return DataError.exit_code if self.data.errors else self.failure.exit_code if self.failure else 0

    def as_json(self) -> dict[str, Any]:
        """The document of ``--json``."""
        data = self.data.as_json()
        for split in data["splits"]:
            split["truncated"] = self.truncated.get(f"{split['task']}.{split['split']}")
        cost = None if self.cost is None else {**asdict(self.cost), "seconds": self.cost.seconds}
        return {
            "ok": not self.errors,
            "errors": self.errors,
            "warnings": data["warnings"],
            "data": data,
            "start": None if self.start is None else self.start.as_dict(),
            "parameters": self.parameters,
            "cost": cost,
        }


def check(
    recipe: RecipeName,
    *,
    data_dir: DataDir = None,
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say everything that is wrong with a recipe and its data.

    Looks at every row of every file, again only where files or recipe changed, and estimates what training would cost.
    Trains nothing.
    """
    from manyhead.recipe.load import load_recipe

    with speaking(as_json=as_json, quiet=quiet) as output:
        try:
            loaded = load_recipe(recipe, overrides=listed(overrides), data_dir=data_dir)
            found = check_recipe(loaded, note=output.note)
        except ManyheadError as error:
            if as_json:
                output.document(_refused(error))
            raise
        if as_json:
            output.document(found.as_json())
        elif not quiet:
            output.show(*_shown(found))
        output.note(*(f"warning: {warning}" for warning in found.data.warnings))
        output.error(*found.errors)
        if found.errors:
            raise typer.Exit(found.exit_code)
        output.note("nothing is wrong" if not found.data.warnings else "nothing keeps this recipe from being trained")


def check_recipe(loaded: "LoadedRecipe", *, note: Callable[[str], None]) -> Checked:
    """Checks the encoder and the data of a recipe; where both are there, counts cut rows and estimates the cost.

    Raises `RecipeError`, before any data is read, where the recipe asks of the encoder what cannot be.
    """
    from manyhead.build import read_parts
    from manyhead.build.parts import read_encoder
    from manyhead.build.trainable import stage_parameters
    from manyhead.cli.cost import estimate
    from manyhead.data.checked import checked_data
    from manyhead.training.observer import Observer

    start, parameters, failure = None, None, None
    note("reading the encoder ...")
    try:
        _, _, config, start = read_encoder(loaded, Observer())
        parameters = stage_parameters(loaded.recipe, loaded.tables, config)
        for line in start.notes:
            note(line)
    except RecipeError:
        raise
    except ManyheadError as error:
        failure = error
    resolve = _resolver(loaded.recipe)
    report = checked_data(loaded.recipe, place=loaded.place, resolve=resolve)
    if report.errors or failure:
        return Checked(report, start, parameters, {}, None, failure)
    note("counting tokens and trying a few steps ...")
    try:
        parts = read_parts(loaded, Observer(), report=report)
        return Checked(report, start, parameters, _truncated(parts, report, resolve), estimate(parts), None)
    except ManyheadError as error:
        return Checked(report, start, parameters, {}, None, error)


def _refused(error: ManyheadError) -> dict[str, Any]:
    """The document of ``--json`` where the recipe keeps its data from being looked at."""
    nothing = dict.fromkeys(("data", "start", "parameters", "cost"))
    return {"ok": False, "errors": str(error).splitlines(), "warnings": [], **nothing}


def _resolver(recipe: "Recipe") -> "Resolve":
    """Finds files; what cannot be fetched is one more thing wrong with the data."""
    from manyhead.data.resolve import resolve_files

    resolve = resolve_files(recipe)

    def find(reference: str) -> Path:
        try:
            return resolve(reference)
        except UsageError as error:
            raise DataError([Problem(str(error))]) from error

    return find


def _truncated(parts: "Parts", report: "DataReport", resolve: "Resolve") -> dict[str, float]:
    from manyhead.data.cache import load_task_data

    shares: dict[str, float] = {}
    for each in report.splits:
        data = parts.data.get((each.task, each.split)) or load_task_data(
            each.task, each.split, parts.recipe, parts.tokenizer, resolve=resolve
        )
        if data.n_examples:
            shares[f"{each.task}.{each.split}"] = float(data.tokens.truncated.mean())
    return shares


def _shown(found: Checked) -> "list[RenderableType]":
    leaks: dict[str, int] = {}
    for leak in found.data.leaks:
        if leak.what == "example":
            leaks[leak.into] = max(leaks.get(leak.into, 0), leak.rows)
    rows: list[tuple[object, ...]] = []
    for split in found.data.splits:
        name = f"{split.task}.{split.split}"
        cut = found.truncated.get(name)
        counts = (split.rows, split.used, split.rejected, split.duplicates, leaks.get(name, 0))
        rows.append((name, *(f"{count:,}" for count in counts), "-" if cut is None else f"{cut:.1%}"))
    columns = ("data", "rows", "used", "rejected", "repeated", "leaked", "cut")
    balance = table(("data", "targets"), [(f"{s.task}.{s.split}", _targets(s)) for s in found.data.splits], left=2)
    shown: list[RenderableType] = [table(columns, rows), "", balance]
    if found.parameters:
        shown += ["", _parameters_shown(found.parameters)]
    return shown + (_cost_shown(found.cost) if found.cost else [])


def _parameters_shown(parameters: "StageParameters") -> "RenderableType":
    rows = [("all", parameters["total"]), ("shared", parameters["shared"])]
    rows += [(f"of {task} alone", count) for task, count in parameters["per_task"].items()]
    rows += [(f"trained in {stage}", count) for stage, count in parameters["stages"].items()]
    return table(("parameters", "number"), [(name, f"{count:,}") for name, count in rows])


def _targets(split: "SplitReport") -> str:
    if split.classes is not None:
        total = max(1, sum(split.classes.values()))
        return ", ".join(f"{name} {count / total:.0%}" for name, count in split.classes.items())
    if split.scores is not None:
        low, _, middle, _, high = split.scores.quantiles.values()
        return f"{low:g} to {high:g}, half of them below {middle:g}"
    return "none"


def _cost_shown(cost: "Cost") -> "list[RenderableType]":
    rows: list[tuple[object, ...]] = []
    for stage in cost.stages:
        for task, tokens in stage.epoch_tokens.items():
            steps = (
                (f"{stage.steps:,}", f"{stage.epoch_steps:,}") if not rows or rows[-1][0] != stage.name else ("", "")
            )
            rows.append((stage.name, task, *steps, f"{stage.epoch_examples[task]:,}", f"{tokens:,}"))
    columns = ("stage", "task", "steps", "steps/epoch", "examples/epoch", "tokens/epoch")
    return [
        "",
        table(columns, rows, left=2),
        "",
        f"disk: up to {cost.disk_bytes / _GIGABYTE:.1f} GB for checkpoints and the model",
        f"time: roughly {duration(cost.seconds)} on {cost.device} in {cost.precision}, from a few measured steps",
    ]
