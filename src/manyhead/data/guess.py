"""A first recipe for a user's files: what is read, what is predicted, every guess with its reason."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from os.path import commonpath
from pathlib import Path

import yaml

from manyhead.data.beginning import Beginning
from manyhead.data.examples import LARGEST_SCORE, counted
from manyhead.data.read import read_table
from manyhead.data.table import Cell, Nested, Table
from manyhead.errors import DataError, UsageError
from manyhead.recipe.schema import SPLITS, Split

_SAMPLE_ROWS = 3000
_MOST_CLASSES = 200
_MOST_NUMBER_CLASSES = 20
_FINEST_PLACE = -300
_SPLIT_WORDS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "dev": ("dev", "valid", "validation", "val", "eval"),
    "test": ("test", "testing", "tst"),
}
_ENDINGS = ("csv", "tsv", "txt", "json", "jsonl", "ndjson", "parquet", "arrow", "feather", "gz")
_NOISE_WORDS = ("ids", "student", "data", "dataset", "set", "split")
_TARGET_NAMES = (
    *("label", "labels", "target", "gold_label", "gold", "class", "category", "sentiment", "is_duplicate"),
    *("similarity", "score", "stars", "rating", "intent", "topic", "polarity", "emotion", "y"),
)
_TEXT_NAMES = ("text", "sentence", "review", "content", "body", "comment", "question", "tweet", "message", "document")
_PAIR_NAMES = (
    *(("premise", "hypothesis"), ("question", "sentence"), ("question", "passage"), ("question", "answer")),
    *(
        ("question", "context"),
        ("query", "passage"),
        ("query", "document"),
        ("text", "text_pair"),
        ("claim", "evidence"),
    ),
)
_PAIR_ENDINGS = re.compile(r"(.*?)[_ .-]?([12ab])", re.IGNORECASE)
_PLAIN_SCALAR = re.compile(r"(?:[A-Za-z_]|/[A-Za-z_])[A-Za-z0-9_./-]*")
_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


class _Column:
    """What the first rows tell of a column; empty cells do not count."""

    def __init__(self, name: str, cells: Sequence[Cell]) -> None:
        self.name = name
        self.texts = [str(cell) for cell in cells if cell is not None and str(cell).strip()]
        self.distinct = len(set(self.texts))
        self.is_nested = any(isinstance(cell, Nested) for cell in cells)
        numbers = [number for text in self.texts if (number := _as_number(text)) is not None]
        self.is_number = len(numbers) > 0.9 * len(self.texts)
        self._is_whole = all(number.is_integer() for number in numbers)
        self.words = sum(len(text.split()) for text in self.texts) / max(1, len(self.texts))

    @property
    def is_id(self) -> bool:
        """Whether it only tells rows apart."""
        is_unique = len(self.texts) > 1 and self.distinct == len(self.texts)
        return is_unique and self.words < 1.2 and (self._is_whole or not self.is_number)

    @property
    def is_text(self) -> bool:
        """Whether it may be what a model reads."""
        if not self.texts or self.is_number or self.is_nested or self.is_id:
            return False
        is_named = any(word in self.name.lower() for word in _TEXT_NAMES)
        return self.words > 1.5 and (is_named or self.distinct > 0.2 * len(self.texts))

    @property
    def is_target(self) -> bool:
        """Whether it may be what a model predicts: numbers, or few values."""
        few = max(2, min(_MOST_CLASSES, len(self.texts) // 2))
        return bool(self.texts) and not self.is_nested and (self.is_number or self.distinct <= few)

    @property
    def described(self) -> str:
        """In words."""
        traits = (
            (not self.texts, "empty"),
            (self.is_nested, "lists or objects"),
            (self.is_id, "ids"),
            (self.is_number, "numbers"),
            (self.is_text, "texts"),
        )
        what = next((word for holds, word in traits if holds), counted(self.distinct, "value"))
        return f"'{self.name}' ({what})"


@dataclass(frozen=True)
class _Group:
    """The files of one task."""

    name: str
    files: dict[Split, Path]


def guess_recipe(files: Sequence[Path], *, name: str | None = None, beginning: Beginning | None = None) -> str:
    """A complete recipe for ``files``, as commented YAML.

    Files of one task are found by their names (x-train.csv, x-dev.csv), columns and kinds by their content: texts are
    the longest columns, targets are named like one or hold few values. Paths are absolute. ``beginning`` is the encoder
    to start from, by default the embedded one. Raises `UsageError` where
    no text or no target is found, and `DataError` for files that cannot be read.
    """
    if not files:
        raise UsageError("no files; name at least one CSV, TSV, JSONL, Parquet or Arrow file")
    paths = [path.absolute() for path in files]
    folder = Path(commonpath([path.parent for path in paths]))
    beginning = beginning or Beginning()
    problems: list[str] = []
    tasks: list[str] = []
    groups = _grouped(paths)
    for group in groups:
        try:
            tasks.append(_task(group, folder, beginning))
        except (UsageError, DataError) as error:
            problems.append(str(error))
    if problems:
        raise UsageError("\n".join(problems))
    title = re.sub(r"[^A-Za-z0-9_.-]+", "-", name or "-".join(group.name for group in groups)).lstrip("_.-") or "tasks"
    header = _HEADER.format(name=scalar(title), folder=scalar(folder.as_posix()), encoder=beginning.encoder)
    return header + "".join(tasks) + _STAGES


_HEADER = """\
# Guessed from the files: look at each comment, then run `manyhead check` on this file.
manyhead: 1
name: {name}
data_dir: {folder}  # files below are relative to it
encoder: {encoder}
tasks:
"""

_STAGES = """\
stages:
  - name: multitask
    schedule: {kind: shuffled}  # every batch of every task once an epoch, in random order
    epochs: 3
    batch_size: 32
    optimizer: {kind: adamw, lr: 1.0e-4, head_lr: 5.0e-4}
    rate: {kind: linear, warmup: 0.1}
