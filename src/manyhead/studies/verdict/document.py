"""What a verdict says: everything as JSON has it, and the page in words.

All that a clock says stands under keys named ``time``: less those, the document is the same however often the runs were
interrupted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from manyhead.data.selection import selection_note
from manyhead.evaluation.scored import Scored
from manyhead.evaluation.statistics.comparison import OVERALL, Comparison, compare_sides
from manyhead.recipe.schema import Recipe
from manyhead.report.sharing import TextTable, sharing_page
from manyhead.studies.folder import StudyFolder
from manyhead.studies.runs import PlannedRun
from manyhead.studies.table import clock, facts_of, piped
from manyhead.studies.verdict.budget import Equal
from manyhead.studies.verdict.tuning import SHARED, Tuned

ALONE = "alone"
"""Name of the side that has a model for each task."""

Side = Sequence[Mapping[str, Scored]]
"""What a side predicted: for each seed, task to predictions."""

_EQUAL: Mapping[Equal, str] = {
    "task": "a single-task run sees as many examples of its task as the shared run does of it; all of them together "
    "cost what the shared one costs",
    "run": "a single-task run sees as many examples as the shared run does of all tasks; all of them together cost as "
    "many times more as there are tasks",
}


@dataclass(frozen=True)
class Header:
    """What was asked. ``recipe`` is the shared one before its budget; ``tasks`` are those compared."""

    recipe: Recipe
    tasks: tuple[str, ...]
    seeds: int
    examples: int | None
    equal: Equal
    factors: tuple[float, ...]
    command: Sequence[str] = ()


@dataclass(frozen=True)
class Runs:
    """The runs of a verdict, by side: ``trials`` tuned it, ``chosen`` are compared, one a seed."""

    rates: Mapping[str, Tuned]
    trials: Sequence[PlannedRun]
    chosen: Mapping[str, Sequence[PlannedRun]]

    @property
    def all(self) -> list[PlannedRun]:
        """Each run once."""
        compared = [run for runs in self.chosen.values() for run in runs]
        return list({run.digest: run for run in (*self.trials, *compared)}.values())


def compared(alone: Side, shared: Side) -> Comparison | None:
    """The shared side against the single models; None where of no seed all runs finished."""
    return compare_sides(alone, shared, names=(ALONE, SHARED)) if shared else None


def verdict_document(header: Header, runs: Runs, found: Comparison | None, folder: StudyFolder) -> dict[str, Any]:
    """Everything that is known."""
    failures = [_failure(run, folder) for run in runs.all if folder.summary(run) is None]
    return {
        "verdict": header.recipe.name,
        "sentence": _sentence(found, header, failures),
        "tasks": list(header.tasks),
        "comparison": None if found is None else found.as_dict(),
        "command": list(header.command),
        "seeds": {"asked": header.seeds, "compared": 0 if found is None else len(found.tasks[0].scores[1])},
        "budget": {"examples": header.examples, "equal": header.equal, "words": _EQUAL[header.equal]},
        "selection": selection_note(runs.chosen[SHARED][0].recipe),
        "tuning": {name: tuned.as_dict() for name, tuned in runs.rates.items()},
        "cost": {ALONE: _cost(header.tasks, runs, folder), SHARED: _cost([SHARED], runs, folder)},
        "runs": {name: [str(folder.run_path(run).name) for run in own] for name, own in runs.chosen.items()},
        "failures": failures,
        **facts_of(runs.all, folder),
        "time": {"seconds": round(sum(_seconds(run, folder) for run in runs.all), 3)},
    }


def markdown_text(document: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    lines = [f"# One shared model, or one for each task? {document['verdict']}", "", f"**{document['sentence']}**", ""]
    columns, rows = score_rows(document)
    lines += [piped(columns), piped([":--", ":--", *("--:" for _ in columns[2:])]), *map(piped, rows), ""]
    lines += [f"- {sentence}" for sentence in sentences(document)]
    lines += ["", "## What each side cost", ""]
    columns, rows = cost_rows(document)
    lines += [piped(columns), piped([":--", *("--:" for _ in columns[1:])]), *map(piped, rows), ""]
    lines += ["## How", "", *(f"- {line}" for line in how_lines(document))]
    return "\n".join(lines) + "\n"


def html_text(document: Mapping[str, Any], found: Comparison | None) -> str:
    """The page as HTML."""
    scores = TextTable("Scores on dev rows that picked no checkpoint, mean over seeds", *score_rows(document), left=2)
    costs = TextTable("What each side cost", *cost_rows(document))
    return sharing_page(document["verdict"], document["sentence"], found, [scores, costs], how_lines(document))


def score_rows(document: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Column names and a row for each task, and for the means over tasks."""
    columns = ["task", "metric", ALONE, SHARED, "difference", "95 % interval", "p", "verdict"]
    found = document["comparison"]
    if found is None:
        return columns, []
    rows = [_score_row(each) for each in _compared(found)]
    raw = [float(np.mean([each[side]["value"] for each in found["tasks"]])) for side in ("baseline", "other")]
    if found["overall"] is not None:
        rows.append(["overall_raw", "mean", *(f"{value:.3f}" for value in raw), f"{raw[1] - raw[0]:+.3f}", "", "", ""])
    return columns, rows


