"""What became of the rows."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from manyhead.inference.bulk.columns import plain
from manyhead.inference.bulk.formats import json_line
from manyhead.inference.bulk.rows import Input
from manyhead.inference.bulk.scorer import Chunk

_SHOWN = 20


@dataclass
class Account:
    """How many ``rows`` there were, and how many are ``without`` the prediction of a task, with the ``first`` of these.

    ``notes`` are on whole files. A job keeps all that as JSON and goes on with it.
    """

    tasks: list[str] = field(default_factory=list[str])
    rows: int = 0
    without: int = 0
    first: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    notes: list[str] = field(default_factory=list[str])

    def add(self, source: Input, chunk: Chunk) -> None:
        """Counts a chunk."""
        self.rows += len(chunk.rows)
        for row, problems in zip(chunk.rows, chunk.problems(), strict=True):
            if problems:
                self.without += 1
                if len(self.first) < _SHOWN:
                    self.first.append({"file": source.name, "line": row.line, "problem": said(problems, chunk)})

    def end(self, source: Input) -> None:
        """Takes over what was not as it should be with a file that has been read."""
        if source.replaced:
            self.notes.append(f"{source.name}: {source.replaced:,} broken characters were replaced by U+FFFD")
        if source.late:
            keys = ", ".join(f"'{key}' (line {line})" for key, line in source.late.items())
            self.notes.append(f"{source.name}: left out keys that the first rows do not have: {keys}")

    def lines(self, rejected: Path | None = None) -> Iterator[str]:
        """All that was not as it should be, in words; ``rejected`` is where such rows are listed."""
        end = "its prediction is empty" if rejected is None else f"listed in {rejected}"
        for each in self.first:
            yield f"{each['file']}:{each['line']}: {each['problem']}; {end}"
        if self.without > len(self.first):
            yield f"{self.without - len(self.first):,} more rows without a prediction"
        yield from self.notes

    def values(self) -> dict[str, Any]:
        """For the journal."""
        return asdict(self)


def said(problems: dict[str, str], chunk: Chunk) -> str:
    """The problems of a row; tasks are named where they differ."""
    different = set(problems.values())
    if len(problems) == len(chunk.answers) and len(different) == 1:
        return different.pop()
    return ", ".join(f"{problem} for {name}" for name, problem in problems.items())


def rejected_lines(source: Input, names: list[str], chunk: Chunk) -> Iterator[str]:
    """A line of JSON for each row that not every task predicted: file, line, what is wrong, for which tasks, the row.

    A row that is broken as such is given as the text that stands in the file.
    """
    for row, problems in zip(chunk.rows, chunk.problems(), strict=True):
        if problems:
            cells = dict(zip(names, map(plain, row.cells), strict=True))
            yield json_line(
                {
                    "file": source.name,
                    "line": row.line,
                    "problem": said(problems, chunk),
                    "tasks": list(problems),
                    "row": cells if row.text is None else row.text,
                }
            )
