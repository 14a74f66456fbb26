import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manyhead.errors import Problem, RecipeError
from manyhead.evaluation.metrics import METRICS as COMPUTED
from manyhead.recipe.load import load_recipe, recipe_yaml
from manyhead.recipe.schema import METRICS, Recipe, Stage, Task
from manyhead.recipe.yaml_text import parse_document

SOUND = """\
manyhead: 1
name: sound
encoder: {dropout: 0.1}
tasks:
  mood:
    kind: classification
    text: [sentence]
    target: mood
    labels: {0: bad, 1: fair, 2: good}
    files: {train: mood.csv, dev: mood-dev.csv}
    head: {kind: linear, dropout: 0.2}
    class_weights: {0: 2.0}
  same:
    kind: classification
    text: [first, second]
    target: same
    labels: [no, yes]
    files: {train: same.csv}
    loss: bce
  near:
    kind: regression
    text: [first, second]
    target: score
    range: [0, 5]
    pairing: siamese
    files: {train: near.csv, dev: near-dev.csv}
    head: cosine
    loss: cosine_mse
  seen:
    kind: classification
    text: sentence
    target: mood
    labels: [bad, good]
    files: {test: seen.csv}
stages:
  - name: first
    tasks: [mood, same, near]
    schedule: {kind: sequential, order: [same, mood, near]}
    batch_size: {mood: 8, same: 16, near: 4}
    subsample: {same: 0.5}
    balancing: {kind: weighted, weights: {near: 4}}
    optimizer: {kind: adam, lr: 1e-5}
    select_by: near.pearson
  - name: second
    tasks: [mood]
    early_stopping: {patience: 2}
"""
LINES = SOUND.splitlines()


