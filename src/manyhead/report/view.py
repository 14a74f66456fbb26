"""What the page says of a run: scores, curves, facts and findings, arranged for reading but not laid out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from manyhead.evaluation.metrics import METRICS, overall
from manyhead.evaluation.scored import Scored
from manyhead.evaluation.statistics.intervals import overall_intervals
from manyhead.report.cells import mapping, number
from manyhead.report.charts.canvas import Chart
from manyhead.report.charts.curves import MAX_LINES, Line, line_chart, trend
from manyhead.report.charts.intervals import Row, interval_chart
from manyhead.report.predictions import is_regression
from manyhead.report.read import Run
from manyhead.report.task_part import TaskPart, task_part, whole
from manyhead.report.verdict import Score, headline

MAX_RECIPE_CHARACTERS = 200_000


@dataclass(frozen=True)
class RunPart:
    """What the page says of one run."""

    name: str
    folder: str
    """Name of its folder."""
    status: str
    summary: str
    """Seed, time, place and checkpoint in one line."""
    headline: str
    facts: list[tuple[str, str]]
    notes: list[str]
    tasks: list[TaskPart]
    overall: list[Score]
    intervals: Chart | None
    charts: list[Chart]
    recipe: str


def run_part(run: Run, *, with_errors: bool = True) -> RunPart:
    """Arrange what was read of ``run``; looking at errors takes most of the time."""
    dev, baseline = _dev_scores(run), mapping(mapping(run.summary.get("baseline")).get("tasks"))
    primary = {task: _primary(run, task) for task in run.tasks}
    tasks = [
        task_part(
            run, task, primary[task], mapping(dev.get(task)), mapping(baseline.get(task)), with_errors=with_errors
        )
        for task in primary
    ]
    return RunPart(
        name=_text(run.summary.get("name") or run.recipe.get("name") or run.folder.name),
        folder=run.folder.resolve().name,
        status=_text(run.summary.get("status") or run.state.get("status") or "unknown"),
        summary=_summary(run),
        headline=headline({task.name: task.primary for task in tasks}),
        facts=_facts(run),
        notes=[*_missing(run), *run.notes, *_findings(run)],
        tasks=tasks,
        overall=_totals(tasks, _overall(dev, primary), _overall(baseline, primary)),
        intervals=_interval_chart(tasks),
        charts=_charts(run),
        recipe=_recipe(run),
    )


def _dev_scores(run: Run) -> Mapping[str, Any]:
    """Task to its scores: the summary's, else those of the last evaluation, which a note then says."""
    summarised = mapping(mapping(run.summary.get("dev")).get("tasks"))
    if summarised or not run.evaluations:
        return summarised
    last = run.evaluations[-1]
    run.notes.append(f"The scores are those of the last evaluation, at step {last['step']:,}, not of a finished run.")
    return mapping(last.get("tasks"))


def _primary(run: Run, task: str) -> str:
    recipe = mapping(mapping(run.recipe.get("tasks")).get(task))
    return run.metric(task) or ("pearson" if is_regression(recipe) else "accuracy")


def _overall(scores: Mapping[str, Any], primary: Mapping[str, str]) -> tuple[float | None, float | None]:
    if not all(metric in METRICS for metric in primary.values()):
        return None, None
    values = {
        task: {name: value for name, raw in mapping(of_task).items() if (value := number(raw)) is not None}
        for task, of_task in scores.items()
    }
    return overall(values, primary)


def _totals(
    tasks: list[TaskPart], values: tuple[float | None, float | None], baselines: tuple[float | None, float | None]
) -> list[Score]:
    """``overall`` and ``overall_raw``, with intervals where each task has predictions of its own metric."""
    scored: dict[str, Scored] = {
        task.name: task.scored
        for task in tasks
        if task.scored is not None and task.scored.metric == task.primary.metric
    }
    whole_of = len(scored) == len(tasks) and None not in values
    intervals = overall_intervals(scored) if whole_of and scored else (None, None)
    return [
        Score(name, value, base)
        if interval is None
        else Score(name, value, base, low=interval.low, high=interval.high, reason=interval.reason)
        for name, value, base, interval in zip(("overall", "overall_raw"), values, baselines, intervals, strict=True)
    ]


def _interval_chart(tasks: list[TaskPart]) -> Chart | None:
    scores = {task.name: task.primary for task in tasks}
    rows = [
        Row(name, score.value, score.low, score.high, score.baseline)
        for name, score in scores.items()
        if score.value is not None and score.metric in METRICS and METRICS[score.metric].bounded
    ]
    return interval_chart("intervals", "Dev scores and their 95\u00a0% intervals", rows)