"""


def _grouped(paths: list[Path]) -> list[_Group]:
    """Files by task, told by the words of their names that say nothing of a split."""
    groups: dict[str, dict[Split, Path]] = {}
    for path in paths:
        words = [word for word in _words(path.name) if word not in _ENDINGS]
        split = _split_of(words)
        rest = [word for word in words if word not in (*_SPLIT_WORDS[split], *_NOISE_WORDS)]
        name = "-".join(rest or _words(path.parent.name)) or "task"
        while split in groups.get(name, {}):
            name += "-2"
        groups.setdefault(name, {})[split] = path
    return [_Group(name, files) for name, files in groups.items()]


def _words(text: str) -> list[str]:
    return re.findall("[a-z0-9]+", text.lower())


def _split_of(words: list[str]) -> Split:
    for split, names in _SPLIT_WORDS.items():
        if not set(names).isdisjoint(words):
            return split
    return "train"


def _task(group: _Group, folder: Path, beginning: Beginning) -> str:
    """The lines of one task."""
    files = dict(group.files)
    if "train" not in files:
        files["train"] = files.pop(next(split for split in ("dev", "test") if split in files))
    table = read_table(files["train"])
    columns = _columns(table)
    target = _target(columns)
    candidates = [column for column in columns if column is not target and column.is_text]
    if target is None or not candidates:
        raise UsageError(_not_found(table, columns, "text" if target is not None else "target"))
    texts, reason = _texts(candidates)
    others = [column.name for column in candidates if column not in texts]
    if others:
        reason += f"; not used: {_quoted(*others)}"
    about_target, head = _target_lines(target.name, files, beginning)
    lines = [
        f"# {_quoted(table.path.name)}: {table.note}",
        *about_target,
        f"text: [{', '.join(scalar(text.name) for text in texts)}]  # {reason}",
        *(["pairing: concat  # both in one sequence; siamese: each by itself"] if len(texts) == 2 else []),
        *_id_lines(columns),
        "files:",
        *_file_lines(files, group, folder),
        *head,
    ]
    return f"  {scalar(group.name)}:\n" + "".join(f"    {line}\n" for line in lines)


def _columns(table: Table) -> list[_Column]:
    """Those that can be read: of columns of one name, none can."""
    rows = [cells for _, cells in islice(table, _SAMPLE_ROWS)]
    if not rows:
        raise UsageError(f"{table.path}: there are no rows below the header")
    pairs = zip(table.columns, zip(*rows, strict=True), strict=True)
    return [_Column(name, cells) for name, cells in pairs if table.columns.count(name) == 1]


def _target(columns: list[_Column]) -> _Column | None:
    """The column named like a target; else the last with few values that is neither text nor id."""
    possible = [column for column in columns if column.is_target]
    by_name = {column.name.lower(): column for column in reversed(possible)}
    for name in _TARGET_NAMES:
        if name in by_name:
            return by_name[name]
    for name, column in by_name.items():
        if name.startswith(("is_", "has_")) or name.endswith(tuple(f"_{word}" for word in _TARGET_NAMES)):
            return column
    rest = [column for column in possible if column.name and not column.is_id and not column.is_text]
    return rest[-1] if rest else None


def _texts(candidates: list[_Column]) -> tuple[list[_Column], str]:
    """One text column, or two that belong together, and why."""
    for first, second in combinations(candidates, 2):
        if _are_pair(first.name.lower(), second.name.lower()):
            return [first, second], "a pair, by their names"
    if len(candidates) == 2:
        lower, upper = sorted(column.words for column in candidates)
        if upper < 2 * lower:
            return candidates, "a pair: two columns of texts of like length"
    return [max(candidates, key=lambda column: column.words)], "the column with the longest texts"


def _are_pair(first: str, second: str) -> bool:
    if (first, second) in _PAIR_NAMES:
        return True
    one, two = _PAIR_ENDINGS.fullmatch(first), _PAIR_ENDINGS.fullmatch(second)
    if one is None or two is None or one[1] != two[1]:
        return False
    return (one[2], two[2]) in (("1", "2"), ("a", "b"))


def _target_lines(name: str, files: dict[Split, Path], beginning: Beginning) -> tuple[list[str], list[str]]:
    """Kind, target, and labels or range, by all rows of the training file (the range: of all files); and the head."""
    counts = _values(files["train"], name)
    numbers = [number for value in counts if (number := _as_number(value)) is not None]
    target = f"target: {scalar(name)}"
    if len({*numbers, *(value for value in counts if _as_number(value) is None)}) < 2:
        raise UsageError(f"{files['train']}: the column '{name}' has the same value in all rows: nothing to learn")
    if len(numbers) < len(counts):
        if len(counts) > _MOST_CLASSES:
            raise UsageError(f"{files['train']}: the column '{name}' has {len(counts)} values: too many for classes")
        labels = ", ".join(scalar(value) for value in sorted(counts))
        kind = f"kind: classification  # {_quoted(name)} holds {len(counts)} words"
        return [kind, target, f"labels: [{labels}]"], beginning.head_of_words(list(counts))
    if all(number.is_integer() for number in numbers) and len(set(numbers)) <= _MOST_NUMBER_CLASSES:
        whole = sorted({int(number) for number in numbers})
        labels, head = beginning.names_of_numbers(whole)
        why = f"{_quoted(name)} holds {len(whole)} whole numbers; if they are a score, write regression and a range"
        return [f"kind: classification  # {why}", target, f"labels: {labels}"], head
    for path in (path for split, path in files.items() if split != "train"):
        numbers += [number for value in _values(path, name) if (number := _as_number(value)) is not None]
    low, high = _rounded_range(min(numbers), max(numbers))
    why = f"{_quoted(name)} holds many different numbers, from {min(numbers):g} to {max(numbers):g}"
    bounds = f"range: [{low!r}, {high!r}]  # lowest and highest possible score"
    return [f"kind: regression  # {why}", target, bounds], beginning.head_of_score()


def _values(path: Path, name: str) -> Counter[str]:
    """How often each value stands in a column; none where there is no such column."""
    table = read_table(path)
    if table.columns.count(name) != 1:
        return Counter()
    return Counter(str(cell).strip() for _, (cell,) in table.select([name]) if cell is not None and str(cell).strip())


def _rounded_range(low: float, high: float) -> tuple[float, float]:
    """Outward, to the unit of the span's first digit, as far as numbers are that fine."""
    place = math.floor(math.log10(high - low))
    unit = 10.0 ** max(place, _FINEST_PLACE)
    rounded = [round(math.floor(low / unit) * unit, -place), round(math.ceil(high / unit) * unit, -place)]
    if not rounded[0] <= low < high <= rounded[1]:
        return low, high
    bottom, top = (int(bound) if bound.is_integer() and place >= 0 else bound for bound in rounded)
    return bottom, top


