"""The token cache: equal to tokenising anew, and never half, stale or damaged without a word."""

import json
import logging
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_makers import content, load_in_process, make_recipe, make_task, make_tokenizer, write_jsonl, write_lines

from manyhead.data.cache import default_cache_dir, load_examples, load_task_data
from manyhead.data.examples import Example, Examples
from manyhead.data.read import read_table
from manyhead.data.task_data import StringColumn, TaskData
from manyhead.data.tokens import tokenize_texts
from manyhead.errors import DataError, UsageError
from manyhead.recipe.schema import Split

ROWS = ["good film,1", "the film is bad,0", '"a ""good"" film, why?",1', "what,1.0"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_lines(tmp_path / "train.csv", "text,label", *ROWS)
    return tmp_path


def load(folder: Path, split: Split = "train", *, max_tokens: int = 16, seed: int = 13, **task: Any) -> TaskData:
    recipe = make_recipe(folder, {"t": make_task(**task)}, encoder={"max_tokens": max_tokens}, seed=seed)
    return load_task_data("t", split, recipe, make_tokenizer(), cache_dir=folder / "cache")


def caches(folder: Path) -> list[Path]:
    return sorted((folder / "cache").iterdir())


def test_the_cache_holds_what_tokenising_gives(folder: Path) -> None:
    texts = [("good film",), ("the film is bad",), ('a "good" film, why?',), ("what",)]
    fresh = tokenize_texts(make_tokenizer(), texts, max_tokens=16, siamese=False)
    for _ in range(2):
        data = load(folder)
        assert data.targets is not None
        assert data.targets.dtype == np.int64
        assert data.targets.tolist() == [1, 0, 1, 1]
        assert data.lines.tolist() == [2, 3, 4, 5]
        assert list(data.ids) == ["0", "1", "2", "3"]
        for name in ("ids", "offsets", "segment_starts", "truncated"):
            ours, theirs = getattr(data.tokens, name), getattr(fresh, name)
            assert ours.dtype == theirs.dtype
            assert ours.tolist() == theirs.tolist()
            assert not ours.flags.writeable
        assert data.n_examples == data.tokens.n_examples == 4
        assert data.tally.used == 4
    assert len(caches(folder)) == 1


def test_pairs_scores_ids_and_rejects_survive(folder: Path) -> None:
    rows = [{"a": "good", "b": "film", "s": 0.5, "id": "ü"}, {"a": "x", "b": "y", "s": 9, "id": "2"}]
    write_jsonl(folder / "pairs.jsonl", [*rows, {"a": "", "b": "bad", "s": 1, "id": ""}])
    task = {"kind": "regression", "range": [0, 5], "text": ["a", "b"], "target": "s", "max_rejected": 0.5}
    for _ in range(2):
        data = load(folder, **task, pairing="siamese", files={"train": "pairs.jsonl"})
        assert data.targets is not None
        assert (data.targets.dtype, data.targets.tolist()) == (np.float32, [0.5, 1.0])
        assert (data.tokens.sequences_per_example, len(data.tokens.lengths())) == (2, 4)
        assert data.ids[:] == ["ü", "2"]
        assert data.tally.rejects.total == 1
        assert [str(warning).split(": ", 2)[2] for warning in data.warnings] == [
            "1 of 3 rows rejected: the target 9 is outside of the range 0 to 5 (1 row, line 2)",
            "1 pair with one empty text, used as they are",
        ]


def test_test_splits_without_targets_or_rows(folder: Path) -> None:
    write_lines(folder / "test.csv", "text", "good")
    data = load(folder, "test", files={"test": "test.csv"})
    assert (data.targets, data.label_hash) == (None, None)
    write_lines(folder / "test.csv", "text")
    for _ in range(2):
        data = load(folder, "test", files={"test": "test.csv"})
        assert (data.n_examples, len(data.ids), len(data.tokens.lengths())) == (0, 0, 0)
        assert not data.tokens.ids.flags.writeable


CHANGES: list[dict[str, Any]] = [
    {"max_tokens": 5},
    {"labels": {1: "good", 0: "bad"}},
    {"limit": {"train": 2}},
    {"target": "text2"},
    {"charset": "latin-1"},
    {"quoting": "none", "max_rejected": 1.0},
    {"files": {"train": "train.csv", "dev": {"from": "train", "fraction": 0.5}}},
    {"files": {"train": "train.csv", "dev": {"from": "train", "fraction": 0.5}}, "seed": 14},
    {"id": "text"},
]


def test_whatever_changes_the_content_is_another_cache(folder: Path) -> None:
    write_lines(folder / "train.csv", "text,label,text2", *(f"{row},{i % 2}" for i, row in enumerate(ROWS)))
    load(folder)
    for count, change in enumerate(CHANGES, start=2):
        load(folder, **change)
        assert len(caches(folder)) == count, change
    write_lines(folder / "train.csv", "text,label,text2", "new film,1,0")
    assert load(folder).n_examples == 1
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["film"])
    recipe = make_recipe(folder, {"t": make_task()}, encoder={"max_tokens": 16})
    load_task_data("t", "train", recipe, tokenizer, cache_dir=folder / "cache")
    assert len(caches(folder)) == len(CHANGES) + 3


