"""Hashes of files: taken once, and never of what a file held before."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from manyhead import files
from manyhead.files import FileHashes, sha256_of, sha256s_of


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read."""
    found: list[Path] = []

    def counted(path: Path) -> str:
        found.append(path)
        return sha256_of(path)

    monkeypatch.setattr(files, "sha256_of", counted)
    return found


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_several_are_in_order(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(20)]
    for path in paths:
        path.write_text(path.name * 100_000)
    assert sha256s_of(paths) == [digest(path.name * 100_000) for path in paths]
    assert sha256s_of([]) == []
    with pytest.raises(FileNotFoundError):
        sha256s_of([*paths, tmp_path / "none"])


def test_a_file_that_has_settled_is_read_once(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, hashes = tmp_path / "file", FileHashes()
    path.write_text("one")
    later = time.time_ns() + 3_000_000_000
    monkeypatch.setattr(files.time, "time_ns", lambda: later)
    assert [hashes(path) for _ in range(3)] == [digest("one")] * 3
    assert len(reads) == 1
    times = path.stat()
    time.sleep(0.02)  # the file system's clock ticks
    path.write_text("two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert hashes(path) == digest("two")
    assert hashes(path) == digest("two")
    assert len(reads) == 2
    other = tmp_path / "other"
    other.write_text("six")
    other.replace(path)
    assert hashes(path) == digest("six")


def test_a_file_of_this_moment_is_read_each_time(tmp_path: Path) -> None:
    path, hashes = tmp_path / "file", FileHashes()
    for number in range(200):
        path.write_text(f"{number:03}")
        assert hashes(path) == digest(f"{number:03}")
