"""Fingerprints: repeated, contradicting and shared rows are those that a slow comparison of all pairs finds."""

import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from data_makers import make_task, write_jsonl, write_lines
from hypothesis import given
from hypothesis import strategies as st

from manyhead.data import delimited, growing, prints, tokens
from manyhead.data.examples import read_examples
from manyhead.data.growing import GrowingColumn
from manyhead.data.prints import Lines, Prints, duplicates, read_prints, shared_rows, sorted_hashes

Row = tuple[tuple[str, ...], int]

WORDS = st.sampled_from(["", "a", "b", "A ", " c"])


@pytest.fixture(autouse=True, scope="module")
def small_pieces() -> Iterator[None]:
    """Pieces of three rows, and columns that go to the disk at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prints, "_CHUNK", 3)
        patch.setattr(growing, "IN_MEMORY_BYTES", 8)
        yield


def rows_of(width: int) -> st.SearchStrategy[list[Row]]:
    texts = st.tuples(*[WORDS] * width).filter(lambda each: any(text.strip() for text in each))
    return st.lists(st.tuples(texts, st.integers(0, 1)), max_size=12)


def read(folder: Path, name: str, rows: list[Row], width: int) -> Prints:
    columns = ["first", "second"][:width]
    path = write_jsonl(folder / f"{name}.jsonl", [{**dict(zip(columns, row, strict=True)), "y": y} for row, y in rows])
    if not rows:
        path.write_text("\n")
    task = make_task(text=columns, target="y", files={"train": path.name, "dev": path.name}, max_rejected=1.0)
    if not rows:
        empty = np.empty(0)
        return Prints("t", "dev", empty.astype(np.uint64), np.empty((0, width), np.uint64), empty.astype(int), empty)
    return read_prints(read_examples("t", task, "train", path, seed=0))


def folded(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(" ".join(text.casefold().split()) for text in texts)


@pytest.mark.parametrize("width", [1, 2])
def test_repeated_rows_are_those_of_a_slow_comparison(width: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    @given(rows_of(width))
    def check(rows: list[Row]) -> None:
        keys = [tuple(sorted(folded(texts))) for texts, _ in rows]
        later = [(keys.index(key), place) for place, key in enumerate(keys) if key in keys[:place]]
        differ = [(first + 1, place + 1) for first, place in later if rows[first][1] != rows[place][1]]
        found = duplicates(read(tmp_path_factory.mktemp("rows"), "train", rows, width))
        assert found == (len(later), len(differ), differ[: prints.SHOWN_PAIRS])

    check()


@pytest.mark.parametrize("widths", [(1, 1), (2, 2), (1, 2), (2, 1)])
def test_shared_rows_are_those_of_a_slow_comparison(
    widths: tuple[int, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    @given(rows_of(widths[0]), rows_of(widths[1]))
    def check(ours: list[Row], theirs: list[Row]) -> None:
        folder = tmp_path_factory.mktemp("rows")
        source, into = read(folder, "source", ours, widths[0]), read(folder, "into", theirs, widths[1])
        if widths[0] == widths[1]:
            keys = [tuple(sorted(folded(texts))) for texts, _ in ours]
            wanted = [[tuple(sorted(folded(texts)))] for texts, _ in theirs]
            assert shared_rows(source, sorted_hashes(source, "example"), into, "example") == expected(keys, wanted, 1)
        keys = [text for texts, _ in ours for text in folded(texts)]
        wanted = [[text for text in folded(texts) if text] for texts, _ in theirs]
        found = shared_rows(source, sorted_hashes(source, "text"), into, "text")
        assert found == expected(keys, wanted, widths[0])

    def expected(
        keys: Sequence[object], wanted: Sequence[Sequence[object]], width: int
    ) -> tuple[int, list[tuple[int, int]]]:
        lines = Lines()
        for place, each in enumerate(wanted):
            known = [key for key in each if key in keys]
            if known:
                lines.append((keys.index(known[0]) // width + 1, place + 1))
        return len(lines), lines[: prints.SHOWN_PAIRS]

    check()


@pytest.mark.parametrize("pieces", [[], [[]], [[1]], [[1, 2], [], [3, 4, 5]], [[7] * 1000]])
def test_a_growing_column_holds_what_was_appended(pieces: list[list[int]]) -> None:
    with GrowingColumn(np.int32) as column:
        for piece in pieces:
            column.append(np.array(piece, np.int64))
        found = column.finish()
    assert found.dtype == np.int32
    assert found.tolist() == [number for piece in pieces for number in piece]
    assert not found.flags.writeable


def test_a_full_disk_is_said() -> None:
    program = (
        "import resource, signal, numpy as np\n"
        "from manyhead.data.growing import GrowingColumn\n"
        "from manyhead.errors import WriteError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    with GrowingColumn(np.int64) as column:\n"
        "        column.append(np.zeros(300_000))\n"
        "except WriteError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("a temporary file of the data's check (TMPDIR names another folder) could not")


def peak_of(function: Callable[[], object]) -> int:
    """Most bytes that Python and numpy hold at a time, mapped files not counted."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_grows_by_less_than_32_bytes_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prints, "_CHUNK", 4096)
    monkeypatch.setattr(growing, "IN_MEMORY_BYTES", 1 << 16)
    monkeypatch.setattr(delimited, "_SAMPLE_CHARS", 1000)
    monkeypatch.setattr(tokens, "BATCH_EXAMPLES", 64)
    task, peaks = make_task(files={"train": "train.csv", "dev": "train.csv"}), list[int]()
    for rows in (100, 20_000, 60_000):
        lines = (f"text {number * 7919 % (rows // 2)},{number % 2}" for number in range(rows))
        path = write_lines(tmp_path / "train.csv", "text,label", *lines)

        def look(path: Path = path, rows: int = rows) -> None:
            found = read_prints(read_examples("t", task, "train", path, seed=0))
            assert duplicates(found)[0] == rows // 2
            assert shared_rows(found, sorted_hashes(found, "example"), found, "example")[0] == rows

        peaks.append(peak_of(look))
    assert 8 < (peaks[2] - peaks[1]) / 40_000 < 32
