"""Studies as they are written: the format, everything wrong at once, and the runs that rows become."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manyhead.errors import DataError, RecipeError
from manyhead.recipe.names import shipped_paths, shipped_studies
from manyhead.studies.load import load_study
from manyhead.studies.plan import plan_study
from manyhead.studies.planner import Options, Planner
from manyhead.studies.runs import Plan
from manyhead.studies.schema import BUDGETS, Budget

Write = Callable[..., Path]


def plan(path: Path | str, **options: Any) -> Plan:
    given = {"budget": BUDGETS["full"], "seeds": 1} | options
    return plan_study(Planner(Options(**given)), load_study(path))


def lines(error: pytest.ExceptionInfo[RecipeError]) -> list[str]:
    return str(error.value).splitlines()


def test_rows_and_their_names(write_recipe: Write, write_study: Write) -> None:
    write_recipe("a", header="# published: {reviews: .5, overall: .7}\n")
    write_recipe("b", {"epochs": 1})
    path = write_study("""\
study: 1
name: three
rows:
  - a.yaml
  - {recipe: a.yaml, name: short, set: {stages.0.epochs: 1, stages.0.optimizer.lr: 1e-2}, published: {sentences: 1}}
  - {name: joined, row: {reviews: a.yaml, questions: b.yaml}, published: {reviews: .4}}
