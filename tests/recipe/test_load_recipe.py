import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manyhead.errors import RecipeError
from manyhead.evaluation.metrics import METRICS as COMPUTED
from manyhead.recipe.load import load_recipe, recipe_yaml
from manyhead.recipe.schema import METRICS

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


# What is replaced in the sound recipe, by what, and what each line of the message says, in order of the file.
BROKEN: dict[str, tuple[str, str, list[str]]] = {
    "unknown top key": ("encoder:", "encodr:", ["3: encodr: unknown key; did you mean 'encoder'?"]),
    "unknown task key": ("    target: score", "    tarqet: score", ["target: is missing; expected text; add it:", "tarqet: unknown key"]),
    "unknown key without a near one": ("name: sound", "name: sound\nzzz: 1", ["3: zzz: unknown key; expected one of manyhead, name"]),
    "python-side name of a key": ("dev: mood-dev.csv", "dev: {from_: train, fraction: .1}", ["files.dev.from: is missing; expected train", "from_: unknown key; did you mean 'from'"]),
    "missing key": ("    kind: regression\n", "", ["19: tasks.near.kind: is missing; expected one of classification, regression"]),
    "missing name": ("name: sound\n", "", ["recipe.yaml:1: name: is missing; expected text of letters"]),
    "name with a slash": ("name: sound", "name: a/b", ["2: name: cannot be 'a/b'; expected text of letters"]),
    "number for text": ("target: score", "target: 3", ['target: cannot be 3; expected text; write "3", in quotes']),
    "text for a number": ("dropout: 0.1", "dropout: '0.1'", ["3: encoder.dropout: cannot be '0.1'; expected a number >= 0 and < 1; remove the quotes"]),
    "out of bounds": ("dropout: 0.1", "dropout: 1.5", ["encoder.dropout: cannot be 1.5; expected a number >= 0 and < 1"]),
    "infinity": ("lr: 1e-5", "lr: .inf", ["optimizer.lr: cannot be inf; expected a number > 0"]),
    "float for a count": ("patience: 2", "patience: 2.0", ["patience: cannot be 2.0; expected a whole number >= 1; write 2"]),
    "bool for a count": ("patience: 2", "patience: true", ["patience: cannot be true; expected a whole number >= 1"]),
    "yes for a switch": ("{dropout: 0.1}", "{segment_ids: yes}", ["segment_ids: cannot be 'yes'; expected true or false; write true"]),
    "null for a default": ("pairing: siamese", "pairing: null", ["pairing: cannot be null; expected one of concat, siamese; leave the key out"]),
    "misspelt choice": ("pairing: siamese", "pairing: siamse", ["pairing: cannot be 'siamse'; expected one of concat, siamese; did you mean 'siamese'?"]),
    "misspelt kind of task": ("kind: regression", "kind: regresion", ["tasks.near.kind: cannot be 'regresion'", "did you mean 'regression'?"]),
    "list where a mapping belongs": ("{dropout: 0.1}", "[1]", ["3: encoder: cannot be [1]; expected a mapping"]),
    "text where stages belong": (SOUND[SOUND.index("stages:") :], "stages: many\n", ["stages: cannot be 'many'; expected a list [mapping, ...] of 1 or more"]),
    "no stages": (SOUND[SOUND.index("stages:") :], "stages: []\n", ["stages: cannot be []; expected a list [mapping, ...] of 1 or more"]),
    "no tasks": (SOUND[SOUND.index("tasks:") :], "tasks: {}\n", ["tasks: cannot be {}; expected a mapping {text: mapping} of 1 or more"]),
    "task that is no mapping": (SOUND[SOUND.index("  seen:") : SOUND.index("stages:")], "  seen: 5\n", ["tasks.seen: cannot be 5; expected a mapping"]),
    "task name": ("  near:", "  'near it':", ["'near it' cannot be a name here; expected text of letters", *["near"] * 4]),
    "task name is a number": ("  seen:", "  5:", ["tasks.5: '5' cannot be a name here"]),
    "three texts": ("text: [sentence]", "text: [a, b, c]", ["text: cannot be ['a', 'b', 'c']; expected a list [text, ...] of 1 to 2"]),
    "one text twice": ("text: [first, second]\n    target: same", "text: [first, first]\n    target: same", ["tasks.same.text: the column 'first' is there twice"]),
    "target among the texts": ("target: score", "target: first", ["tasks.near.target: the column 'first' is a text too"]),
    "label that is no text": ("0: bad,", "0: 5,", ['tasks.mood.labels.0: cannot be 5; expected text; write "5", in quotes']),
    "labels that are text": ("labels: [no, yes]", "labels: yes", ["labels: cannot be 'yes'; expected a mapping {cell value: text} or a list [cell value, ...]"]),
    "one label": ("labels: [bad, good]", "labels: [bad]", ["tasks.seen.labels: there are 1 labels; expected two or more"]),
    "labels alike": ("1: fair", "1: bad", ["9: tasks.mood.labels.1: 'bad' is there twice"]),
    "label over two lines": ("1: fair", '1: "a\\nb"', ["labels.1: the label 'a\\nb' cannot be a name; expected text on one line"]),
    "classification without labels": ("    labels: [bad, good]\n", "", ["tasks.seen.labels: is missing; expected the cell values of the classes and their names; write labels:"]),
    "classification with a range": ("labels: [bad, good]", "labels: [bad, good]\n    range: [0, 1]", ["tasks.seen.range: a classification has no range; remove it, or set kind: regression"]),
    "regression with labels": ("range: [0, 5]", "range: [0, 5]\n    labels: [a, b]", ["near.labels: a regression has no classes; remove it"]),
    "regression with class weights": ("range: [0, 5]", "range: [0, 5]\n    class_weights: balanced", ["near.class_weights: a regression has no classes"]),
    "regression with smoothing": ("range: [0, 5]", "range: [0, 5]\n    label_smoothing: 0.1", ["near.label_smoothing: a regression has no classes"]),
    "weight of no label": ("{0: 2.0}", "{7: 2.0}", ["tasks.mood.class_weights.7: 7 is not among the labels; expected one of 0, 1, 2"]),
    "weight by text where cells are numbers": ("{0: 2.0}", "{'0': 2.0}", ["class_weights.0: '0' is not among the labels", "did you mean '0'?"]),
    "negative weight": ("{0: 2.0}", "{0: -2.0}", ["class_weights.0: the weight is -2.0; expected a number >= 0"]),
    "range upside down": ("range: [0, 5]", "range: [5, 0]", ["near.range: the lowest, 5.0, is not below the highest, 0.0"]),
    "range of one number": ("range: [0, 5]", "range: [5]", ["range.1: is missing; expected a number"]),
    "range below 0 with a cosine": ("range: [0, 5]", "range: [-5, 5]", ["near.range: begins below 0, at -5.0; expected a range whose lowest is at least 0"]),
    "no range with a cosine": ("    range: [0, 5]\n", "", ["near.range: is missing, and cosine_mse needs it; expected a range"]),
    "loss of the other kind": ("loss: bce", "loss: mse", ["tasks.same.loss: 'mse' is no loss of a classification; expected one of cross_entropy, bce"]),
    "bce of three classes": ("labels: [no, yes]", "labels: [no, yes, perhaps]", ["tasks.same.loss: 'bce' is for two classes, and there are 3; write loss: cross_entropy"]),
    "unknown loss": ("loss: bce", "loss: bec", ["tasks.same.loss: unknown kind 'bec'; expected one of bce, cosine_mse, cross_entropy, mse; did you mean 'bce'?"]),
    "unknown kind in a mapping": ("kind: adam,", "kind: adm,", ["stages.0.optimizer.kind: unknown kind 'adm'; expected one of adam, adamw"]),
    "no kind": ("{kind: adam, lr: 1e-5}", "{lr: 1e-5}", ["optimizer: has no kind; expected one of adam, adamw; write the name alone, or {kind: NAME, ...}"]),
    "unknown option of a member": ("dropout: 0.2", "drpout: 0.2", ["head.drpout: unknown key; did you mean 'dropout'?"]),
    "bad option of a member": ("dropout: 0.2", "dropout: 2", ["head.dropout: cannot be 2; expected a number >= 0 and < 1"]),
    "missing option of a member": (", weights: {near: 4}", "", ["stages.0.balancing.weights: is missing; expected a mapping {text: number}"]),
    "cosine head with another loss": ("loss: cosine_mse", "loss: mse", ["near.head: the cosine head does not fit 'mse'; set loss: cosine_mse, or another head"]),
    "cosine loss with another head": ("head: cosine", "head: linear", ["near.loss: cosine_mse needs the cosine head; set head: cosine", "near.loss: cosine_mse needs a siamese pair"][:1]),
    "cosine without a siamese pair": ("pairing: siamese", "pairing: concat", ["near.head: the cosine head needs a siamese pair; name two text columns and set pairing: siamese"]),
    "siamese with one text": ("    text: sentence\n", "    text: sentence\n    pairing: siamese\n", ["tasks.seen.pairing: a siamese task needs two texts; name two columns in text"]),
    "unknown metric": ("loss: bce", "loss: bce\n    metric: acuracy", ["tasks.same.metric: unknown metric 'acuracy'; expected one of accuracy, macro_f1, f1, mcc; did you mean 'accuracy'?"]),
    "metric of the other kind": ("loss: bce", "loss: bce\n    metric: pearson", ["same.metric: 'pearson' is no metric of a classification; expected one of accuracy"]),
    "f1 of three classes": ("class_weights: {0: 2.0}", "metric: f1", ["mood.metric: 'f1' is for 2 classes, and there are 3; write macro_f1"]),
    "no files": ("{test: seen.csv}", "{}", ["tasks.seen.files: names no file; expected a train, dev or test file"]),
    "dev share without training rows": ("{test: seen.csv}", "{dev: {from: train, fraction: .1}}", ["seen.files.dev: there is no train file to cut a dev split from"]),
    "dev share without a fraction": ("dev: near-dev.csv", "dev: {from: train}", ["files.dev.fraction: is missing; expected a number > 0 and < 1"]),
    "dev share from test": ("dev: near-dev.csv", "dev: {from: test, fraction: .1}", ["files.dev.from: cannot be 'test'; expected train"]),
    "limit of no split": ("head: cosine", "head: cosine\n    limit: {tran: 5}", ["limit.tran: 'tran' cannot be a name here; expected one of train, dev, test"]),
    "limit of no rows": ("head: cosine", "head: cosine\n    limit: {train: 0}", ["limit.train: cannot be 0; expected a whole number >= 1"]),
    "stage of an unknown task": ("tasks: [mood]", "tasks: [modd]", ["stages.1.tasks.0: there is no task 'modd'; expected one of mood, same, near, seen; did you mean 'mood'?"]),
    "stage of an untrained task": ("tasks: [mood]", "tasks: [seen]", ["stages.1.tasks.0: 'seen' has no train file; add tasks.seen.files.train"]),
    "stage of a task twice": ("tasks: [mood]", "tasks: [mood, mood]", ["stages.1.tasks.1: 'mood' is there twice"]),
    "stage of no task": ("tasks: [mood]", "tasks: []", ["stages.1.tasks: names no task; expected one or more tasks"]),
    "stages of one name": ("name: second", "name: first", ["stages.1.name: 'first' is there twice"]),
    "batch size of no task": ("near: 4}\n    sub", "near: 4, nera: 4}\n    sub", ["batch_size.nera: there is no task 'nera'"]),
    "batch size of an untrained task": ("near: 4}\n    sub", "near: 4, seen: 4}\n    sub", ["batch_size.seen: this stage does not train 'seen'; remove it, or add the task to tasks"]),
    "batch size left out": (", near: 4}\n    sub", "}\n    sub", ["stages.0.batch_size: leaves out near; expected every task that the stage trains"]),
    "batch of none": ("mood: 8", "mood: 0", ["stages.0.batch_size.mood: cannot be 0; expected a whole number >= 1"]),
    "subsample of no task": ("{same: 0.5}", "{some: 0.5}", ["subsample.some: there is no task 'some'", "did you mean 'same'?"]),
    "subsample of nothing": ("{same: 0.5}", "{same: 0}", ["subsample.same: cannot be 0; expected a number > 0"]),
    "subsample of one": ("{same: 0.5}", "{same: 1.0}", ["subsample.same: cannot be 1; expected a share below 1, or a whole number of rows above 1"]),
    "subsample of half a row": ("{same: 0.5}", "{same: 10.5}", ["subsample.same: cannot be 10.5; expected a share below 1"]),
    "weights of no task": ("weights: {near: 4}", "weights: {nera: 4}", ["stages.0.balancing.weights.nera: there is no task 'nera'"]),
    "balanced of an untrained task": ("tasks: [mood]", "tasks: [mood]\n    balanced: [same]", ["stages.1.balanced.0: this stage does not train 'same'"]),
    "epoch of an untrained task": ("tasks: [mood]", "tasks: [mood]\n    epoch_examples: {same: 5}", ["stages.1.epoch_examples.same: this stage does not train 'same'"]),
    "order leaves a task out": ("order: [same, mood, near]", "order: [same, mood]", ["schedule.order: leaves out near; expected every task"]),
    "order of nothing": ("order: [same, mood, near]", "order: []", ["schedule.order: leaves out mood, same, near"]),
    "order twice": ("order: [same, mood, near]", "order: [same, mood, near, mood]", ["schedule.order.3: 'mood' is there twice"]),
    "score of no task": ("near.pearson", "nera.pearson", ["stages.0.select_by: 'nera.pearson' is no score; expected overall, or TASK.METRIC; did you mean 'near.pearson'?"]),
    "score of the wrong metric": ("near.pearson", "near.accuracy", ["select_by: 'accuracy' is no metric of a regression"]),
    "score without a dev split": ("near.pearson", "same.accuracy", ["select_by: 'same' has no dev split; add tasks.same.files.dev"]),
    "overall of an unbounded metric": ("loss: cosine_mse", "loss: cosine_mse\n    metric: mse", ["stages.1.select_by: 'overall' is no score where a task's metric is mse, which has no bounds; write select_by: near.mse"]),
    "plugin that is not there": ("name: sound", "name: sound\nplugins: [no_such_module_here]", ["3: plugins: cannot use plugin 'no_such_module_here': No module named"]),
    "plugins that are no list": ("name: sound", "name: sound\nplugins: here", ["3: plugins: cannot be 'here'; expected a list [text, ...]"]),
    "key that is a number": ("name: sound", "name: sound\n5: x", ["3: 5: unknown key"]),
    "option key that is a number": ("dropout: 0.2", "5: 0.2", ["head.5: unknown key"]),
    "key written twice": ("name: sound", "name: sound\nname: again", ["3: name: the key name is there already, on line 2; remove one of the two"]),
    "set without extends": ("name: sound", "name: sound\nset: {seed: 1}", ["3: set: set is for recipes that extend another"]),
    "null key": ("name: sound", "name: sound\n~: 1", ["3: a key is null, a list or a mapping; give it a name"]),
    "another format": ("manyhead: 1", "manyhead: 2", ["1: manyhead: the recipe has format 2, and this package reads format 1"]),
    "format as text": ("manyhead: 1", "manyhead: '1'", ["manyhead: the recipe has format '1', and this package reads format 1; write manyhead: 1"]),
    "format as a switch": ("manyhead: 1", "manyhead: true", ["manyhead: the recipe has format True, and this package reads format 1"]),
    "not closed": ("{dropout: 0.1}", "{dropout: 0.1", ["is not YAML: did not find expected ',' or '}'"]),
    "tab": ("  mood:\n", "\tmood:\n", ["5: a tab stands where YAML wants spaces; indent with spaces"]),
    "python tag": ("name: sound", "name: !!python/object/apply:os.getcwd []", ["2: the tag !!python/object/apply:os.getcwd is not allowed; leave the tag out"]),
    "recursive alias": ("{dropout: 0.1}", "&a {dropout: *a}", ["3: an alias names a value that it is itself part of"]),
}  # fmt: skip


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
    old, new, expected = BROKEN[case]
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
        (b"a: 1\n---\nb: 2\n", "recipe.yaml:3: holds several documents"),
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