def write(folder: Path, text: str, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(load: Callable[[], object]) -> list[str]:
    with pytest.raises(RecipeError) as raised:
        load()
    assert raised.value.exit_code == 2
    lines = str(raised.value).splitlines()
    assert len(lines) == len(raised.value.problems), "a problem is one line"
    return lines


def line_of(start: str) -> int:
    return 1 + next(number for number, line in enumerate(LINES) if line.strip().startswith(start))


BROKEN = yaml.safe_load(Path(__file__).with_name("broken_recipes.yaml").read_text("utf-8"))


def test_sound_recipe_loads(tmp_path: Path) -> None:
    loaded = load_recipe(write(tmp_path, SOUND))
    assert loaded.recipe.tasks["same"].label_names == ["no", "yes"]
    assert loaded.recipe.tasks["seen"].text == ["sentence"]
    assert loaded.recipe.tasks["mood"].metric == "accuracy"
    assert loaded.recipe.tasks["near"].metric == "pearson"
    assert loaded.recipe.tasks["near"].range == (0.0, 5.0)
    assert loaded.recipe.stages[0].optimizer.model_dump()["lr"] == 1e-5
    assert loaded.recipe.data_dir == str(tmp_path)


@pytest.mark.parametrize("case", BROKEN)
def test_broken_recipe(case: str, tmp_path: Path) -> None:
    old, new, expected = (BROKEN[case][key] for key in ("replace", "by", "says"))
    assert SOUND.count(old) == 1, f"{old!r} stands {SOUND.count(old)} times"
    path = write(tmp_path, SOUND.replace(old, new))
    lines = problems_of(lambda: load_recipe(path))
    messages = "\n".join(lines)
    assert all(line.startswith(str(path)) for line in lines), messages
    assert all(part in messages for part in expected), messages
    assert len(lines) <= len(expected), messages
    assert not any(word in messages for word in ("Input should", "valid string", "Extra inputs", "Field required"))


def test_mistakes_are_told_all_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = (
        SOUND.replace("encoder:", "encodr:")
        .replace("loss: bce", "loss: bec")
        .replace("range: [0, 5]", "range: [5, 0]")
        .replace("mood: 8", "mood: 0")
        .replace("near.pearson", "near.accuracy")
    )
    lines = problems_of(lambda: load_recipe(write(tmp_path, text)))
    keys = ["encodr", "tasks.same.loss", "tasks.near.range", "stages.0.batch_size.mood", "stages.0.select_by"]
    assert [line.split(": ")[1] for line in lines] == keys
    starts = ["encoder", "loss: bce", "range", "batch_size", "select_by"]
    assert [int(line.split(":")[1]) for line in lines] == [line_of(start) for start in starts]


def test_a_fault_does_not_cause_others(tmp_path: Path) -> None:
    """Nothing is said of what rests on a key that is itself wrong."""
    text = SOUND.replace("head: cosine", "head: cosin").replace("labels: [no, yes]", "lables: [no, yes]")
    lines = problems_of(lambda: load_recipe(write(tmp_path, text)))
    assert [line.split(": ")[1] for line in lines] == ["tasks.same.lables", "tasks.near.head"]


def test_no_task_has_a_train_file(tmp_path: Path) -> None:
    text = "manyhead: 1\nname: a\ntasks:\n  t: {kind: regression, text: a, target: b, files: {test: f}}\n"
    lines = problems_of(lambda: load_recipe(write(tmp_path, text)))
    assert len(lines) == 1
    assert "recipe.yaml:4: tasks.t.files.train: no task has a train file" in lines[0]


def test_early_stopping_needs_a_dev_split(tmp_path: Path) -> None:
    text = "manyhead: 1\nname: a\ntasks:\n  t: {kind: regression, text: a, target: b, files: {train: f}}\n"
    stages = "stages: [{early_stopping: {patience: 1}}]\n"
    assert load_recipe(write(tmp_path, text)).recipe.stages[0].name == "multitask"
    lines = problems_of(lambda: load_recipe(write(tmp_path, text + stages)))
    assert "5: stages.0.early_stopping: no task has a dev split; add files.dev to a task" in lines[0]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "is empty; expected a mapping that begins with manyhead: 1"),
        (b"# nothing\n", "is empty"),
        (b"- a\n- b\n", "holds a list; expected a mapping"),
        (b"just text\n", "holds no mapping"),
        (b"name: \xff\xfe", "recipe.yaml:1: is not in UTF-8"),
        (b"a: 1\nname: caf\xe9", "recipe.yaml:2: is not in UTF-8"),
        (b"PK\x03\x04\0\0", "is a binary file"),
        (b"a: \x01", "holds a control character"),
        (b"a: 1\n---\nb: 2\n", "recipe.yaml:2: holds several documents"),
        (b"[" * 300_000, "is nested more than 50 deep"),
        (b"{a: " * 300, "is nested more than 50 deep"),
        (b"#" * (2 << 20), "is too large for a recipe; expected at most 1 MiB"),
        (b"a: &a [1,1,1,1,1,1,1,1,1]\n" + b"".join(
            b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(8)
        ), "aliases make this recipe too large"),
        (b"x: " + b"9" * 10_000, "cannot be read as int"),
        (b"x: *nothing\n", "found undefined alias"),
    ],
)  # fmt: skip
def test_hostile_file(content: bytes, part: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    lines = problems_of(lambda: load_recipe(path))
    assert len(lines) == 1
    assert part in lines[0]
    assert len(lines[0]) < 400


@given(content=st.binary(max_size=60))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_end_in_a_recipe_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    problems_of(lambda: load_recipe(path))


TEMPLATE = load_recipe("template").recipe


def places(value: object, place: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(below for key, item in items for below in places(item, (*place, key)))]


def replaced(value: object, place: tuple[object, ...], new: object) -> object:
    if not place:
        return new
    key, *rest = place
    if isinstance(value, dict):
        return {**value, key: replaced(value.get(key), tuple(rest), new)}
    if isinstance(value, list):
        return [replaced(item, tuple(rest), new) if number == key else item for number, item in enumerate(value)]
    return value


def loaded_or_refused(values: dict[str, Any]) -> tuple[Recipe | None, tuple[Problem, ...]]:
    try:
        return load_recipe(values).recipe, ()
    except RecipeError as error:
        return None, error.problems


def written(recipe: Recipe) -> dict[str, Any]:
    value = parse_document(recipe_yaml(recipe)).value
    assert isinstance(value, dict)
    return value


WHOLE = yaml.safe_load(recipe_yaml(load_recipe("template").recipe))
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2), st.floats(), st.text(max_size=5), st.just([]), st.just({}),
    st.lists(st.integers(0, 3) | st.text(max_size=3), max_size=2),
    st.dictionaries(st.sampled_from(["kind", "0", "a.b", 0, 1.5, True]), st.integers(), max_size=2),
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(places(WHOLE)[1:]), JUNK), min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_any_values_load_and_round_trip_or_end_in_a_recipe_error(
    changes: list[tuple[tuple[object, ...], object]],
) -> None:
    values: object = WHOLE
    for place, new in changes:
        values = replaced(values, place, new)
    assert isinstance(values, dict)
    recipe, problems = loaded_or_refused(values)
    assert len("\n".join(map(str, problems)).splitlines()) == len(problems)
    assert (recipe is None) == bool(problems)
    assert recipe is None or load_recipe(written(recipe)).recipe == recipe


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "yes",
        "no",
        "on",
        "1e-5",
        "0o7",
        "012",
        "1:30",
        "2020-01-01",
        "null",
        "~",
        "",
        " ",
        "- a",
        "a: b",
        "#",
        "<<",
        "=",
        "\n",
    ]
)
CELL = TEXT | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()