""")
    found = plan(path)
    assert [row.name for row in found.rows] == ["a", "short", "joined"]
    assert [row.published for row in found.rows] == [
        {"reviews": 0.5, "overall": 0.7},
        {"sentences": 1.0},
        {"reviews": 0.4},
    ]
    assert [member.task for member in found.rows[2].members] == ["reviews", "questions"]
    short = found.rows[1].members[0].runs[0].recipe
    assert (short.stages[0].epochs, short.stages[0].optimizer.model_dump()["lr"]) == (1, 0.01)
    assert len(found.runs) == 3  # the joined row's first recipe is the first row's
    assert found.rows[0].members[0].runs == found.rows[2].members[0].runs


def test_seeds_follow_the_recipes_own(write_recipe: Write) -> None:
    found = plan(write_recipe("a", seed=4), seeds=3)
    assert [run.recipe.seed for run in found.runs] == [4, 5, 6]
    assert len({run.digest for run in found.runs}) == 3


def test_one_seed_of_all_rows_comes_before_the_next(write_recipe: Write, write_study: Write) -> None:
    write_recipe("a")
    write_recipe("b", {"epochs": 1})
    path = write_study("study: 1\nname: two\nrows: [a.yaml, b.yaml]\n")
    assert [run.recipe.seed for run in plan(path, seeds=2).runs] == [13, 13, 14, 14]


def test_a_grid_is_a_row_for_each_point_in_the_order_of_its_figures(write_recipe: Write, write_study: Write) -> None:
    grid = {"stages.0.optimizer.lr": [1e-3, 1e-4], "stages.0.balancing": ["sum", {"kind": "weighted", "weights": {}}]}
    figures = "# published_grid: [{reviews: .1}, {reviews: .2}, {}, {reviews: .4, overall: .5}]\n"
    write_recipe("g", header=figures, grid=grid)
    found = plan(write_study("study: 1\nname: n\nrows: [g.yaml]\n"))
    assert [row.name for row in found.rows] == [
        "g lr=0.001, balancing=sum",
        "g lr=0.001, balancing=weighted",
        "g lr=0.0001, balancing=sum",
        "g lr=0.0001, balancing=weighted",
    ]
    assert [row.published.get("reviews") for row in found.rows] == [0.1, 0.2, None, 0.4]
    lrs = [run.recipe.stages[0].optimizer.model_dump()["lr"] for run in found.runs]
    assert lrs == [1e-3, 1e-3, 1e-4, 1e-4]
    assert all(run.recipe.grid == {} for run in found.runs)


def test_keys_of_a_grid_are_told_apart(write_recipe: Write) -> None:
    grid = {"tasks.reviews.head.dropout": [0.1], "tasks.questions.head.dropout": [0.2]}
    assert [row.name for row in plan(write_recipe("g", grid=grid)).rows] == [
        "g reviews.head.dropout=0.1, questions.head.dropout=0.2"
    ]


def test_a_grid_can_come_from_the_command_line_and_stays_what_it_is(write_recipe: Write) -> None:
    path = write_recipe("a")
    overrides = ["grid={stages.0.epochs: [1, 2]}", "stages.0.epochs=9", "stages.0.batch_size=4"]
    found = plan(path, overrides=overrides)
    assert [run.recipe.stages[0].epochs for run in found.runs] == [1, 2]
    assert [run.recipe.stages[0].batch_size for run in found.runs] == [4, 4]


def test_what_tells_runs_apart(write_recipe: Write, tmp_path: Path) -> None:
    path = write_recipe("a")
    (run,) = plan(path).runs
    same = write_recipe("other", {"name": "s0"}, device="cpu", threads=None)
    assert plan(same).runs[0].digest == run.digest
    assert plan(path, overrides=["stages.0.epochs=1"]).runs[0].digest != run.digest
    copy = tmp_path / "data"
    copy.mkdir()
    for file in Path(run.recipe.data_dir).glob("*.csv"):
        (copy / file.name).write_bytes(file.read_bytes())
    assert plan(path, data_dir=copy).runs[0].digest == run.digest
    changed = copy / "reviews.dev.csv"
    changed.write_text(changed.read_text().replace("good", "fine"))
    assert plan(path, data_dir=copy).runs[0].digest != run.digest


def test_the_order_of_labels_tells_runs_apart(write_recipe: Write) -> None:
    path = write_recipe("a")
    turned = "tasks.questions.labels={1: same, 0: different}"
    assert plan(path, overrides=[turned]).runs[0].digest != plan(path).runs[0].digest


def test_recipes_that_begin_alike_have_their_common_stages_cut_alike(write_recipe: Write, write_study: Write) -> None:
    multitask = {"name": "multitask", "epochs": 8}
    write_recipe("long", multitask, {"tasks": ["reviews"], "epochs": 2})
    write_recipe("longer", multitask, {"tasks": ["questions", "sentences"], "epochs": 8})
    write_recipe("alone", multitask)
    path = write_study("study: 1\nname: n\nrows: [long.yaml, longer.yaml, alone.yaml]\n")
    long, longer, alone = (run.recipe for run in plan(path, budget=Budget(examples=300)).runs)
    assert long.stages[0] == longer.stages[0]
    assert long.stages[0].epoch_examples != alone.stages[0].epoch_examples


def test_an_encoder_from_the_hub_is_replaced_unless_it_is_named(write_recipe: Write, write_study: Write) -> None:
    write_recipe("a", encoder={"checkpoint": "owner/name"})
    path = write_study("study: 1\nname: n\nrows: [a.yaml, {recipe: a.yaml, name: b, set: {encoder.checkpoint: x/y}}]\n")
    small = {"budget": BUDGETS["small"]}
    assert [run.recipe.encoder.checkpoint for run in plan(path, **small).runs] == ["embedded", "x/y"]
    found = plan(path, overrides=["encoder.checkpoint=own/one"], **small)
    assert [run.recipe.encoder.checkpoint for run in found.runs] == ["own/one", "x/y"]


def test_budgets_of_a_study_replace_single_keys(write_study: Write) -> None:
    text = "study: 1\nname: n\nbudgets: {small: {examples: 50, dev_rows: null}}\nrows: [cs224n]\n"
    budget = load_study(write_study(text)).study.budget("small")
    assert (budget.examples, budget.dev_rows, budget.rate_factor) == (50, None, BUDGETS["small"].rate_factor)


FAULTY = """\
study: 1
name: two words
baselin: x
seeds: 0
budgets:
  small: {exmples: 5, epochs: none}
  tiny: {}
rows:
  - {recipe: a.yaml, nam: b}
  - 5
  - {row: {sst: 3}, name: c}
