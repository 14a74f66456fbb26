"""Rows under fuzz: those of a pipe, those beside a bad one, and those that a guessed recipe reads."""

import csv
import io
import json
from pathlib import Path

import pytest
from fuzzed_files import CONTENT, File, tables
from hostile import ANY_TEXT, make_task, shown, tells_where
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manyhead.data.cache import load_examples
from manyhead.data.check import check_data
from manyhead.data.examples import read_examples
from manyhead.data.guess import guess_recipe
from manyhead.data.read import read_table
from manyhead.errors import DataError, ManyheadError, RecipeError, UsageError
from manyhead.inference.bulk.rows import InputRow, open_stream
from manyhead.recipe.load import load_recipe
from tiny import tiny_tokenizer

WORDS = st.text('ab ",\t', max_size=6).map(lambda text: f"good {text} film")
BAD = st.lists(ANY_TEXT | st.sampled_from('",\t;{}[]'), max_size=6).map(
    lambda texts: "".join(texts).replace("\n", " ").replace("\r", " ")
)
TOKENIZER = tiny_tokenizer()
SCORES = st.lists(st.floats() | st.floats(0, 5) | st.integers(), min_size=2, max_size=9).map(
    lambda scores: "".join(["text,score\n", *(f"some words about {i},{score!r}\n" for i, score in enumerate(scores))])
)


def read_stream(content: bytes, charset: str) -> list[InputRow]:
    """The rows of a pipe, each line of which must be in one of them, be the header's, or be blank."""
    try:
        source = open_stream(io.BytesIO(content), charset)
        rows = list(source.rows)
    except ManyheadError as error:
        tells_where(error, "stdin")
        return []
    text = content.decode("utf-8-sig" if charset == "utf-8" else charset, "surrogateescape")
    end = "\n" if "\n" in text or "\r" not in text else "\r"
    lines = text.removesuffix(end).split(end)
    assert all(len(row.cells) == len(source.columns) for row in rows)
    assert all(cell == shown(cell) for row in rows for cell in (*row.cells, *source.columns) if isinstance(cell, str))
    first = next(number for number, line in enumerate(lines, 1) if line.strip())
    if lines[first - 1].lstrip().startswith("{"):
        assert [row.line for row in rows] == [number for number, line in enumerate(lines, 1) if line.strip()]
        return rows
    header = range(first, first + 1 + sum(name.count(end) for name in source.columns))
    covered = list(header)
    for row in rows:
        breaks = 0 if row.problem else sum(str(cell).count(end) for cell in row.cells)
        covered += range(row.line, row.line + 1 + breaks)
    assert covered == sorted(set(covered))
    assert all(lines[number - 1].strip() == "" for number in set(range(1, len(lines) + 1)) - set(covered))
    return rows


STREAMS = (CONTENT, st.sampled_from(["utf-8", "utf-8", "latin-1", "shift_jis", "utf-16", "undefined"]))


@settings(max_examples=200)
@given(*STREAMS)
def test_every_line_of_any_pipe_counts(content: bytes, charset: str) -> None:
    read_stream(content, charset)


@pytest.mark.slow
@settings(max_examples=4000, suppress_health_check=[HealthCheck.too_slow])
@given(*STREAMS)
def test_every_line_of_very_many_pipes_counts(content: bytes, charset: str) -> None:
    read_stream(content, charset)


def beside_a_bad_line(rows: list[str], bad: str, place: int, form: str, quoting: int, folder: Path) -> None:
    """All good rows come out as they went in, from the file and from the pipe."""
    good = [(f"i{number}", text, str(number % 2)) for number, text in enumerate(rows)]
    names = ("id", "text", "label")
    if form == "jsonl":
        lines = [json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in good]
    else:
        lines = [written(row, "," if form == "csv" else "\t", quoting) for row in [names, *good]]
    lines.insert(max(1, place % (len(lines) + 1)), f"{bad}\n")
    content = "".join(lines).encode("utf-8", "surrogatepass")
    path = folder / f"beside.{form}"
    path.write_bytes(content)
    from_file = [cells for _, cells in read_table(path)]
    from_pipe = [row.cells for row in open_stream(io.BytesIO(content), "utf-8").rows]
    for found in (from_file, from_pipe):
        assert [cells for cells in found if cells in set(good)] == good
        assert len(found) <= len(good) + 1


def written(row: tuple[str, ...], delimiter: str, quoting: int) -> str:
    text = io.StringIO(newline="")
    csv.writer(
        text, delimiter=delimiter, quoting=csv.QUOTE_ALL if quoting else csv.QUOTE_MINIMAL, lineterminator="\n"
    ).writerow(row)
    return text.getvalue()


BESIDE = (
    st.lists(WORDS, min_size=3, max_size=6),
    BAD,
    st.integers(0, 6),
    st.sampled_from(["csv", "tsv", "jsonl"]),
    st.integers(0, 1),
)


@settings(max_examples=200)
@given(*BESIDE)
def test_a_bad_line_harms_no_neighbour(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], bad: str, place: int, form: str, quoting: int
) -> None:
    beside_a_bad_line(rows, bad, place, form, quoting, tmp_path_factory.getbasetemp())


@pytest.mark.slow
@settings(max_examples=3000, suppress_health_check=[HealthCheck.too_slow])
@given(*BESIDE)
def test_very_many_bad_lines_harm_no_neighbour(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], bad: str, place: int, form: str, quoting: int
) -> None:
    beside_a_bad_line(rows, bad, place, form, quoting, tmp_path_factory.getbasetemp())


@settings(max_examples=100)
@given(tables() | SCORES.map(str.encode))
def test_a_guess_is_a_recipe_that_fits_its_file_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = File("guess.csv", content, {}).write(folder)
    try:
        text = guess_recipe([path])
    except (UsageError, DataError) as error:
        tells_where(error, path)
        return
    (folder / "guess.yaml").write_text(text, encoding="utf-8")
    try:
        report = check_data(load_recipe(folder / "guess.yaml").recipe)
    except RecipeError as error:
        tells_where(error, "cannot be a name")
        return
    assert not any(
        "range" in reason or "unknown label" in reason for split in report.splits for reason in split.reasons
    )


@settings(max_examples=60)
@given(tables())
def test_every_row_used_is_tokenised(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = File("tokens.csv", content, {}).write(folder)
    try:
        examples = read_examples("t", make_task(), "train", path, seed=1)
        used = list(examples)
    except DataError:
        return
    if not used:
        return
    data = load_examples(examples, TOKENIZER, max_tokens=8, cache_dir=folder / "cache")
    assert (data.n_examples, data.tally) == (len(used), examples.tally())
    assert data.lines.tolist() == [example.line for example in used]
    assert list(data.ids) == [example.id for example in used]
    assert data.targets is not None
    assert data.targets.tolist() == [example.target for example in used]
    assert data.tokens.lengths().max() <= 8