@given(
    TEXT,
    TEXT,
    TEXT,
    st.lists(CELL, min_size=2, max_size=4, unique_by=str),
    st.floats(min_value=1e-320, exclude_max=True, max_value=0.99),
)
@settings(max_examples=150, deadline=None)
def test_whatever_stands_in_a_recipe_round_trips(
    column: str, target: str, file: str, cells: list[object], rate: float
) -> None:
    task = {
        "kind": "classification",
        "text": [column + "1"],
        "target": target + "2",
        "files": {"train": file, "dev": file},
        "labels": {cell: f"label {number}" for number, cell in enumerate(cells)},
        "label_smoothing": rate,
    }
    if len(task["labels"]) < 2:
        task["labels"] = ["a", "b"]
    recipe = load_recipe({"manyhead": 1, "name": "a", "tasks": {"t": task}}).recipe
    text = recipe_yaml(recipe)
    assert load_recipe(written(recipe)).recipe == recipe
    assert load_recipe(yaml.safe_load(text)).recipe == recipe, "a reader of YAML 1.1 sees something else"


def test_resolved_recipe_has_every_key_in_the_order_of_the_schema(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SOUND)).recipe
    values = yaml.safe_load(recipe_yaml(recipe))
    assert list(values) == list(Recipe.model_fields)
    unwritten = {name for name, field in Task.model_fields.items() if field.exclude_if is not None}
    assert unwritten == {"head_from"}
    assert list(values["tasks"]["mood"]) == [name for name in Task.model_fields if name not in unwritten]
    assert list(values["stages"][0]) == list(Stage.model_fields)
    again = load_recipe(write(tmp_path / "..", recipe_yaml(recipe), "again.yaml")).recipe
    assert again == recipe


def test_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, SOUND.replace("name: sound", "name: mine"), "quickstart")
    assert load_recipe("quickstart").recipe.name == "quickstart", "a shipped name wins over a bare file"
    assert load_recipe("./quickstart").recipe.name == "mine"
    assert load_recipe(Path("quickstart")).recipe.name == "mine"
    write(tmp_path, SOUND.replace("name: sound", "name: other"), "quickstart.yaml")
    assert load_recipe("quickstart.yaml").recipe.name == "other"
    write(tmp_path, SOUND.replace("name: sound", "name: bare"), "bare")
    assert load_recipe("bare").recipe.name == "bare"
    assert load_recipe("bare").path == Path("bare")
    mapping = load_recipe(yaml.safe_load(SOUND.replace("1e-5", "1.0e-5").replace("[no, yes]", "['no', 'yes']")))
    assert mapping.path is None
    assert mapping.recipe.data_dir == str(tmp_path)
    lines = problems_of(lambda: load_recipe("quickstrat"))
    assert "'quickstrat' is neither a file nor a shipped recipe; expected a path or one of" in lines[0]
    assert lines[0].endswith("did you mean 'quickstart'?")
    assert "is a folder; expected a recipe file" in problems_of(lambda: load_recipe(tmp_path))[0]
    write(tmp_path, SOUND)
    assert problems_of(lambda: load_recipe(tmp_path))[0].endswith("give the recipe.yaml in it")
    for missing in ("no/such.yaml", "none.yaml", "a\0b", "x" * 300):
        assert "is neither a file nor a shipped recipe" in problems_of(lambda name=missing: load_recipe(name))[0]


def test_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder counts from the file that wrote it; what was given on the command line, from the current folder."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    path = write(there, SOUND.replace("name: sound", "name: sound\ndata_dir: ../data"))
    bare = write(there, SOUND, "bare.yaml")
    extending = write(here, f"manyhead: 1\nname: e\nextends: {path}\n", "e.yaml")
    setting = write(here, f"manyhead: 1\nname: e\nextends: {path}\nset: {{data_dir: mine}}\n", "s.yaml")
    shipped = write(there, "manyhead: 1\nname: e\nextends: cs224n\n", "c.yaml")
    assert load_recipe(path).recipe.data_dir == str(tmp_path / "data")
    assert load_recipe(bare).recipe.data_dir == str(there)
    assert load_recipe(extending).recipe.data_dir == str(tmp_path / "data")
    assert load_recipe(setting).recipe.data_dir == str(here / "mine")
    assert load_recipe(shipped).recipe.data_dir == str(there)
    assert load_recipe(path, data_dir="d").recipe.data_dir == str(here / "d")
    assert load_recipe(path, overrides=["data_dir=d"]).recipe.data_dir == str(here / "d")
    assert load_recipe("cs224n").recipe.data_dir == str(here)
    assert Path(load_recipe("quickstart").recipe.data_dir, "reviews.train.csv").is_file()


