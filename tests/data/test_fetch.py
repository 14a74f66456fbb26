"""Data from the hub: references, pinning, the cache, and what goes wrong, against a hub on this machine."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hub_stand_in
from hub_stand_in import HubStandIn, Worker, with_warnings, without_module
from manyhead.data.fetch import HubReference, fetch, is_hub_reference, parse_hub_reference, pin, pin_recipe_references
from manyhead.errors import UsageError, WriteError
from manyhead.hub import HubUnreachableError
from manyhead.recipe.schema import Recipe
from manyhead.recipe.tables import TABLES

LIMIT_SECONDS = 40.0
CSV = {"train.csv": "text,label\ngood,1\nbad,0\n", "test.csv": "text,label\nfine,1\n"}
CONFIGS = """---
configs:
- config_name: one
  data_files: [{split: train, path: one/*}]
- config_name: two
  data_files: [{split: train, path: two/*}, {split: validation, path: two-dev.parquet}]
dataset_info:
- config_name: one
  features: [{name: text, dtype: string}, {name: label, dtype: int64}]
- config_name: two
  features:
  - {name: text, dtype: string}
  - name: label
    dtype: {class_label: {names: {'0': bad, '1': good}}}
---
"""

hub = pytest.fixture(scope="module")(hub_stand_in.running_hub)


@pytest.fixture(scope="module")
def call(hub: HubStandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with hub.worker(tmp_path_factory.mktemp("hub")) as worker:
        yield worker


def message_of(error: type[Exception], function: Callable[..., object], *args: object) -> str:
    with pytest.raises(error) as raised:
        function(*args)
    return str(raised.value)


def parquet(labels: list[int]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": [f"text {label}" for label in labels], "label": labels}), sink)
    return sink.getvalue().to_pybytes()


def rows(path: Path) -> list[dict[str, object]]:
    return pq.read_table(path).to_pylist()


def left_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


# References

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,8}", fullmatch=True)
configs = st.text(st.characters(codec="utf-8", exclude_characters=":@/\\<>|?*", exclude_categories=["C"]), min_size=1)
references = st.builds(
    HubReference,
    repo=st.builds("{}/{}".format, names, names),
    config=st.none() | configs.filter(lambda text: set(text) != {"."}),
    split=st.from_regex(r"[a-z_0-9]{1,8}(\.[a-z]{1,3})?", fullmatch=True),
    revision=st.none() | st.from_regex(r"[A-Za-z0-9_./-]{1,40}", fullmatch=True),
)


@given(references)
def test_a_reference_reads_back_as_written(reference: HubReference) -> None:
    assert parse_hub_reference(str(reference)) == reference
    assert is_hub_reference(str(reference))


@pytest.mark.parametrize(
    ("ref", "problem"),
    [
        ("acme/moods:train", "no reference to data on the hub"),
        ("hub:moods:train", "'moods' is no OWNER/NAME"),
        ("hub:/moods:train", "no OWNER/NAME"),
        ("hub:acme/:train", "no OWNER/NAME"),
        ("hub:../moods:train", "no OWNER/NAME"),
        ("hub:acme/moods/..:train", "'..' is no name of a configuration"),
        ("hub:acme/moods/a/b:train", "'a/b' is no name of a configuration"),
        ("hub:acme/moods/:train", "no name of a configuration"),
        ("hub:acme/moods", "names no split"),
        ("hub:acme/moods:", "names no split"),
        ("hub:acme/moods@main", "no reference"),
        ("hub:acme/moods:train[:10%]", "'limit'"),
        ("hub:acme/moods:train+test", "'train+test' is no name of a split"),
        ("hub:acme/moods:../train", "no name of a split"),
        ("hub:acme/moods:train@", "no revision"),
        ("hub:acme/moods:train@a@b", "no revision"),
        ("hub:acme/moods:train@main\n", "no revision"),
    ],
)
def test_malformed_references_say_what_is_wrong(ref: str, problem: str) -> None:
    message = message_of(UsageError, parse_hub_reference, ref)
    assert problem in message
    assert "hub:OWNER/NAME[/CONFIG]:SPLIT[@REVISION]" in message


@given(st.text() | st.builds("hub:{}".format, st.text(st.sampled_from("a/:@.[-\n"))))
def test_any_text_is_a_reference_or_a_clear_error(ref: str) -> None:
    with contextlib.suppress(UsageError):
        assert str(parse_hub_reference(ref)) == ref


# Fetching


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"train.csv": 'text,label\n"text, 1",1\n'}, [("text, 1", 1)]),
        ({"data/train.jsonl": '{"text": "x", "label": 0}\n{"text": "y", "label": 1}\n'}, [("x", 0), ("y", 1)]),
        (
            {"train-00000-of-00002.parquet": parquet([1, 0]), "train-00001-of-00002.parquet": parquet([1])},
            [("text 1", 1), ("text 0", 0), ("text 1", 1)],
        ),
    ],
    ids=["csv", "jsonl", "parquet in two files"],
)
def test_formats(
    hub: HubStandIn, call: Worker, tmp_path: Path, files: dict[str, bytes | str], expected: list[tuple[str, int]]
) -> None:
    name = f"acme/format-{len(hub.repos)}"
    hub.put(f"datasets/{name}", files)
    read = rows(call(fetch, f"hub:{name}:train", tmp_path))
    assert [(row["text"], row["label"]) for row in read] == expected


def test_all_splits_come_at_once_and_only_once(hub: HubStandIn, call: Worker, tmp_path: Path) -> None:
    sha = hub.put("datasets/acme/moods", CSV)
    train = call(fetch, "hub:acme/moods:train", tmp_path)
    assert rows(train) == [{"text": "good", "label": 1}, {"text": "bad", "label": 0}]
    stored = left_in(tmp_path)
    asked = len(hub.requests)
    assert call(pin, "hub:acme/moods:test@main", tmp_path) == f"hub:acme/moods:test@{sha}"
    assert len(hub.requests) == asked + 1
    with hub.refusing():
        test = call(fetch, f"hub:acme/moods:test@{sha}", tmp_path)
        assert call(without_module, "datasets", fetch, f"hub:acme/moods:test@{sha}", tmp_path) == test
    assert rows(test) == [{"text": "fine", "label": 1}]
    assert message_of(UsageError, call, fetch, "hub:acme/moods:dev", tmp_path).endswith("expected test, train")
    assert left_in(tmp_path) == stored


def test_configurations_and_class_labels(hub: HubStandIn, call: Worker, tmp_path: Path) -> None:
    files = {"README.md": CONFIGS, "one/a.parquet": parquet([2]), "two/a.parquet": parquet([0, 1])}
    hub.put("datasets/acme/configs", files | {"two-dev.parquet": parquet([1])})
    two = call(fetch, "hub:acme/configs/two:train", tmp_path)
    table = pq.read_table(two)
    assert table["label"].to_pylist() == [0, 1]
    features = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
    assert features["label"]["names"] == ["bad", "good"]
    assert rows(call(fetch, "hub:acme/configs/two:validation", tmp_path)) == [{"text": "text 1", "label": 1}]
    assert rows(call(fetch, "hub:acme/configs/one:train", tmp_path)) == [{"text": "text 2", "label": 2}]
    for ref in ("hub:acme/configs:train", "hub:acme/configs/three:train"):
        message = message_of(UsageError, call, fetch, ref, tmp_path)
        assert "'one', 'two'" in message
        assert "/CONFIG" in message


def test_a_reference_follows_the_hub_and_a_pinned_one_stays(hub: HubStandIn, call: Worker, tmp_path: Path) -> None:
    old = hub.put("datasets/acme/moving", CSV, tag="v1")
    pinned = call(pin, "hub:acme/moving:train", tmp_path)
    assert pinned == f"hub:acme/moving:train@{old}"
    assert left_in(tmp_path) == []
    first = call(fetch, pinned, tmp_path)
    new = hub.put("datasets/acme/moving", {"train.csv": "text,label\nnew,1\n"})
    assert call(pin, pinned, tmp_path) == pinned
    assert call(fetch, "hub:acme/moving:train@v1", tmp_path) == first
    second = call(fetch, "hub:acme/moving:train", tmp_path)
    assert rows(second) == [{"text": "new", "label": 1}]

    with hub.refusing():
        assert call(with_warnings, fetch, pinned, tmp_path) == (first, [])
        path, warnings = call(with_warnings, fetch, "hub:acme/moving:train", tmp_path)
        assert path == second
        assert len(warnings) == 1
        assert new in warnings[0]
        message = message_of(HubUnreachableError, call, fetch, "hub:acme/moving:train@v1", tmp_path)
        assert f"hub:acme/moving:train@{new}" in message


def test_a_local_folder_does_not_stand_in_for_the_hub(
    hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.put("datasets/acme/shadow", CSV)
    local = tmp_path / "acme" / "shadow"
    local.mkdir(parents=True)
    (local / "train.csv").write_text("text,label\nlocal,0\n")
    monkeypatch.chdir(tmp_path)
    with hub.worker(tmp_path / "home") as call:
        assert len(rows(call(fetch, "hub:acme/shadow:train", tmp_path / "cache"))) == 2


def test_two_that_fetch_at_once_get_the_same(hub: HubStandIn, tmp_path: Path) -> None:
    hub.put("datasets/acme/race", CSV)
    with hub.worker(tmp_path / "home", processes=2) as call:
        both = [call.start(fetch, "hub:acme/race:train", tmp_path / "cache") for _ in range(2)]
        paths = {future.result() for future in both}
    assert len(paths) == 1
    assert len(rows(paths.pop())) == 2
    assert not list((tmp_path / "cache").glob(".*"))


# What goes wrong


def test_what_cannot_be_had_leaves_nothing_behind(hub: HubStandIn, call: Worker, tmp_path: Path) -> None:
    hub.put("datasets/acme/gated", CSV, gated=True)
    hub.put("datasets/acme/script", {"script.py": "raise SystemExit('ran')", **CSV})
    hub.put("datasets/acme/empty", {"README.md": "# nothing"})
    hub.put("datasets/acme/torn", {"train.parquet": parquet([1])[:-20]})
    hub.put("datasets/acme/uneven", {"train.csv": "text,label\na,1\nb,1,2,3\n"})
    hub.put("datasets/acme/fine", CSV)
    problems = {
        "acme/absent:train": "is no dataset on the hub",
        "acme/fine:train@v9": "has no revision 'v9'",
        f"acme/fine:train@{'0' * 40}": "has no revision",
        "acme/gated:train": f"agree at {hub.url}/datasets/acme/gated",
        "acme/script:train": "scripts",
        "acme/empty:train": "data",
        "acme/torn:train": "arquet",
        "acme/uneven:train": "xpected 2 fields",
    }
    for ref, problem in problems.items():
        message = message_of(UsageError, call, fetch, f"hub:{ref}", tmp_path)
        assert problem in message
        assert ref.partition(":")[0] in message
        assert "\n" not in message
        assert left_in(tmp_path) == []
    with hub.answering_with(failing={"train.csv": 403}):
        message_of(UsageError, call, fetch, "hub:acme/fine:train", tmp_path)
    assert left_in(tmp_path) == []
    assert len(rows(call(fetch, "hub:acme/fine:train", tmp_path))) == 2


def test_without_datasets_the_extra_is_named(hub: HubStandIn, call: Worker, tmp_path: Path) -> None:
    hub.put("datasets/acme/extra", CSV)
    message = message_of(UsageError, call, without_module, "datasets", fetch, "hub:acme/extra:train", tmp_path)
    assert "pip install 'manyhead[hub]'" in message
    assert left_in(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_told(hub: HubStandIn, call: Worker, tmp_path: Path) -> None:
    hub.put("datasets/acme/full", CSV)
    (tmp_path / "file").write_text("in the way of a folder")
    message = message_of(WriteError, call, fetch, "hub:acme/full:train", tmp_path / "file" / "cache")
    assert str(tmp_path / "file") in message


def recipe_of(**files: str) -> Recipe:
    task = {"kind": "classification", "text": "text", "target": "label", "labels": ["bad", "good"], "files": files}
    data = {"manyhead": 1, "name": "x", "encoder": {"checkpoint": "acme/tiny"}, "tasks": {"a": task, "b": task}}
    return Recipe.model_validate(data, context={"tables": TABLES})


def test_a_recipe_is_pinned_whole(hub: HubStandIn, call: Worker, tmp_path: Path) -> None:
    sha = hub.put("datasets/acme/recipe", CSV)
    recipe = recipe_of(train="hub:acme/recipe:train", dev="dev.csv", test=f"hub:acme/recipe:test@{sha}")
    pinned = call(pin_recipe_references, recipe, tmp_path, encoder_revision="1" * 40)
    assert pinned.encoder == recipe.encoder.model_copy(update={"revision": "1" * 40})
    for task in pinned.tasks.values():
        assert task.files.train == f"hub:acme/recipe:train@{sha}"
        assert (task.files.dev, task.files.test) == ("dev.csv", f"hub:acme/recipe:test@{sha}")
    assert call(pin_recipe_references, pinned, tmp_path, encoder_revision="1" * 40) == pinned


def test_without_a_network_a_whole_recipe_is_refused_or_served_in_time(
    hub: HubStandIn, call: Worker, tmp_path: Path
) -> None:
    sha = hub.put("datasets/acme/known", CSV)
    call(fetch, "hub:acme/known:train", tmp_path)
    known = recipe_of(train="hub:acme/known:train", dev="hub:acme/known:test", test="hub:acme/known:test")
    far = recipe_of(train="hub:acme/far:train")

    def check(worker: Worker) -> None:
        started = time.monotonic()
        pinned = worker(pin_recipe_references, known, tmp_path, encoder_revision=None)
        assert pinned.tasks["b"].files.test == f"hub:acme/known:test@{sha}"
        with pytest.raises(HubUnreachableError, match="under 'files'"):
            worker(pin_recipe_references, far, tmp_path, encoder_revision=None)
        with pytest.raises(HubUnreachableError):
            worker(fetch, f"hub:acme/far:train@{sha}", tmp_path / "nothing")
        assert time.monotonic() - started < LIMIT_SECONDS

    stored = left_in(tmp_path)
    with hub.refusing():
        check(call)
    with hub.worker(tmp_path / "home", HF_HUB_OFFLINE="1") as offline:
        check(offline)
    with hub.worker(tmp_path / "home") as unheard, hub.silent():
        check(unheard)
    assert left_in(tmp_path) == stored
