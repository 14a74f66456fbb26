"""A disk that is full, read-only or broken: exit code 74, the last good checkpoint is whole, and it goes on later."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from faulty import AtVisit, differences, ending, leftovers, run

from manyhead.errors import UsageError, WriteError
from manyhead.faults import injected
from manyhead.training.checkpoint import checkpoint_folders, damage
from tiny import tiny_recipe

KILOBYTE = 1024
SMALL, LARGE = "4m", "64m"


def mounted(*words: str) -> bool:
    return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mounted("-t", "tmpfs", "-o", f"size={SMALL}", "manyhead-test", str(folder)):
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=False)


@pytest.fixture(scope="module")
def recipe(encoder: Path) -> dict[str, Any]:
    return tiny_recipe(encoder, evaluate_every_steps=2, checkpoint_every_steps=1, keep_checkpoints=1)


@pytest.fixture(scope="module")
def whole(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return ending(run(recipe, tmp_path_factory.mktemp("whole") / "run").path)


def fill(disk: Path, left: int = 0) -> None:
    """Leaves about ``left`` bytes of the disk."""
    with (disk / "filler").open("wb", buffering=0) as file:
        with suppress(OSError):
            while file.write(b"\0" * KILOBYTE):
                pass
        file.truncate(max(0, file.tell() - left))


def filling(disk: Path, left: int) -> Callable[[Any], None]:
    return lambda _: fill(disk, left)


MOMENTS = {
    "while logging": ("step: logged", 3, 0),
    "before the first checkpoint": ("save: begins", 1, 0),
    "in the weights": ("save: begins", 2, 20 * KILOBYTE),
    "in the optimiser": ("save: begins", 2, 90 * KILOBYTE),
    "in the last checkpoint": ("save: begins", 6, 90 * KILOBYTE),
    "in the state": ("checkpoint: optimiser written", 2, 0),
    "in the manifest": ("checkpoint: state written", 2, 0),
    "behind the manifest": ("checkpoint: manifest written", 2, 0),
    "in the predictions": ("finish: begins", 1, 0),
    "in the model": ("finish: begins", 1, 40 * KILOBYTE),
    "in the summary": ("finish: the model is written", 1, 0),
    "in the state of the run": ("finish: the report is written", 1, 0),
}


@pytest.mark.parametrize("moment", list(MOMENTS))
def test_a_full_disk_keeps_the_last_good_checkpoint(
    recipe: dict[str, Any], whole: dict[str, str], disk: Path, moment: str
) -> None:
    place, visit, left = MOMENTS[moment]
    path = disk / "run"
    with injected(AtVisit(place, filling(disk, left), visit)), pytest.raises(WriteError) as told:
        run(recipe, path)
    assert told.value.exit_code == 74
    assert "free some space" in str(told.value)
    check_whole(path)
    if not moment.startswith("in the s"):
        with pytest.raises(WriteError):  # still full
            run(recipe, path, resume=True)
        check_whole(path)
    assert mounted("-o", f"remount,size={LARGE}", str(disk))
    run(recipe, path, resume=True)
    assert differences(whole, ending(path)) == []
    assert leftovers(path) == []


def check_whole(path: Path) -> None:
    assert [folder for folder in checkpoint_folders(path / "checkpoints") if damage(folder)] == []
    # One that was being removed is no checkpoint any more.
    assert [name for name in leftovers(path) if "/.tmp-old-" not in name] == []


def test_a_run_that_finds_no_room_does_not_begin(recipe: dict[str, Any], whole: dict[str, str], disk: Path) -> None:
    fill(disk, 8 * KILOBYTE)
    with pytest.raises(WriteError) as told:
        run(recipe, disk / "run")
    assert told.value.exit_code == 74
    assert [each.name for each in disk.iterdir()] == ["filler"]
    (disk / "filler").unlink()
    assert differences(whole, ending(run(recipe, disk / "run").path)) == []


def test_a_read_only_disk(recipe: dict[str, Any], whole: dict[str, str], disk: Path) -> None:
    def fail(_: Any) -> None:
        raise KeyError("as if the power went")

    with injected(AtVisit("updated", fail, 4)), pytest.raises(KeyError):
        run(recipe, disk / "run")
    assert mounted("-o", "remount,ro", str(disk))
    with pytest.raises(WriteError) as told:
        run(recipe, disk / "run", resume=True)
    assert told.value.exit_code == 74
    with pytest.raises(UsageError, match="cannot be written to"):
        run(recipe, disk / "other")
    assert mounted("-o", "remount,rw", str(disk))
    run(recipe, disk / "run", resume=True)
    assert differences(whole, ending(disk / "run")) == []


PLACES = (
    "checkpoint: weights written",
    "checkpoint: optimiser written",
    "checkpoint: state written",
    "checkpoint: manifest written",
    "checkpoint: an old one is being removed",
    "publish: all is on the disk",
    "publish: renamed",
    "log",
)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO], ids=["full", "read-only", "broken"])
def test_errors_of_the_operating_system_at_each_place(
    recipe: dict[str, Any], whole: dict[str, str], tmp_path: Path, place: str, number: int
) -> None:
    def fail(_: Any) -> None:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "run"
    visit = 1 if "removed" in place else 3  # the first that is published is the run
    with injected(AtVisit(place, fail, visit)), pytest.raises(WriteError) as told:
        run(recipe, path)
    assert told.value.exit_code == 74
    assert os.strerror(number) in str(told.value)
    check_whole(path)
    run(recipe, path, resume=True)
    assert differences(whole, ending(path)) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_run_folder_that_cannot_be_published(recipe: dict[str, Any], tmp_path: Path, number: int) -> None:
    def fail(_: Any) -> None:
        raise OSError(number, os.strerror(number))

    out = tmp_path / "runs" / "run"
    with injected(AtVisit("publish: all is on the disk", fail)), pytest.raises(WriteError):
        run(recipe, out)
    assert list(out.parent.iterdir()) == []
