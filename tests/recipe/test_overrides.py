from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyhead.errors import RecipeError
from manyhead.recipe.keys import join_key, split_assignment, split_key
from manyhead.recipe.load import LoadedRecipe, load_recipe
from manyhead.recipe.yaml_text import dump_document, parse_value

BASE = """\
manyhead: 1
name: base
tasks:
  mood:
    kind: classification
    text: [sentence]
    target: mood
    labels: {0: bad, 1: fair, "0.5": half}
    files: {train: mood.csv, dev: mood-dev.csv}
    head: hidden
  near:
    kind: regression
    text: [first, second]
    target: score
    files: {train: near.csv}
stages:
  - epochs: 4
    optimizer: {kind: adamw, lr: 1e-5}
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    return path


def refused(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as raised:
        load_recipe(path, overrides=overrides)
    return str(raised.value).splitlines()


def value_at(loaded: LoadedRecipe, key: str) -> object:
    value: object = loaded.recipe.model_dump(by_alias=True)
    for segment in split_key(key):
        if isinstance(value, dict):
            value = {str(own): item for own, item in value.items()}[segment]
        elif isinstance(value, list):
            value = value[int(segment)]
    return value


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=1, max_size=4).map(tuple))
def test_dotted_keys_round_trip(keys: tuple[str, ...]) -> None:
    assert split_key(join_key(keys)) == keys
    assert split_assignment(f"{join_key(keys)}=a=b") == (keys, "a=b")
    assert "\n" not in join_key(keys)


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "=1", "a b.=1", '"a', "'a", "a.'b", '"a"b', "\n"])
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(ValueError, match="dotted key"):
        split_assignment(text)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("stages.0.epochs=2", 2),
        ("stages.0.clip_norm=2", 2.0),
        ("stages.0.clip_norm=null", None),
        ("stages.0.optimizer.lr=3e-4", 3e-4),
        ("stages.0.optimizer.kind=adam", "adam"),
        ("stages.0.rate.warmup=.1", 0.1),
        ("stages.0.balancing={kind: weighted, weights: {near: 4}}", {"kind": "weighted", "weights": {"near": 4.0}}),
        ("stages.0.early_stopping.patience=5", 5),
        ("stages.0.subsample.near=.5", 0.5),
        ("stages.0.batch_size={mood: 4, near: 2}", {"mood": 4, "near": 2}),
        ("encoder.pooling=mean", {"kind": "mean"}),
        ("encoder.max_tokens=64", 64),
        ("tasks.mood.head.dropout=.5", 0.5),
        ("tasks.mood.head.kind=linear", "linear"),
        ("tasks.near.loss.kind=mse", "mse"),
        ("tasks.mood.target=yes", "yes"),
        ("tasks.mood.text.0=body", "body"),
        ("tasks.mood.labels.0=awful", "awful"),
        ("tasks.mood.labels.2=good", "good"),
        ('tasks.mood.labels."0.5"=so-so', "so-so"),
        ("tasks.mood.files.dev={from: train, fraction: .2}", {"from": "train", "fraction": 0.2, "seed": None}),
        ("tasks.near.range=[0, 5]", (0.0, 5.0)),
        ("data_dir='a=b'", None),
        ("name=other", "other"),
        ("stages.1={name: second}", None),
        ("tasks.far={kind: regression, text: [a, b], target: c, files: {train: f}}", None),
        (' stages.0.epochs = 3', 3),
    ],
)  # fmt: skip
def test_one_key_is_set(override: str, value: object, base: Path) -> None:
    keys, text = split_assignment(override)
    loaded = load_recipe(base, overrides=[override])
    if value is not None or text == "null":
        assert value_at(loaded, join_key(keys)) == value
    assert loaded.place(join_key(keys)) == (f"--set {join_key(keys)}", None)
    assert text is not None
    assert load_recipe(base, overrides={join_key(keys): parse_value(text)}).recipe == loaded.recipe


def test_only_the_set_key_changes(base: Path) -> None:
    before = load_recipe(base).recipe
    after = load_recipe(base, overrides=["tasks.mood.head.dropout=.5"]).recipe
    assert after.tasks["mood"].head == before.tasks["mood"].head.model_copy(update={"dropout": 0.5})
    restored = {name: before.tasks[name] for name in before.tasks}
    assert after.model_copy(update={"tasks": restored}) == before


def test_new_number_keys_are_numbers(base: Path) -> None:
    recipe = load_recipe(base, overrides=["tasks.mood.labels.2=good", "tasks.mood.class_weights.2=3"]).recipe
    assert recipe.tasks["mood"].label_cells == [0, 1, "0.5", 2]
    assert recipe.tasks["mood"].class_weights == {2: 3.0}


def test_later_ones_win_and_stages_can_be_added(base: Path) -> None:
    overrides = ["stages.1={name: polish}", "stages.1.epochs=2", "stages.1.epochs=7", "stages.2={name: last}"]
    assert [stage.epochs for stage in load_recipe(base, overrides=overrides).recipe.stages] == [4, 7, 3]


def test_stages_that_were_left_out_can_be_set(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(BASE[: BASE.index("stages:")])
    assert load_recipe(path, overrides=["stages.0.epochs=9"]).recipe.stages[0].epochs == 9


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("stages.0.epoch=2", "--set stages.0.epoch: stages.0.epoch: unknown key 'epoch'; did you mean 'epochs'?"),
        ("encdoer.dropout=.1", "unknown key 'encdoer'; did you mean 'encoder'?"),
        ("stages.0.optimizer.lrr=1", "stages.0.optimizer.lrr: unknown key; did you mean 'lr'?"),
        ("tasks.moood.target=a", "tasks has no 'moood'; expected one of mood, near; did you mean 'mood'?"),
        ("tasks.zzz.target=a", "tasks has no 'zzz'; expected one of mood, near; set it whole to add it"),
        ("stages.3.epochs=1", "stages has no item '3'; expected a number from 0 to 0"),
        ("stages.first.epochs=1", "stages has no item 'first'; expected a number from 0 to 0"),
        ("stages.1.epochs=1", "stages has no item '1'; expected a number from 0 to 0"),
        ("stages.-1.epochs=1", "stages has no item '-1'"),
        ("name.x=1", "nothing stands below name, which is 'base'; set name whole: text"),
        (
            "stages.0.batch_size.mood=8",
            "below stages.0.batch_size, which is 32; set stages.0.batch_size whole:",
        ),
        ("stages.0.epochs=many", "--set stages.0.epochs: stages.0.epochs: cannot be 'many'; expected a whole number"),
        ("tasks.mood.head={kind: linear, drop: 1}", "--set tasks.mood.head: tasks.mood.head.drop: unknown key"),
        ("tasks.mood.kind=regression", "base.yaml:8: tasks.mood.labels: a regression has no classes"),
        ("tasks.mood.head.kind=cosine", "--set tasks.mood.head.kind: tasks.mood.head.kind: the cosine head needs"),
        ("manyhead=2", "--set manyhead: manyhead: cannot be 2; expected 1"),
        ("extends=quickstart", "unknown key 'extends'"),
        ("stages.0.epochs", "--set: 'stages.0.epochs' sets nothing; expected KEY=VALUE, such as stages.0.epochs=1"),
        ("..=1", "--set: '..=1' is no dotted key; expected KEY=VALUE"),
        ("name=@home", "--set name: is not YAML: found character that cannot start any token; put the value"),
        ("name=!!python/name:os.system x", "the tag !!python/name:os.system is not allowed"),
        ("name=\udcff", "holds half of a character pair"),
        ("stages=" + "[" * 5000, "is nested more than 50 deep"),
    ],
)
def test_what_cannot_be_set(override: str, line: str, base: Path) -> None:
    lines = refused(base, override)
    assert line in lines[0]
    assert len(lines) <= 2


def test_all_that_is_wrong_with_overrides_is_told_with_the_rest(base: Path) -> None:
    base.write_text(BASE.replace("epochs: 4", "epochs: 0"))
    lines = refused(base, "stages.0.epoch=2", "seed=-1", "nothing")
    assert [line.split(": ")[0] for line in lines] == [
        "--set stages.0.epoch", "--set", "--set seed", f"{base}:17",
    ]  # fmt: skip


def extending(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_extending_is_setting(base: Path) -> None:
    changes = {
        "stages.0.epochs": 2,
        "encoder.pooling": {"kind": "mean"},
        'tasks.mood.labels."0.5"': "so-so",
        "stages.1": {"name": "polish", "tasks": ["mood"]},
        "stages.0.clip_norm": None,
    }
    path = extending(
        base.parent, dump_document({"manyhead": 1, "name": "mine", "extends": "base.yaml", "set": changes})
    )
    by_hand = load_recipe(base, overrides={**changes, "name": "mine"})
    assert load_recipe(path).recipe == by_hand.recipe
    assert load_recipe(path).recipe.stages[1].tasks == ["mood"]


def test_chains_and_where_keys_were_written(base: Path) -> None:
    middle = extending(
        base.parent / "sub", "manyhead: 1\nname: middle\nextends: ../base.yaml\nset:\n  stages.0.epochs: 2\n"
    )
    last = extending(
        base.parent,
        "manyhead: 1\nname: last\nextends: sub/mine.yaml\nset:\n  stages.0.optimizer:\n    kind: adam\n    lr: 2e-5\n",
    )
    loaded = load_recipe(last)
    assert loaded.recipe.name == "last"
    assert loaded.recipe.stages[0].epochs == 2
    assert loaded.recipe.stages[0].optimizer.kind == "adam"
    assert loaded.place("name") == (last, 2)
    assert loaded.place("stages.0.optimizer.lr") == (last, 7)
    assert loaded.place("stages.0.optimizer.eps") == (last, 5)
    path, line = loaded.place("stages.0.epochs")
    assert (Path(str(path)).resolve(), line) == (middle.resolve(), 5)
    path, line = loaded.place("tasks.mood.target")
    assert (Path(str(path)).resolve(), line) == (base.resolve(), 7)


def test_shipped_recipes_can_be_extended(tmp_path: Path) -> None:
    path = extending(tmp_path, "manyhead: 1\nname: mine\nextends: cs224n\nset: {stages.0.epochs: 1}\n")
    recipe = load_recipe(path).recipe
    shipped = load_recipe("cs224n").recipe
    assert recipe.tasks == shipped.tasks
    assert recipe.stages[0] == shipped.stages[0].model_copy(update={"epochs": 1})


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("set: {stages.0.epoch: 1}", ["mine.yaml:4: stages.0.epoch: unknown key 'epoch'; did you mean 'epochs'?"]),
        ("set:\n  stages.0.epochs: 0", ["mine.yaml:5: stages.0.epochs: cannot be 0"]),
        ("set:\n  tasks.mood.head:\n    kind: linear\n    drop: 1", ["mine.yaml:7: tasks.mood.head.drop: unknown key"]),
        ("set: {a..b: 1}", ["mine.yaml:4: 'a..b' is no dotted key"]),
        ("set: [1]", ["mine.yaml:4: set: is no mapping; expected a mapping of dotted keys"]),
        ("seed: 5", ["mine.yaml:4: seed: cannot stand beside extends; expected one of manyhead, name, extends, set; "
                     "write it under set: {seed: ...}"]),
        ("encoder: {}\nstages: []", ["mine.yaml:4: encoder: cannot stand", "mine.yaml:5: stages: cannot stand"]),
        ("set: {tasks.mood.labels: null}", ["mine.yaml:4: tasks.mood.labels: is missing"]),
        ("set: {tasks.near.head: cosine}", ["mine.yaml:4: tasks.near.head: the cosine head does not fit",
                                            "mine.yaml:4: tasks.near.head: the cosine head needs a siamese pair"]),
    ],
)  # fmt: skip
def test_broken_extending(text: str, lines: list[str], base: Path) -> None:
    found = refused(extending(base.parent, f"manyhead: 1\nname: mine\nextends: base.yaml\n{text}\n"))
    assert len(found) == len(lines)
    assert all(any(part in line for line in found) for part in lines), found


def test_a_mistake_in_the_base_names_the_base(base: Path) -> None:
    base.write_text(BASE.replace("kind: adamw", "kind: adamm").replace("name: base", "name: base\nname: again"))
    found = refused(extending(base.parent, "manyhead: 1\nname: mine\nextends: base.yaml\nset: {seed: -1}\n"))
    assert [line.split(": ")[0].rpartition("/")[2] for line in found] == ["base.yaml:3", "base.yaml:19", "mine.yaml:4"]


def test_bases_that_cannot_be_read(base: Path) -> None:
    def found(name: str) -> str:
        return refused(extending(base.parent, f"manyhead: 1\nname: mine\nextends: {name}\n"))[0]

    assert "mine.yaml:3: extends: 'bass.yaml' is neither a file nor a shipped recipe" in found("bass.yaml")
    assert found("quickstar").endswith("did you mean 'quickstart'?")
    assert "mine.yaml:3: extends: is no name" in found("[a]")
    base.write_text("manyhead: 2\nname: base\n")
    assert "base.yaml:1: manyhead: the recipe has format 2, and this package reads format 1;" in found("base.yaml")


def test_circles_are_refused(tmp_path: Path) -> None:
    for name, base in (("a", "b"), ("b", "c"), ("c", "b")):
        extending(tmp_path, f"manyhead: 1\nname: x\nextends: {base}.yaml\n", f"{name}.yaml")
    assert refused(tmp_path / "a.yaml") == [
        f"{tmp_path}/c.yaml:3: extends: recipes extend each other: b.yaml > c.yaml > b.yaml"
    ]
    extending(tmp_path, "manyhead: 1\nname: x\nextends: self.yaml\n", "self.yaml")
    assert "self.yaml > self.yaml" in refused(tmp_path / "self.yaml")[0]


def test_a_star_stands_for_everything_that_is_there(base: Path) -> None:
    loaded = load_recipe(base, overrides=["tasks.*.head.dropout=0.5", "stages.*.epochs=2"])
    heads = [task.head.model_dump() for task in loaded.recipe.tasks.values()]
    assert [(head["kind"], head["dropout"]) for head in heads] == [("hidden", 0.5), ("linear", 0.5)]
    assert [stage.epochs for stage in loaded.recipe.stages] == [2]
    for task in ("mood", "near"):
        assert loaded.place(f"tasks.{task}.head.dropout") == ("--set tasks.*.head.dropout", None)
    path = extending(base.parent, "manyhead: 1\nname: mine\nextends: base.yaml\nset:\n  tasks.*.limit: {train: 5}\n")
    assert [task.limit for task in load_recipe(path).recipe.tasks.values()] == [{"train": 5}] * 2


def test_a_star_that_cannot_be_set_everywhere_sets_nothing(base: Path) -> None:
    (line,) = refused(base, "tasks.*.head.width=8")
    assert "tasks.near.head.width: unknown key; expected one of kind, dropout, features" in line
    (line,) = refused(base, "tasks.*.hed.dropout=.5")
    assert "unknown key 'hed'; did you mean 'head'" in line
    assert "stages.0.optimizer.betas" not in refused(base, "stages.*.optimizer.*.x=1")[0]


def test_a_key_that_is_a_star_is_itself(base: Path) -> None:
    loaded = load_recipe(base, overrides=['tasks.mood.labels={"*": star, 0: bad}', "tasks.mood.labels.*=sun"])
    assert loaded.recipe.tasks["mood"].labels == {"*": "sun", 0: "bad"}
