"""The hub folder and its card; pushed to a hub on this machine, and loaded from there."""

import contextlib
import importlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from export_makers import exported, family_encoder, saved_model
from hub_writes import TOKEN, HubWrites
from huggingface_hub import ModelCard
from typer.testing import CliRunner

import hub_stand_in
from hub_stand_in import HubStandIn, Worker
from manyhead.build import train
from manyhead.cli.main import app
from manyhead.errors import UsageError
from manyhead.export.card import base_model, hub_datasets
from manyhead.export.hub_folder import shared
from manyhead.inference.predictor import Model
from manyhead.recipe.load import load_recipe
from tiny import tiny_recipe

TEXTS = ["a good film", "dull", ""]
FILES = {
    *(".gitattributes", "README.md", "manifest.json", "recipe.yaml", "weights.safetensors"),
    *("encoder/config.json", "encoder/tokenizer.json"),
}
hub = pytest.fixture(scope="module")(hub_stand_in.running_hub)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return family_encoder(tmp_path_factory.mktemp("encoder") / "private-place", "bert")


@pytest.fixture(scope="module")
def run(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(load_recipe(tiny_recipe(encoder)), out=tmp_path_factory.mktemp("hub") / "run").path


@pytest.fixture(scope="module")
def folder(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("exports") / "folder"
    exported(run, "hub", place, check=False, card={"license": "mit", "language": ["en", "de"]})
    return place


@pytest.fixture(scope="module")
def writes(hub: HubStandIn) -> HubWrites:
    hub.writes = HubWrites(hub)
    return hub.writes


@pytest.fixture(scope="module")
def call(hub: HubStandIn, writes: HubWrites, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with hub.worker(tmp_path_factory.mktemp("home"), HF_TOKEN=TOKEN, HF_HUB_DISABLE_XET="1") as worker:
        worker.start(warm_up).result()  # imports may take longer than a call on a busy machine
        yield worker


def warm_up() -> None:
    """Imports what exporting needs."""
    for name in ("manyhead.export.hub_folder", "manyhead.export.export", "huggingface_hub.hf_api"):
        importlib.import_module(name)


def command(*words: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, run in a worker."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert TOKEN not in result.stdout + result.stderr
    return result.exit_code, result.stdout, result.stderr


def strangers_command(*words: object) -> tuple[int, str, str]:
    """`command` of somebody without a token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HF_TOKEN")
        return command(*words)


def predicted(model: str, texts: list[str]) -> list[dict[str, float] | None]:
    with contextlib.redirect_stderr(io.StringIO()):
        return [each.probabilities for each in Model.load(model).predict("reviews", texts)]


def test_the_folder_is_the_model(run: Path, folder: Path, tmp_path: Path) -> None:
    ours, theirs = Model.load(run), Model.load(Path(shutil.copytree(folder, tmp_path / "moved")))
    assert ours.predict("reviews", TEXTS) == theirs.predict("reviews", TEXTS)
    assert ours.predict("sentences", [("a", "b")]) == theirs.predict("sentences", [("a", "b")])


def test_nothing_in_it_names_a_place_of_this_machine(run: Path, folder: Path, encoder: Path) -> None:
    recipe = (run / "recipe.yaml").read_text(encoding="utf-8")
    assert str(encoder) in recipe
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert str(encoder.parent).encode() not in content
            assert str(Path(__file__).parents[2]).encode() not in content, path


def test_paths_of_teachers_files_and_trackers_are_not_shared(encoder: Path) -> None:
    values = tiny_recipe(encoder)
    values["threads"], values["trackers"] = 3, [{"kind": "tensorboard", "folder": "/place/of/mine"}]
    values["tasks"]["reviews"]["files"] = {
        "train": "/place/of/mine/train.csv",
        "dev": {"from": "train", "fraction": 0.5},
    }
    values["stages"][0]["distillation"] = {"teachers": ["/place/of/mine/teacher", "acme/teacher"]}
    found = shared(load_recipe(values).recipe)
    assert "/place" not in str(found)
    assert (found.threads, found.tasks["reviews"].files.train) == (None, "train.csv")
    assert found.stages[0].distillation is not None
    assert found.stages[0].distillation.teachers == ["teacher", "acme/teacher"]


def test_the_card_has_every_tasks_score_and_the_data(run: Path, folder: Path) -> None:
    card: Any = ModelCard.load(folder / "README.md")
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    assert (card.data.license, card.data.language, card.data.get("datasets")) == ("mit", ["en", "de"], None)
    assert card.data.get("base_model") is None
    results = card.data.eval_results
    assert results is not None
    scores = {each.task_name: (each.metric_type, each.metric_value) for each in results}
    dev = summary["dev"]["tasks"]
    assert scores == {
        "reviews": ("accuracy", round(dev["reviews"]["accuracy"], 4)),
        "questions": ("accuracy", round(dev["questions"]["accuracy"], 4)),
        "sentences": ("pearsonr", round(dev["sentences"]["pearson"], 4)),
    }
    low, high = summary["intervals"]["questions"]["low"], summary["intervals"]["questions"]["high"]
    assert f"95% interval {low:.3f} to {high:.3f}" in card.text
    state = json.loads((run / "state.json").read_text())
    for key, facts in state["data"].items():
        task, split = key.split(".")
        assert f"| {task} | {split} | {facts['rows']} |" in card.text
        assert facts["data"] in card.text
    assert "cut behind 40 tokens" in card.text
    assert "not calibrated: reviews, questions" in card.text


def test_a_model_without_its_run_says_that_no_scores_came_with_it(encoder: Path, tmp_path: Path) -> None:
    labels = {0: "a | b", 1: "b", 2: "c", 3: "d", 4: "e"}
    model = saved_model(
        tmp_path / "model", encoder, tasks={"reviews": {"labels": labels}}, temperatures={"reviews": 1.5}
    )
    exported(model, "hub", tmp_path / "out", check=False)
    card: Any = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.eval_results is None
    assert "No scores came with the model." in card.text
    assert "No licence was named" in card.text
    assert "| reviews | a text | a \\| b, b, c, d, e |" in card.text
    assert "calibrated by a temperature, fitted on dev rows: reviews." in card.text
    found = Model.load(tmp_path / "out").predict("reviews", TEXTS)
    assert found == Model.load(model).predict("reviews", TEXTS)


def test_base_model_and_data_sets_are_those_of_the_hub(encoder: Path) -> None:
    values = tiny_recipe(encoder)
    values["tasks"]["reviews"]["files"] = {"train": "hub:acme/reviews/small:train@main", "dev": "hub:acme/reviews:dev"}
    values["encoder"]["checkpoint"] = "acme/bert"
    recipe = load_recipe(values).recipe
    assert hub_datasets(recipe) == ["acme/reviews"]
    assert base_model(recipe) == "acme/bert"
    values["encoder"]["checkpoint"] = "embedded"
    assert base_model(load_recipe(values).recipe) == "sentence-transformers/all-MiniLM-L6-v2"


def test_the_whole_model_has_no_single_tasks(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--to hub exports the whole model"):
        exported(run, "hub", tmp_path / "out", "reviews")


def test_a_pushed_model_is_loaded_by_its_name(
    hub: HubStandIn, writes: HubWrites, call: Worker, run: Path, tmp_path: Path
) -> None:
    words = ("export", run, "--to", "hub", "--no-check")
    code, said, notes = call(command, *words, "--out", tmp_path / "one", "--push", "acme/one", "--private", "--json")
    assert code == 0, notes
    newest = next(reversed(hub.repos["models/acme/one"].commits))
    assert json.loads(said)["pushed"] == {"repo": "acme/one", "url": f"{hub.url}/acme/one", "commit": newest}
    assert hub.repos["models/acme/one"].commits[newest].keys() == FILES
    assert writes.private["models/acme/one"]
    assert call(predicted, "acme/one", TEXTS) == predicted(str(run), TEXTS)


def test_a_push_replaces_the_model_before_and_leaves_other_files(
    hub: HubStandIn, call: Worker, encoder: Path, run: Path, tmp_path: Path
) -> None:
    calibrated = saved_model(tmp_path / "model", encoder, temperatures={"reviews": 2.0})
    words = ("--to", "hub", "--no-check", "--push", "acme/two", "-q")
    assert call(command, "export", calibrated, *words, "--out", tmp_path / "first")[0] == 0
    assert call(predicted, "acme/two", TEXTS) == predicted(str(calibrated), TEXTS)
    before = hub.repos["models/acme/two"].commits[next(reversed(hub.repos["models/acme/two"].commits))]
    assert "calibration.json" in before
    hub.put("models/acme/two", before | {"picture.png": b"png"})
    code, _, notes = call(command, "export", run, *words, "--out", tmp_path / "second")
    assert code == 0, notes
    after = hub.repos["models/acme/two"].commits[next(reversed(hub.repos["models/acme/two"].commits))]
    assert after.keys() == FILES | {"picture.png"}
    assert call(predicted, "acme/two", TEXTS) == predicted(str(run), TEXTS)


@pytest.mark.parametrize(
    ("step", "status", "code", "said"),
    [
        ("create", 403, 2, "status 403.*nothing was uploaded"),
        ("create", 400, 74, "status 400.*nothing was uploaded"),
        ("batch", 403, 2, "hf auth login.*none of the 6 files is there"),
        ("object", 400, 74, "none of the 6 files is there"),
        ("commit", 413, 74, "status 413.*none of the 6 files is there"),
    ],
)
def test_a_push_that_fails_says_what_is_there(
    hub: HubStandIn,
    writes: HubWrites,
    call: Worker,
    run: Path,
    tmp_path: Path,
    step: str,
    status: int,
    code: int,
    said: str,
) -> None:
    name, out = f"acme/{step}{status}", tmp_path / "out"
    writes.objects.clear()  # what is there already is not sent again
    writes.failing = {step: status}
    try:
        words = ("export", run, "--to", "hub", "--no-check", "--out", out, "--push", name)
        found, stdout, notes = call(command, *words)
    finally:
        writes.failing = {}
    assert found == code, notes
    assert stdout == ""
    assert re.search(said, notes), notes
    assert f"the export is in {out}" in notes
    repo = hub.repos.get(f"models/{name}")
    assert repo is None or set(repo.commits[next(reversed(repo.commits))]) == {".gitattributes"}


def test_a_commit_whose_answer_was_lost_is_told(
    hub: HubStandIn, writes: HubWrites, call: Worker, run: Path, tmp_path: Path
) -> None:
    writes.loses_answer = True
    try:
        found, _, notes = call(
            command, "export", run, "--to", "hub", "--no-check", "--out", tmp_path / "out", "--push", "acme/lost"
        )
    finally:
        writes.loses_answer = False
    assert found == 74
    assert f"yet a new commit is there ({next(reversed(hub.repos['models/acme/lost'].commits))})" in notes


def test_a_hub_that_is_not_there_and_one_that_wants_a_login(
    hub: HubStandIn, call: Worker, run: Path, tmp_path: Path
) -> None:
    words = ("export", run, "--to", "hub", "--no-check", "--push", "acme/three")
    with hub.refusing():
        code, _, notes = call(command, *words, "--out", tmp_path / "one")
    assert code == 74
    assert "check the network; nothing was uploaded" in notes
    code, _, notes = call(strangers_command, *words, "--out", tmp_path / "two")
    assert code == 2
    assert "status 401" in notes
    assert "hf auth login" in notes


def test_the_front_matter_is_plain_yaml(folder: Path) -> None:
    front = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert front["library_name"] == "manyhead"
    assert [len(each["metrics"]) for each in front["model-index"][0]["results"]] == [1, 1, 1]
