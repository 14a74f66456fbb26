"""The table of a study: scores of each row over its seeds, beside what was published and what the baseline got.

`study_document` is everything, as JSON has it; `csv_text` and `markdown_text` are made from it. All that a clock says
stands under keys named ``time``: less those, the document is the same however often the study was interrupted.
"""

import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from manyhead.data.selection import selection_note
from manyhead.evaluation.metrics import overall
from manyhead.files import csv_writer
from manyhead.studies.folder import StudyFolder
from manyhead.studies.runs import Member, Plan, PlannedRow, PlannedRun
from manyhead.studies.schema import Budget, BudgetName, Study

OVERALL = ("overall", "overall_raw")
Scores = Mapping[str, float | None]


@dataclass(frozen=True)
class Header:
    """What a table says of itself beside its rows."""

    study: Study
    budget_name: BudgetName
    budget: Budget
    seeds: int
    command: Sequence[str] = ()


@dataclass
class _Cell:
    """A score of a row: ``values`` by the place of their seeds."""

    values: dict[int, float] = field(default_factory=dict)

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def deviation(self) -> float | None:
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    def difference(self, other: "_Cell") -> float | None:
        """Mean difference to ``other`` over the seeds that both have."""
        common = sorted(self.values.keys() & other.values.keys())
        return statistics.fmean(self.values[seed] - other.values[seed] for seed in common) if common else None


def study_document(header: Header, plan: Plan, folder: StudyFolder) -> dict[str, Any]:
    """The table of what has been run so far, with everything that is known of each row."""
    scored = {row.name: [_row_scores(row, seed, folder) for seed in range(header.seeds)] for row in plan.rows}
    columns = _columns(header.study, plan, scored)
    cells = {name: {column: _cell(seeds, column) for column in columns} for name, seeds in scored.items()}
    baseline = header.study.baseline
    rows = [_row(row, cells, baseline, folder) for row in plan.rows]
    facts = facts_of(plan.runs, folder)
    return {
        "study": header.study.name,
        "title": header.study.title,
        "command": list(header.command),
        "budget": {"name": header.budget_name, **header.budget.model_dump()},
        "seeds": header.seeds,
        "baseline": baseline,
        "selection": f"on dev; {_common(selection_note(run.recipe) for run in plan.runs)}",
        **facts,
        "scores": columns,
        "rows": rows,
        "failures": list(
            {run["run"]: run for row in rows for run in row["runs"] if run["status"] in ("diverged", "failed")}.values()
        ),
        "time": {"seconds": round(_seconds(rows), 3)},
    }


def csv_text(document: Mapping[str, Any]) -> str:
    """The rows as CSV: of each score its mean, deviation, published figure, and difference to the baseline."""
    columns: Sequence[str] = document["scores"]
    parts = ("mean", "deviation", "published", "difference")
    names = [score if part == "mean" else f"{score}_{part}" for score in columns for part in parts]
    stream = io.StringIO()
    writer = csv_writer(stream)
    writer.writerow(["row", "status", "seeds", *names, "examples", "epochs", "encoder", "seconds"])
    for row in document["rows"]:
        values = [row["scores"][score][part] for score in columns for part in parts]
        rest = (row["examples"], row["epochs"], row["encoder"], row["time"]["seconds"])
        cells = [row["name"], row["status"], row["finished_seeds"], *values, *rest]
        writer.writerow(["" if cell is None else cell for cell in cells])
    return stream.getvalue()


def markdown_text(document: Mapping[str, Any]) -> str:
    """The table as Markdown, under what it was made with and above what has to be known to read it."""
    columns, rows = shown_rows(document)
    lines = [f"# {document['study']}: {document['title']}" if document["title"] else f"# {document['study']}", ""]
    lines += [f"- {line}" for line in header_lines(document)]
    lines += ["", piped(columns), piped([":--", *("--:" for _ in columns[1:])])]
    lines += [piped(row) for row in rows]
    lines += ["", *(f"- {line}" for line in footer_lines(document))]
    return "\n".join(lines) + "\n"