def sentences(document: Mapping[str, Any]) -> list[str]:
    """What is to be said of each task, and of all together."""
    found = document["comparison"]
    return [] if found is None else [str(each["sentence"]) for each in _compared(found)]


def cost_rows(document: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Column names and a row for each side."""
    columns = ["side", "models", "parameters", "training examples a seed", "training and scoring a seed"]
    rows = [
        [
            name,
            str(cost["models"]),
            f"{cost['parameters'] / 1e6:,.1f} M",
            ", ".join(f"{task} {count:,}" for task, count in cost["examples"].items()),
            clock(cost["time"]["seconds"]),
        ]
        for name, cost in document["cost"].items()
        if cost is not None
    ]
    return columns, rows


def how_lines(document: Mapping[str, Any]) -> list[str]:
    """How both sides were made, so that a reader can doubt it."""
    seeds, budget = document["seeds"], document["budget"]
    rows = ", ".join(f"{task} {count:,}" for task, count in document["dev_rows"].items())
    most = "as the recipe says" if budget["examples"] is None else f"at most {budget['examples']:,} examples"
    lines = [f"command: `{' '.join(document['command'])}`"] if document["command"] else []
    lines += [
        f"seeds: {seeds['compared']} a side"
        + ("" if seeds["compared"] == seeds["asked"] else f", of {seeds['asked']} asked for"),
        f"budget: the shared run sees {most}; {budget['words']}",
        *(f"learning rate, {name}: {_tuning(found)}" for name, found in document["tuning"].items()),
        f"scores: {document['selection']}; dev rows: {rows}",
        "p: the t test of runs and examples, or with one seed the permutation test; Holm's correction over the tasks",
        f"encoder: {', '.join(document['encoders'])}",
        f"versions: {', '.join(f'{name} {version}' for name, version in document['versions'].items())}",
        *(
            f"hardware: {each['device_name']}, {each['device']}, {each['precision']}, {each['threads']} threads"
            for each in document["hardware"]
        ),
        f"time: {clock(document['time']['seconds'])} of training and scoring in all",
    ]
    return lines + [f"{run['run']} {run['status']}: {run['reason']}" for run in document["failures"]]


def _compared(comparison: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    overall = comparison["overall"]
    return [*comparison["tasks"], *([] if overall is None else [overall])]


def _score_row(each: Mapping[str, Any]) -> list[str]:
    difference, p = each["difference"], each["p_holm"]
    ends = [difference["low"], difference["high"]]
    return [
        each["task"],
        "mean, correlations as (r+1)/2" if each["task"] == OVERALL else each["metric"],
        f"{each['baseline']['value']:.3f}",
        f"{each['other']['value']:.3f}",
        f"{difference['value']:+.3f}",
        "-" if None in ends else f"{ends[0]:+.3f} to {ends[1]:+.3f}",
        "-" if p is None else f"{p:.3f}",
        each["verdict"],
    ]


def _sentence(found: Comparison | None, header: Header, failures: Sequence[Mapping[str, Any]]) -> str:
    """The answer in a line."""
    if found is None:
        return f"No verdict: of no seed all runs finished ({len(failures)} did not)."
    named: dict[str, list[str]] = {"helped": [], "hurt": [], "no evidence": []}
    for each in found.tasks:
        named[each.verdict].append(each.task)
    parts = [f"Sharing {word} {_listed(named[word])}" for word in ("helped", "hurt") if named[word]]
    unknown = named["no evidence"]
    if len(unknown) == len(header.tasks):
        return "There is no evidence that sharing helped or hurt any task."
    parts += [f"there is no evidence either way for {_listed(unknown)}"] if unknown else []
    return f"{'; '.join(parts)}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _tuning(found: Mapping[str, Any]) -> str:
    if len(found["scores"]) == 1:
        return f"times {found['factor']:g}, not tuned"
    tried = ", ".join(
        f"{factor}: {'-' if score is None else f'{score:.3f}'}" for factor, score in found["scores"].items()
    )
    return f"times {found['factor']:g} (score on the rows that pick, by factor: {tried})"


def _failure(run: PlannedRun, folder: StudyFolder) -> dict[str, Any]:
    outcome = folder.outcome(run)
    status, reason = ("pending", None) if outcome is None else (outcome.status, outcome.reason)
    return {"run": folder.run_path(run).name, "status": status, "reason": reason}


def _cost(sides: Sequence[str], runs: Runs, folder: StudyFolder) -> dict[str, Any] | None:
    """What the models of one side are and took, a seed; None where a run did not finish."""
    summaries = [[folder.summary(run) for run in runs.chosen[side]] for side in sides]
    found = [each for side in summaries for each in side if each is not None]
    if len(found) < sum(map(len, summaries)):
        return None
    first = [side[0] for side in summaries if side[0] is not None]
    return {
        "models": len(sides),
        "parameters": sum(each["parameters"]["total"] for each in first),
        "examples": {task: count for each in first for task, count in each["examples"].items()},
        "time": {"seconds": round(sum(each["seconds"] for each in found) / len(summaries[0]), 3)},
    }


def _seconds(run: PlannedRun, folder: StudyFolder) -> float:
    return (folder.summary(run) or {}).get("seconds") or 0.0