def test_seed(tmp_path: Path) -> None:
    path = write(tmp_path, SOUND)
    assert load_recipe(path, seed=7).recipe.seed == 7
    assert load_recipe(path, seed=7).place("seed") == ("--seed", None)
    assert problems_of(lambda: load_recipe(path, seed=-1))[0].startswith("--seed: seed: cannot be -1")


def test_places(tmp_path: Path) -> None:
    path = write(tmp_path, SOUND)
    loaded = load_recipe(path, overrides=["stages.1.epochs=2"])
    assert loaded.place("tasks.near.files.train") == (path, line_of("files: {train: near.csv"))
    assert loaded.place("tasks.near.files.test") == (path, line_of("files: {train: near.csv"))
    assert loaded.place("tasks.mood.labels.2") == (path, line_of("labels: {0"))
    assert loaded.place("stages.1") == (path, line_of("- name: second"))
    assert loaded.place("stages.1.epochs") == ("--set stages.1.epochs", None)
    assert loaded.place("threads") == (path, 1)


def test_yaml_comforts(tmp_path: Path) -> None:
    """Anchors, aliases, merge keys, a byte order mark, CRLF."""
    text = (
        SOUND.replace("  near:", "  near: &near")
        .replace("  seen:", "  nigh:\n    <<: *near\n    target: other\n  seen:")
        .replace("tasks: [mood, same, near]", "tasks: &some [mood, same, near]")
    )
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    recipe = load_recipe(path).recipe
    assert recipe.tasks["nigh"] == recipe.tasks["near"].model_copy(update={"target": "other"})
    assert load_recipe(path).place("tasks.nigh.range")[1] == line_of("range")


def test_plugins_add_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugin_with_a_loss.py").write_text(
        "from typing import Literal\n"
        "from pydantic import model_validator\n"
        "from manyhead.recipe.schema import Entry, Options\n"
        "class Huber(Options):\n"
        "    kind: Literal['huber'] = 'huber'\n"
        "    knots: tuple[float, ...] = (1.0,)\n"
        "    @model_validator(mode='after')\n"
        "    def _sorted(self):\n"
        "        if list(self.knots) != sorted(self.knots): raise ValueError('knots must rise')\n"
        "        return self\n"
        "MEMBERS = {'objectives': {'huber': Entry(Huber, 'plugin_with_a_loss:build')}}\n"
    )
    for name, text in {"broken": "1/0", "empty": "", "wrong": "MEMBERS = {'heads': 5}"}.items():
        (tmp_path / f"plugin_{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = SOUND.replace("name: sound", "name: sound\nplugins: [plugin_with_a_loss]").replace(
        "head: cosine", "head: linear"
    )
    loaded = load_recipe(write(tmp_path, text.replace("loss: cosine_mse", "loss: {kind: huber, knots: [1, 2]}")))
    assert loaded.recipe.tasks["near"].loss.model_dump()["knots"] == (1.0, 2.0)
    assert "huber" in loaded.tables["objectives"]
    lines = problems_of(
        lambda: load_recipe(write(tmp_path, text.replace("loss: cosine_mse", "loss: {kind: huber, knots: [2, 1]}")))
    )
    assert [line.partition(": ")[2] for line in lines] == ["tasks.near.loss: knots must rise"]
    for name in ("broken", "empty", "wrong"):
        text = SOUND.replace("name: sound", f"name: sound\nplugins: [plugin_{name}]").replace("loss: bce", "loss: bec")
        lines = problems_of(lambda text=text: load_recipe(write(tmp_path, text)))
        assert f"recipe.yaml:3: plugins: cannot use plugin 'plugin_{name}'" in lines[0]
        assert "unknown kind 'bec'" in lines[1]


def test_metrics_of_recipes_are_those_that_are_computed() -> None:
    facts = {name: (each.kind, each.n_classes, each.higher_is_better, each.bounded) for name, each in METRICS.items()}
    assert facts == {
        name: (*each.kinds, each.n_classes, each.higher_is_better, each.bounded) for name, each in COMPUTED.items()
    }


def test_checking_is_quick_and_loads_nothing_heavy() -> None:
    program = (
        "import json, sys, time; start = time.perf_counter()\n"
        "from manyhead.recipe.load import load_recipe\n"
        "load_recipe('template')\n"
        "heavy = sorted({'torch', 'transformers', 'numpy', 'datasets'} & set(sys.modules))\n"
        "print(json.dumps([heavy, time.perf_counter() - start]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy, seconds = json.loads(done.stdout)
    assert heavy == []
    assert seconds < 2