def shown_rows(document: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Column names and rows as people read them: ours with its difference to the baseline, then what was published."""
    scores: Sequence[str] = document["scores"]
    has_figures = {
        score: any(row["scores"][score]["published"] is not None for row in document["rows"]) for score in scores
    }
    columns = ["row"]
    for score in scores:
        columns += [score, "published"] if has_figures[score] else [score]
    rows: list[list[str]] = []
    for row in document["rows"]:
        cells = [row["name"] if row["status"] == "finished" else f"{row['name']} ({row['status']})"]
        for score in scores:
            found = row["scores"][score]
            cells.append(_shown(found, row["name"] == document["baseline"]))
            if has_figures[score]:
                cells.append("" if found["published"] is None else f"{found['published']:.3f}")
        rows.append([*cells, f"{row['time']['seconds']:.1f}"])
    return [*columns, "seconds"], rows


def header_lines(document: Mapping[str, Any]) -> list[str]:
    """What the table was made with."""
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    hardware = "; ".join(
        f"{each['device_name']}, {each['device']}, {each['precision']}, {each['threads']} threads"
        for each in document["hardware"]
    )
    said = {
        "command": f"`{' '.join(document['command'])}`" if document["command"] else "",
        "seeds": str(document["seeds"]),
        "budget": budget_line(document["budget"]),
        "encoder": ", ".join(document["encoders"]),
        "dev rows": ", ".join(f"{task} {rows:,}" for task, rows in document["dev_rows"].items()),
        "scores": document["selection"],
        "versions": versions,
        "hardware": hardware,
        "time": f"{clock(document['time']['seconds'])} of training and scoring",
    }
    return [f"{name}: {text}" for name, text in said.items() if text]


def footer_lines(document: Mapping[str, Any]) -> list[str]:
    """How to read the table, and what failed."""
    lines: list[str] = []
    if document["baseline"]:
        lines.append(f"in brackets: difference to {document['baseline']}")
    if document["seeds"] > 1:
        lines.append("±: standard deviation over seeds")
    lines.append("overall: mean over tasks, correlations as (r+1)/2; overall_raw: mean, correlations as they are")
    lines.append(f"seconds: of training and scoring{', a seed' if document['seeds'] > 1 else ''}")
    return lines + [f"{run['run']} {run['status']}: {run['reason']}" for run in document["failures"]]


def facts_of(runs: Sequence[PlannedRun], folder: StudyFolder) -> dict[str, Any]:
    """What finished runs say of versions, hardware and dev rows; of each run, so every kind there was."""
    states = [folder.state(run) for run in runs if folder.summary(run) is not None]
    versions: dict[str, dict[str, None]] = {}
    rows: dict[str, int] = {}
    hardware: list[Mapping[str, Any]] = []
    for state in states:
        for name, version in state["versions"].items():
            versions.setdefault(name, {})[version] = None
        for name, about in state["data"].items():
            task, _, split = name.rpartition(".")
            if split == "dev":
                rows[task] = about["rows"]
        if state["hardware"] not in hardware:
            hardware.append(state["hardware"])
    encoders = list(dict.fromkeys(run.recipe.encoder.checkpoint for run in runs))
    said = {name: " and ".join(found) for name, found in versions.items()}
    return {"encoders": encoders, "dev_rows": rows, "versions": said, "hardware": hardware}


def budget_line(budget: Mapping[str, Any]) -> str:
    """A budget in words."""
    words: list[str] = []
    if budget["examples"] is not None:
        words.append(f"at most {budget['examples']:,} training examples a run over all stages and epochs")
    if budget["epochs"] is not None:
        words.append(f"at most {budget['epochs']} epoch{'s' if budget['epochs'] > 1 else ''} a stage")
    if budget["batch_size"] is not None:
        words.append(f"batches of at most {budget['batch_size']}")
    if budget["dev_rows"] is not None:
        words.append(f"at most the first {budget['dev_rows']:,} dev rows of a task")
    if budget["checkpoint"] is not None:
        words.append(f"encoder '{budget['checkpoint']}' in the place of one from the hub")
    if budget["rate_factor"] != 1:
        words.append(f"learning rates times {budget['rate_factor']:g}")
    return f"{budget['name']}: {', '.join(words) or 'recipes as they are'}"


def clock(seconds: float) -> str:
    """Seconds as H:MM:SS."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def piped(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _row(
    row: PlannedRow, cells: Mapping[str, Mapping[str, _Cell]], baseline: str | None, folder: StudyFolder
) -> dict[str, Any]:
    runs = [_run(member, run, folder) for member in row.members for run in member.runs]
    statuses = {run["status"] for run in runs}
    seeds = len(row.members[0].runs)
    done = [all(folder.summary(member.runs[seed]) is not None for member in row.members) for seed in range(seeds)]
    failed = sorted(statuses - {"finished", "pending"})
    status = failed[0] if failed else "pending" if "pending" in statuses else "finished"
    others = cells.get(baseline or "")
    return {
        "name": row.name,
        "recipes": {member.task or "all": member.recipe for member in row.members},
        "status": status if not any(done) or status == "finished" else f"{status}, {sum(done)} of {seeds} seeds done",
        "finished_seeds": sum(done),
        "scores": {
            score: {
                "mean": cell.mean,
                "deviation": cell.deviation,
                "published": row.published.get(score),
                "difference": None if others is None else cell.difference(others[score]),
                "seeds": [cell.values.get(seed) for seed in range(seeds)],
            }
            for score, cell in cells[row.name].items()
        },
        "examples": _common(sum(run["examples"].values()) for run in runs if run["examples"] is not None),
        "epochs": _common("+".join(map(str, run["epochs"])) for run in runs),
        "encoder": _common(run["encoder"] for run in runs),
        "runs": runs,
        "time": {"seconds": round(sum(run["time"]["seconds"] or 0.0 for run in runs) / seeds, 3)},
    }


