"""SIGKILL at any moment: what goes on ends as what was never interrupted, bit for bit."""

import random
import re
import signal
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
from faulty import differences, ending, lasting, leftovers
from forge import Done, Forge, Job
from kill_recipes import BAD_ROW, FACTORS, covering, legal_pairs, pairs_of, recipe_of

import manyhead
from tiny import tiny_recipe

ROWS = 26
"""Recipes of the covering."""
AT_PLACES, AT_MOMENTS = 6, 2
"""Kills of each recipe."""
FIRST = ("tokenise: a batch", "publish: all is on the disk")
"""Places that only a run which does not exist yet comes by, and which all of them should be killed at."""
RARE = ("teachers: asked", "publish: the old one made way")
"""Places that not every run comes by: these have tests of their own."""


def places() -> list[str]:
    """All places that training comes by, but the rare ones."""
    code = "".join(path.read_text() for path in sorted(Path(manyhead.__file__).parent.rglob("*.py")))
    found = {*re.findall(r"\bat\(\"([a-z ]+: [a-z ]+|[a-z]+)\"", code)} - {*RARE}
    return sorted(place for place in found if not place.startswith(("bulk: ", "export: ")))


def places_of(row: int) -> list[str]:
    """Where the runs of a row are killed: all rows together, everywhere."""
    found = places()
    return [FIRST[row % 2], *(found[(row * (AT_PLACES - 1) + n) % len(found)] for n in range(AT_PLACES - 1))]


@pytest.fixture(scope="module")
def forge() -> Iterator[Forge]:
    with Forge() as started:
        yield started


class KilledRuns:
    """Runs of one recipe that are killed and go on; each that comes to its end must be as ``whole``."""

    def __init__(self, forge: Forge, folder: Path, job: Job) -> None:
        self.forge, self.folder, self.job = forge, folder, job
        self.kills = 0
        self.finished = 0
        whole = self.do()
        assert whole.code == 0, whole.output
        self.whole = whole
        self.expected = lasting(self.path)
        self.finished = 1

    @property
    def path(self) -> Path:
        return self.folder / f"run-{self.finished}"

    def do(self, **changes: object) -> Done:
        """Goes on, or begins, and may be killed."""
        cache = self.folder / f"cache-{self.finished}"
        return self.forge.do(Job(**{**vars(self.job), "out": str(self.path), "cache": str(cache), **changes}))

    def was_killed(self, **where: object) -> bool:
        """Goes on until it is killed there. A run that ends before that is compared, and makes way for another."""
        done = self.do(**where)
        if done.code == -signal.SIGKILL:
            self.kills += 1
            return True
        self.check(done)
        return False

    def check(self, done: Done) -> None:
        assert done.code == 0, done.output
        assert differences(self.expected, lasting(self.path)) == []
        assert leftovers(self.path) == []
        self.finished += 1

    def kill_at(self, place: str, visit: int) -> None:
        """Kills at a place; a new run is sure to come by, one that goes on may have passed it."""
        if not self.was_killed(place=place, visit=visit):
            assert self.was_killed(place=place, visit=visit), (place, visit)

    def kill_at_a_moment(self, generator: random.Random) -> None:
        while not self.was_killed(seconds=generator.uniform(0.0, self.whole.seconds)):
            pass

    def end(self) -> None:
        """Goes on unharmed."""
        self.check(self.do())