"""


def test_all_faults_of_the_format_come_at_once(write_study: Write) -> None:
    path = write_study(FAULTY)
    with pytest.raises(RecipeError) as error:
        load_study(path)
    found = {line.split(": ")[0].rpartition(":")[2] + " " + line.split(": ")[1] for line in lines(error)}
    assert found == {
        "2 name", "3 baselin", "4 seeds", "6 budgets.small.exmples", "6 budgets.small.epochs", "7 budgets.tiny",
        "9 rows.0.nam", "10 rows.1", "11 rows.2.row.sst",
    }  # fmt: skip
    assert "did you mean 'baseline'?" in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("study: 2\nname: n\nrows: [a]\n", "1: study: the study has format 2"),
        ("study: 1\nname: n\n", "rows: is missing"),
        ("study: 1\nname: n\nrows: []\n", "3: rows"),
        ("study: 1\nname: n\nrows:\n  - {name: x}\n", "4: rows.0: has neither recipe nor row"),
        ("study: 1\nname: n\nrows:\n  - {recipe: a, row: {b: c}, name: x}\n", "4: rows.0: has both recipe and row"),
        ("study: 1\nname: n\nrows:\n  - {row: {b: c}}\n", "4: rows.0: has several recipes and no name"),
        ("study: 1\nname: n\nrows:\n  - {row: {}, name: x}\n", "4: rows.0.row: names no task"),
        ("study: 1\nname: n\nname: m\nrows: [a]\n", "3: name: the key name is there already, on line 2"),
    ],
)
def test_faults_of_the_format(text: str, expected: str, write_study: Write) -> None:
    with pytest.raises(RecipeError) as error:
        load_study(write_study(text))
    assert expected in str(error.value)


BROKEN = """\
study: 1
name: n
baseline: nobody
rows:
  - cs224m
  - {recipe: a.yaml, set: {stages.0.epoch: 1}}
  - {recipe: a.yaml, name: c, set: {"stages..epochs": 1}}
  - {name: d, row: {reviews: a.yaml, colours: a.yaml, questions: grid.yaml}}
  - search.yaml
  - faulty.yaml
  - {recipe: grid.yaml, name: e, published: {reviews: .3}}
  - figures.yaml
"""


def test_all_faults_of_all_recipes_come_at_once(write_recipe: Write, write_study: Write, tmp_path: Path) -> None:
    write_recipe("a")
    write_recipe("grid", grid={"stages.0.epochs": [1, 2]})
    write_recipe("figures", header="# published_grid: [{reviews: .1}]\n", grid={"stages.0.epochs": [1, 2]})
    write_recipe("search", search={"keys": {"stages.0.epochs": [1, 2]}})
    write_recipe("faulty", {"batch_sizes": 3})
    with pytest.raises(RecipeError) as error:
        plan(write_study(BROKEN))
    found = [line.replace(f"{tmp_path}/", "") for line in lines(error)]
    for line, start in zip(
        found,
        (
            "study.yaml:5: rows.0.recipe: 'cs224m' is neither a file nor a shipped recipe",
            "study.yaml:6: stages.0.epoch: unknown key 'epoch'",
            "study.yaml:7: 'stages..epochs' is no dotted key",
            "study.yaml:8: rows.3.row.colours: 'a.yaml' does not score a task 'colours'",
            "study.yaml:8: rows.3.row.questions: 'grid.yaml' stands for several runs",
            "study.yaml:9: rows.4.recipe: 'search.yaml' has a search",
            "faulty.yaml:",
            "study.yaml:11: rows.6.recipe: is a grid",
            "study.yaml:12: rows.7.recipe: 1 published figures for 2 points",
        ),
        strict=True,
    ):
        assert line.startswith(start), line


def test_names_have_to_be_one_rows_own(write_recipe: Write, write_study: Write) -> None:
    write_recipe("a")
    path = write_study("study: 1\nname: n\nbaseline: b\nrows: [a.yaml, {recipe: a.yaml, set: {seed: 3}}]\n")
    with pytest.raises(RecipeError) as error:
        plan(path)
    assert lines(error) == [
        f"{path}:4: rows: two rows are named 'a'; give one a name",
        f"{path}:3: baseline: there is no row 'b'; expected one of a, a",
    ]


def test_missing_data_is_told_before_anything_is_run(write_recipe: Write, write_study: Write, tmp_path: Path) -> None:
    write_recipe("a")
    write_recipe("b", {"epochs": 1})
    path = write_study("study: 1\nname: n\nrows: [a.yaml, b.yaml]\n")
    with pytest.raises(DataError, match=r"reviews\.train\.csv"):
        plan(path, data_dir=tmp_path)


def test_a_name_that_is_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=r"'s33' is neither a file nor a shipped study or recipe; expected .* s3"):
        load_study("s33")
    (tmp_path / "broken.yaml").write_text("study: [")
    with pytest.raises(RecipeError, match="not YAML"):
        load_study("broken.yaml")


def test_shipped_studies_are_no_recipes() -> None:
    assert {"s1", "s2", "s3", "s4"} <= shipped_studies().keys()
    assert not [name for name in shipped_paths() if name.startswith("studies")]
    for name in shipped_studies():
        loaded = load_study(name)
        assert loaded.study.name == name
        assert loaded.study.title
