"""Figures and tables of a report as files for papers."""

import re
from collections.abc import Sequence
from pathlib import Path

from manyhead.files import write_text, writing
from manyhead.report.content import Report
from manyhead.report.tables import tables_of

_ODD = re.compile(r"[^\w.+-]+")


def write_figures(report: Report, folder: Path) -> list[Path]:
    """Write each chart as PNG and SVG, on white, and return the paths. Raises `WriteError` where one cannot be."""
    names = _Names()
    paths: list[Path] = []
    with writing(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        for of, chart in report.charts():
            stem = names.new([*of, chart.key])
            for ending in ("png", "svg"):
                paths.append(folder / f"{stem}.{ending}")
                chart.save(paths[-1])
    return paths


def write_tables(report: Report, folder: Path) -> list[Path]:
    """Write each table as CSV and LaTeX and return the paths. Raises `WriteError` where one cannot be."""
    names = _Names()
    paths: list[Path] = []
    with writing(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        for table in tables_of(report):
            stem = names.new(table.name)
            for ending, text in (("csv", table.csv()), ("tex", table.latex())):
                paths.append(folder / f"{stem}.{ending}")
                write_text(paths[-1], text)
    return paths


class _Names:
    """File names made of what may be odd names, each once."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def new(self, parts: Sequence[str]) -> str:
        stem = _ODD.sub("_", "-".join(parts)).strip("._")[:120] or "part"
        unique, number = stem, 1
        while unique.lower() in self._used:
            number += 1
            unique = f"{stem}-{number}"
        self._used.add(unique.lower())
        return unique