@given(st.binary(max_size=60))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_end_in_a_recipe_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    problems_of(lambda: load_recipe(path))


TEMPLATE = load_recipe("template").recipe


def leaves(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(leaf for key, item in items for leaf in leaves(item, (*path, key)))]


PLACES = [place for place in leaves(yaml.safe_load(recipe_yaml(TEMPLATE))) if place]
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2), st.floats(), st.text(max_size=5), st.just([]), st.just({}),
    st.lists(st.integers(0, 3), max_size=2), st.dictionaries(st.sampled_from(["kind", "0", "a.b"]), st.integers(), max_size=2),
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(PLACES), JUNK), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_any_values_load_or_end_in_a_recipe_error(changes: list[tuple[tuple[object, ...], object]]) -> None:
    values = yaml.safe_load(recipe_yaml(TEMPLATE))
    for place, junk in changes:
        parent = values
        for key in place[:-1]:
            parent = parent[key] if isinstance(parent, dict | list) and key in dict(leaf_items(parent)) else None
        if isinstance(parent, dict) or (isinstance(parent, list) and int(str(place[-1])) < len(parent)):
            parent[place[-1]] = junk  # type: ignore[index]
    try:
        loaded = load_recipe(values)
    except RecipeError as error:
        assert error.problems
        assert all("\n" not in str(problem) for problem in error.problems)
    else:
        assert load_recipe(yaml_values(recipe_yaml(loaded.recipe))).recipe == loaded.recipe