def killed_runs(forge: Forge, folder: Path, encoder: Path, row: int, kills: int, moments: int) -> KilledRuns:
    """The runs of a row after their kills, which come in any order, but those before the run exists first."""
    choice = covering()[row]
    bad_row = BAD_ROW if choice["on_nonfinite"] == "skip" else None
    job = Job(recipe_of(choice, encoder), out="", cache="", bad_row=bad_row)
    runs = KilledRuns(forge, folder, job)
    generator = random.Random(row)
    first, *others = places_of(row)[:kills]
    runs.kill_at(first, 1)
    planned: list[str | None] = [*others, *([None] * moments)]
    generator.shuffle(planned)
    for place in planned:
        if place is None:
            runs.kill_at_a_moment(generator)
        else:
            assert place in runs.whole.visits, (place, choice)
            # Early visits, of those that are left: nearly every kill is then one more of the same run.
            runs.kill_at(place, generator.randint(1, -(-runs.whole.visits[place] // 3)))
    runs.end()
    return runs


def test_the_recipes_have_all_pairs_of_methods() -> None:
    found = set().union(*map(pairs_of, covering()))
    missing = legal_pairs().keys() - found
    assert missing == set()
    every = sum(len(FACTORS[one]) * len(FACTORS[other]) for one, other in combinations(FACTORS, 2))
    assert every - len(legal_pairs()) < 10  # what recipes refuse
    assert len(covering()) == ROWS >= 16
    assert ROWS * (AT_PLACES + AT_MOMENTS) >= 200


def test_every_place_is_among_those_where_runs_are_killed() -> None:
    planned = [place for row in range(ROWS) for place in places_of(row)]
    assert {*planned} == {*places()}
    assert len(places()) > 20
    assert min(map(planned.count, places())) >= 3


@pytest.mark.parametrize("row", [1, 7])
def test_a_killed_run_goes_on_to_the_same_bits(forge: Forge, encoder: Path, tmp_path: Path, row: int) -> None:
    assert killed_runs(forge, tmp_path, encoder, row, kills=3, moments=0).kills == 3


@pytest.mark.slow
@pytest.mark.parametrize("row", range(ROWS))
def test_killed_runs_of_every_method_go_on_to_the_same_bits(
    forge: Forge, encoder: Path, tmp_path: Path, row: int
) -> None:
    runs = killed_runs(forge, tmp_path, encoder, row, AT_PLACES, AT_MOMENTS)
    assert runs.kills == AT_PLACES + AT_MOMENTS


def test_a_run_killed_while_teachers_are_asked(forge: Forge, encoder: Path, tmp_path: Path) -> None:
    row = next(row for row, choice in enumerate(covering()) if choice["stages"] == "distillation")
    bad_row = BAD_ROW if covering()[row]["on_nonfinite"] == "skip" else None
    runs = KilledRuns(forge, tmp_path, Job(recipe_of(covering()[row], encoder), out="", cache="", bad_row=bad_row))
    assert runs.was_killed(place="teachers: asked")
    assert runs.was_killed(place="teachers: asked")
    runs.end()


def test_a_checkpoint_that_takes_the_place_of_another_is_never_lost(
    forge: Forge, encoder: Path, tmp_path: Path
) -> None:
    """A signal amid the evaluation leaves a checkpoint of its step, which is written again once it is scored."""
    recipe = tiny_recipe(encoder, evaluate_every_steps=3, epochs=2)
    runs = KilledRuns(forge, tmp_path, Job(recipe, out="", cache=""))
    stopped = runs.do(place="evaluation: a batch", visit=2, number=signal.SIGTERM)
    assert stopped.code == 128 + signal.SIGTERM
    for place in ("checkpoint: weights written", "publish: the old one made way", "publish: the old one made way"):
        assert runs.was_killed(place=place), place
    assert runs.was_killed(place="publish: renamed")
    assert runs.do().code == 0
    assert differences(ending(tmp_path / "run-0"), ending(runs.path)) == []
    assert leftovers(runs.path) == []


@pytest.mark.slow
@pytest.mark.embedded
def test_killed_runs_of_the_embedded_encoder_go_on_to_the_same_bits(forge: Forge, tmp_path: Path) -> None:
    """In bf16, on the packaged sample."""
    recipe = tiny_recipe(Path("embedded"), max_steps=4, evaluate_every_steps=2, checkpoint_every_steps=1)
    recipe |= {"encoder": {"checkpoint": "embedded", "max_tokens": 40}, "precision": "bf16"}
    runs = KilledRuns(forge, tmp_path, Job(recipe, out="", cache=""))
    generator = random.Random(1)
    for place in ("checkpoint: optimiser written", "updated", "save: best linked", "finish: the model is written"):
        runs.kill_at(place, 1)
    for _ in range(2):
        runs.kill_at_a_moment(generator)
    runs.end()
    assert runs.kills == 6