def _id_lines(columns: list[_Column]) -> list[str]:
    """The key id, where a column of ids is not called so."""
    if any(column.name == "id" for column in columns):
        return []
    return next(
        ([f"id: {scalar(column.name)}"] for column in columns if column.is_id and column.name.lower().endswith("id")),
        [],
    )


def _file_lines(files: dict[Split, Path], group: _Group, folder: Path) -> list[str]:
    lines = [f"  {split}: {scalar(files[split].relative_to(folder).as_posix())}" for split in SPLITS if split in files]
    if "train" not in group.files:
        lines[0] += "  # none is called train: this one is taken"
    if "dev" not in files:
        lines.append("  dev: {from: train, fraction: 0.1}  # there is no dev file: a tenth of the rows is kept back")
    return lines


def _not_found(table: Table, columns: list[_Column], what: str) -> str:
    there = ", ".join(column.described for column in columns)
    return (
        f"{table.path}: no column looks like a {what}; the columns are {there}; "
        f"write a recipe that names them: text: [COLUMN] and target: COLUMN"
    )


def _as_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) <= LARGEST_SCORE and "_" not in text else None


def _quoted(*names: str) -> str:
    """Names for a comment, in which line breaks and the like must not stand."""
    return ", ".join(f"'{''.join(char if char.isprintable() else ' ' for char in name)}'" for name in names)


def scalar(text: str) -> str:
    """The text as a YAML scalar that means just this text."""
    if _PLAIN_SCALAR.fullmatch(text) and text.lower() not in _YAML_WORDS:
        return text
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=math.inf).strip()