def test_what_changes_nothing_is_the_same_cache(folder: Path) -> None:
    first = load(folder)
    changes: list[dict[str, Any]] = [{"max_rejected": 0.5}, {"seed": 99}, {"loss": "bce"}, {"limit": {"dev": 1}}]
    for change in changes:
        load(folder, **change)
    tokenizer = make_tokenizer()
    tokenizer.no_padding()
    recipe = make_recipe(folder, {"t": make_task()}, encoder={"max_tokens": 16})
    again = load_task_data("t", "train", recipe, tokenizer, cache_dir=folder / "cache")
    assert len(caches(folder)) == 1
    assert (again.data_hash, again.label_hash) == (first.data_hash, first.label_hash)


def test_hashes_tell_data_and_labels_apart(folder: Path) -> None:
    before = load(folder)
    write_lines(folder / "train.csv", "text,label", *(row.replace("film", "watch") for row in ROWS))
    words = load(folder)
    write_lines(folder / "train.csv", "text,label", *reversed(ROWS))
    order = load(folder)
    assert len({data.data_hash for data in (before, words, order)}) == 3
    assert before.label_hash == words.label_hash != order.label_hash


def test_a_cut_splits_one_file(folder: Path) -> None:
    files = {"train": "train.csv", "dev": {"from": "train", "fraction": 0.5}}
    train, dev = (load(folder, split, files=files) for split in ("train", "dev"))
    assert sorted([*train.lines.tolist(), *dev.lines.tolist()]) == [2, 3, 4, 5]
    assert len(dev.lines) == 2


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