def _run(member: Member, run: PlannedRun, folder: StudyFolder) -> dict[str, Any]:
    outcome, summary = folder.outcome(run), folder.summary(run) or {}
    return {
        "run": str(folder.run_path(run).relative_to(folder.path)),
        "recipe": member.recipe,
        "task": member.task,
        "seed": run.recipe.seed,
        "status": "pending" if outcome is None else outcome.status,
        "reason": None if outcome is None else outcome.reason,
        "encoder": run.recipe.encoder.checkpoint,
        "epochs": [stage.epochs for stage in run.recipe.stages],
        "examples": summary.get("examples"),
        "steps": summary.get("steps"),
        "best": summary.get("best"),
        "dev": summary.get("dev"),
        "time": {"seconds": summary.get("seconds")},
    }


def _row_scores(row: PlannedRow, seed: int, folder: StudyFolder) -> dict[str, float | None]:
    """Every score of a row at one seed: tasks by their own metric and by TASK.METRIC, and over tasks."""
    found: dict[str, float | None] = {}
    joined: dict[str, Mapping[str, float]] = {}
    primary: dict[str, str] = {}
    for member in row.members:
        run = member.runs[seed]
        dev = (folder.summary(run) or {}).get("dev") or {}
        for name, task in run.recipe.tasks.items():
            if task.files.dev is None:
                continue
            primary[name] = task.metric
            if member.task not in (None, name):
                continue
            scores = joined[name] = dev.get("tasks", {}).get(name, {})
            found[name] = scores.get(task.metric)
            found |= {f"{name}.{metric}": value for metric, value in scores.items() if metric != "n"}
    return found | dict(zip(OVERALL, overall(joined, primary), strict=True))


def _columns(study: Study, plan: Plan, scored: Mapping[str, Sequence[Scores]]) -> list[str]:
    if study.scores is not None:
        return list(study.scores)
    tasks = [name for seeds in scored.values() for scores in seeds for name in scores if "." not in name]
    extra = [name for row in plan.rows for name in row.published if "." in name]
    return list(dict.fromkeys([*(name for name in tasks if name not in OVERALL), *extra, *OVERALL]))


def _cell(seeds: Sequence[Scores], column: str) -> _Cell:
    values = {seed: scores.get(column) for seed, scores in enumerate(seeds)}
    return _Cell({seed: value for seed, value in values.items() if value is not None})


def _seconds(rows: Sequence[Mapping[str, Any]]) -> float:
    """What all runs took; those that several rows share are counted once."""
    return sum({run["run"]: run["time"]["seconds"] or 0.0 for row in rows for run in row["runs"]}.values())


def _common(values: Any) -> Any:
    """The only value, or all of them as text, each once; None where there is none."""
    found = list(dict.fromkeys(values))
    return None if not found else found[0] if len(found) == 1 else ", ".join(map(str, found))


def _shown(cell: Mapping[str, Any], is_baseline: bool) -> str:
    if cell["mean"] is None:
        return "-"
    text = f"{cell['mean']:.3f}"
    if cell["deviation"] is not None:
        text += f" ±{cell['deviation']:.3f}"
    return text if cell["difference"] is None or is_baseline else f"{text} ({cell['difference']:+.3f})"