def _charts(run: Run) -> list[Chart]:
    best = number(mapping(run.summary.get("best")).get("step"))
    lines = [
        Line(name, _overall_curve(run, name), style, colour)
        for colour, (name, style) in enumerate((("overall", "main"), ("overall_raw", "side")))
    ]
    cosines = [
        trend(f"{first} and {second}", points, colour)[-1]
        for colour, ((first, second), points) in enumerate(list(run.cosines.items())[: MAX_LINES - 1])
    ]
    if cosines:
        steps = [step for line in cosines for step, _ in line.points]
        cosines.append(Line("below it, they conflict", [(min(steps), 0.0), (max(steps), 0.0)], "baseline"))
    common: dict[str, Any] = {"span": run.span, "stages": run.stages}
    charts = [
        line_chart("overall", "Overall on dev", lines[::-1] if len(run.evaluations) > 1 else [], best=best, **common),
        line_chart("conflict", "Cosines between the tasks' gradients", cosines, **common),
        line_chart("rate", "Learning rate", [Line("learning rate", run.rates)], **common),
        line_chart("norm", "Gradient norm", trend("gradient norm", run.norms), **common),
    ]
    return [chart for chart in charts if chart is not None]


def _overall_curve(run: Run, name: str) -> list[tuple[int, float]]:
    return [(record["step"], value) for record in run.evaluations if (value := number(record.get(name))) is not None]


def _missing(run: Run) -> list[str]:
    return [f"Not in the run folder, so not on this page: {', '.join(run.missing)}."] if run.missing else []


def _findings(run: Run) -> list[str]:
    """What a reader of the scores should know of the whole run."""
    found: list[str] = []
    if run.summary and len(run.evaluations) > 1 and run.recipe and not run.recipe.get("select_on"):
        found.append(
            "The checkpoint was picked by the dev rows it is scored on, so all scores are a little too good; "
            "select_on: {dev: 0.5} keeps the two apart."
        )
    last, best = run.evaluations[-1:], whole(mapping(run.summary.get("best")).get("step"))
    if len(run.evaluations) > 2 and best is not None and last[0]["step"] == best:
        found.append("The last checkpoint is the best one: longer training may help.")
    return found


def _summary(run: Run) -> str:
    hardware = mapping(run.state.get("hardware"))
    step = whole(mapping(run.summary.get("best")).get("step"))
    seed, seconds = run.summary.get("seed", run.recipe.get("seed")), _duration(number(run.summary.get("seconds")))
    parts = [
        None if seed is None else f"seed {_text(seed)}",
        seconds and f"{seconds} of training",
        hardware.get("device") and f"on {_text(hardware['device'])}",
        None if step is None else f"best at step {step:,}",
    ]
    return " · ".join(part for part in parts if part)


def _facts(run: Run) -> list[tuple[str, str]]:
    """The header's lines: name and text, without those the run says nothing of."""
    clock = {**mapping(run.state.get("time")), **run.state}
    best = mapping(run.summary.get("best"))
    step = whole(best.get("step"))
    examples = [whole(count) or 0 for count in mapping(run.summary.get("examples")).values()]
    facts = [
        ("Seed", run.summary.get("seed", run.recipe.get("seed"))),
        ("Started", clock.get("started") or clock.get("created")),
        ("Finished", clock.get("finished")),
        ("Took", _duration(number(run.summary.get("seconds")))),
        ("Best checkpoint", None if step is None else f"step {step:,}, stage {_text(best.get('stage'))}"),
        ("Examples trained on", f"{sum(examples):,}" if examples else None),
        ("Tokens trained on", _count(run.summary.get("tokens"))),
        ("Hardware", run.state.get("hardware")),
        ("Versions", run.state.get("versions")),
    ]
    return [(name, _text(value)) for name, value in facts if value not in (None, "", {}, [])]


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return " · ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    return str(value)


def _count(value: object) -> str | None:
    found = whole(value)
    return None if found is None else f"{found:,}"


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{amount} {unit}" for amount, unit in parts if amount) or "under 1 s"


def _recipe(run: Run) -> str:
    text = run.recipe_text
    if len(text) > MAX_RECIPE_CHARACTERS:
        return text[:MAX_RECIPE_CHARACTERS] + "\n# ... cut here; the whole recipe is in recipe.yaml"
    return text