NAMES = ["ids", "offsets", "segment_starts", "truncated", "targets", "lines", "row_ids", "row_id_offsets", "meta.json"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", [flip, cut, empty, Path.unlink])
def test_damage_is_noticed_said_and_mended(
    folder: Path, name: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    before = content(load(folder))
    (cache,) = caches(folder)
    assert sorted(path.name for path in cache.iterdir()) == sorted(NAMES)
    damage(cache / name)
    with caplog.at_level(logging.WARNING):
        assert content(load(folder)) == before
        (record,) = caplog.records
        assert f"{cache} is damaged (" in record.getMessage()
        assert content(load(folder)) == before
        assert len(caplog.records) == 1
    assert caches(folder) == [cache]


def test_a_meta_file_of_another_kind_is_damage(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(folder)
    for other in ("[]", "{}", '{"content": {}, "sha256": 1}', "null", "\ud800"):
        (caches(folder)[0] / "meta.json").write_bytes(other.encode("utf-8", "surrogatepass"))
        assert load(folder).n_examples == 4
    assert len(caplog.records) == 5


def test_processes_build_the_same_at_once(folder: Path) -> None:
    write_lines(folder / "train.csv", "text,label", *(f"good film {i},{i % 2}" for i in range(3000)))
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        results = pool.starmap(load_in_process, [(folder, folder / "cache")] * 3, chunksize=1)
        pool.close()
        pool.join()
    assert results[0] == results[1] == results[2]
    assert len(results[0][0]) == 3000
    assert len(caches(folder)) == 1


def test_leftovers_of_dead_processes_go_and_others_stay(folder: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    gone = folder / "cache" / f".building-{dead.pid}-{host}-a1"
    alive = folder / "cache" / f".building-{os.getpid()}-{host}-a2"
    elsewhere = folder / "cache" / ".building-1-some-other-host-a3"
    forgotten = folder / "cache" / ".building-1-some-other-host-a4"
    for leftover in (gone, alive, elsewhere, forgotten):
        leftover.mkdir(parents=True)
        (leftover / "ids").write_bytes(b"x")
    os.utime(forgotten, (0, 0))
    load(folder)
    assert set(caches(folder)) & {gone, alive, elsewhere, forgotten} == {alive, elsewhere}


def test_an_unusable_split_leaves_nothing_behind(folder: Path) -> None:
    write_lines(folder / "train.csv", "text,label", "x,7", "y,1")
    with pytest.raises(DataError, match="1 of 2 rows rejected: unknown label '7'"):
        load(folder)
    assert caches(folder) == []
    load(folder, max_rejected=0.5)
    with pytest.raises(DataError, match="1 of 2 rows rejected"):
        load(folder)
    with pytest.raises(UsageError, match=r"no dev file; name one under tasks\.t\.files\.dev"):
        load(folder, "dev")


class Growing(Examples):
    """Examples of a file that someone writes to as soon as it is read."""

    def __iter__(self) -> Iterator[Example]:
        write_lines(self.table.path, "text,label", *ROWS, "late,1")
        return super().__iter__()


def test_a_file_that_changes_while_it_is_read_is_refused(folder: Path) -> None:
    examples = Growing("t", make_task(), "train", read_table(folder / "train.csv"), seed=1)
    with pytest.raises(DataError, match="changed while it was read"):
        load_examples(examples, make_tokenizer(), max_tokens=16, cache_dir=folder / "cache")
    assert caches(folder) == []


def test_where_nothing_can_be_written_tokens_live_for_now(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "file").write_bytes(b"")
    recipe = make_recipe(folder, {"t": make_task()})
    for _ in range(2):
        data = load_task_data("t", "train", recipe, make_tokenizer(), cache_dir=folder / "file" / "cache")
        assert data.n_examples == 4
    (record,) = caplog.records
    assert "cannot write the token cache in" in record.getMessage()


@pytest.mark.parametrize(("rows", "limit_bytes"), [(3000, 5000), (3, 20)])
def test_a_full_disk_is_a_write_error_and_leaves_nothing(folder: Path, rows: int, limit_bytes: int) -> None:
    write_lines(folder / "train.csv", "text,label", *(f"good film {i},{i % 2}" for i in range(rows)))
    program = """
import resource, sys
from pathlib import Path
from data_makers import load_in_process
from manyhead.errors import WriteError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    load_in_process(Path(sys.argv[1]), Path(sys.argv[2]))
except WriteError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, folder, folder / "cache", str(limit_bytes)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "the token cache in" in done.stdout
    assert "MANYHEAD_CACHE" in done.stdout
    assert caches(folder) == []


def test_the_default_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYHEAD_CACHE", "own")
    monkeypatch.setenv("XDG_CACHE_HOME", "shared")
    assert default_cache_dir() == Path("own")
    monkeypatch.delenv("MANYHEAD_CACHE")
    assert default_cache_dir() == Path("shared/manyhead")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == Path.home() / ".cache" / "manyhead"


def test_string_columns_are_sequences() -> None:
    texts = ["", "é", "日本", "x" * 100]
    encoded = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, encoded)])
    column = StringColumn(np.frombuffer(b"".join(encoded), np.uint8), offsets)
    assert (list(column), column[-1], column[1:3], len(column)) == (texts, texts[-1], texts[1:3], 4)
    with pytest.raises(IndexError):
        column[4]


def test_meta_is_readable(folder: Path) -> None:
    load(folder)
    meta = json.loads((caches(folder)[0] / "meta.json").read_text(encoding="utf-8"))
    assert meta["content"]["tally"]["used"] == 4
