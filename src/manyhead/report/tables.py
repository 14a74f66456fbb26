"""Tables of a report as files: CSV with all digits, LaTeX as a paper prints them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from manyhead.files import csv_writer
from manyhead.report.content import Report
from manyhead.report.text import visible
from manyhead.report.view import RunPart

Cell = str | int | float | None

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_"},
    "\u2212": "$-$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\n": " ",
}


@dataclass(frozen=True)
class Table:
    """A table of text, counts and measures; the first columns that are text stand left."""

    name: Sequence[str]
    """Parts of its file's name."""
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def csv(self) -> str:
        """The table with all digits; an empty cell where there is no value."""
        text = io.StringIO(newline="")
        writer = csv_writer(text)
        writer.writerow(self.columns)
        writer.writerows([["" if cell is None else _plain(cell) for cell in row] for row in self.rows])
        return text.getvalue()

    def latex(self) -> str:
        """A tabular of the package booktabs, measures to three digits."""
        texts = [all(isinstance(row[place], str) for row in self.rows) for place in range(len(self.columns))]
        sides = "".join("l" if is_text else "r" for is_text in texts)
        lines = [_line(map(_latex, self.columns)), r"\midrule", *(_line(map(_latex, row)) for row in self.rows)]
        body = "\n".join(["\\toprule", *lines, "\\bottomrule"])
        return f"\\begin{{tabular}}{{{sides}}}\n{body}\n\\end{{tabular}}\n"


def tables_of(report: Report) -> list[Table]:
    """Scores of all runs; and of each task of each run its metrics, its matrix and its slices."""
    found = [_scores(report)]
    for name, run in zip(report.names, report.runs, strict=True):
        found += _run_tables(run, [] if len(report.runs) == 1 else [name])
    return found


def _scores(report: Report) -> Table:
    columns = ("run", "task", "metric", "n", "score", "low", "high", "baseline", "gain")
    rows: list[list[Cell]] = []
    for name, run in zip(report.names, report.runs, strict=True):
        scores = [(task.name, task.n, task.primary.metric, task.primary) for task in run.tasks]
        scores += [(score.metric, None, "mean", score) for score in run.overall]
        rows += [
            [name, task, metric, n, score.value, score.low, score.high, score.baseline, score.gain]
            for task, n, metric, score in scores
        ]
    return Table(["scores"], columns, rows)


def _run_tables(run: RunPart, of_run: list[str]) -> list[Table]:
    found: list[Table] = []
    for task in run.tasks:
        name = [*of_run, task.name]
        metrics = [[score.metric, score.value, score.baseline, score.gain] for score in task.scores]
        found.append(Table([*name, "metrics"], ("metric", "score", "baseline", "gain"), metrics))
        if task.errors is None:
            continue
        if (matrix := task.errors.matrix) is not None:
            rows = [[label, *counts] for label, counts in zip(matrix.names, matrix.counts, strict=True)]
            found.append(Table([*name, "confusion"], ("target", *matrix.names), rows))
        if task.errors.slices:
            columns = ("slice", "what it holds", "n", task.errors.slices[0].metric, "low", "high", "all others")
            rows = [
                [each.name, each.definition, each.n, each.value, each.low, each.high, each.rest]
                for each in task.errors.slices
            ]
            found.append(Table([*name, "slices"], columns, rows))
    return found


def _plain(cell: Cell) -> Cell:
    return visible(cell) if isinstance(cell, str) else cell


def _latex(cell: Cell) -> str:
    if cell is None:
        return "--"
    if isinstance(cell, float):
        return f"{cell:.3f}".replace("-", "$-$")
    return "".join(_LATEX.get(character, character) for character in visible(str(cell)))


def _line(cells: "map[str]") -> str:
    return " & ".join(cells) + r" \\"
