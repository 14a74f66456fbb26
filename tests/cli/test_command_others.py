"""``manyhead quickstart``, ``init``, ``recipes`` and ``report``."""

import shutil
from pathlib import Path

import pytest
import yaml
from commands import document, run
from transformers import AutoConfig, AutoModelForSequenceClassification

from manyhead.data.beginning import Beginning
from manyhead.recipe.load import load_recipe
from manyhead.recipe.shipped import shipped_recipes
from tiny import SAMPLE, sample_texts, tiny_encoder


def quick(encoder: Path) -> tuple[str, ...]:
    """Settings that make the quickstart a matter of a second."""
    settings = (f"encoder.checkpoint={encoder}", "encoder.max_tokens=40", "stages.0.max_steps=6", "threads=1")
    return tuple(word for setting in settings for word in ("--set", setting))


def test_the_quickstart_trains_tries_and_says_what_next(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("quickstart", *quick(encoder))
    for shown in ("majority baseline", "new text", "runs/quickstart/report.html", "manyhead init"):
        assert shown in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100
    assert "--resume" in run("quickstart", *quick(encoder), code=2).stderr
    again = document("quickstart", *quick(encoder), "--resume")
    assert again["run"] == "runs/quickstart"
    assert set(again["predictions"]) == set(again["dev"]["tasks"]) == {"reviews", "questions", "sentences"}
    new = [text for trials in again["predictions"].values() for trial in trials for text in trial["texts"]]
    assert not set(new) & set(sample_texts())


def test_init_prints_a_recipe_that_loads_and_trains(encoder: Path, tmp_path: Path) -> None:
    files = [SAMPLE / name for name in ("reviews.train.csv", "reviews.dev.csv", "sentences.train.csv")]
    result = run("init", *files)
    assert yaml.safe_load(result.stdout)["manyhead"] == 1
    assert "reviews: classification of text, target grade" in result.stderr
    found = document("init", *files)
    assert found["recipe"] == result.stdout
    assert found["tasks"] == ["reviews", "sentences"]
    out = tmp_path / "new" / "mine.yaml"
    result = run("init", *files, "--out", out, "--name", "mine")
    assert result.stdout == ""
    assert out.read_text().count("name: mine") == 1
    words = (
        "--set",
        f"encoder.checkpoint={encoder}",
        "--set",
        "encoder.max_tokens=32",
        "--set",
        "stages.0.max_steps=2",
    )
    run(
        "train",
        out,
        *words,
        "--set",
        "tasks.sentences.files.dev={from: train, fraction: 0.1}",
        "--out",
        tmp_path / "run",
    )


def test_init_replaces_nothing_and_says_what_it_cannot_use(tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    out.write_text("mine")
    assert "exists already" in run("init", SAMPLE / "reviews.train.csv", "--out", out, code=2).stderr
    assert out.read_text() == "mine"
    assert "gone.csv" in run("init", tmp_path / "gone.csv", code=2).stderr
    (tmp_path / "numbers.csv").write_text("a,b\n1,2\n3,4\n")
    assert "numbers.csv" in run("init", tmp_path / "numbers.csv", code=2).stderr


def test_recipes_are_listed(tmp_path: Path) -> None:
    found = document("recipes", "ls")["recipes"]
    assert [entry["name"] for entry in found] == [recipe.name for recipe in shipped_recipes()]
    assert set(found[0]) == {"name", "study", "title", "published"}
    listed = run("recipes", "ls").stdout
    assert all(entry["name"] in listed and entry["title"] in listed for entry in found)


@pytest.mark.parametrize("name", {recipe.name.rpartition("/")[0]: recipe.name for recipe in shipped_recipes()}.values())
def test_recipes_are_shown_and_copied_as_they_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = run("recipes", "show", name).stdout
    assert document("recipes", "show", name)["recipe"] == shown
    run("recipes", "cp", name)
    copied = tmp_path / f"{name.rpartition('/')[2]}.yaml"
    assert copied.read_text() == shown
    assert load_recipe(copied, data_dir=".").recipe == load_recipe(name, data_dir=".").recipe
    assert "exists already" in run("recipes", "cp", name, code=2).stderr
    (tmp_path / "folder").mkdir()
    assert document("recipes", "cp", name, "folder")["path"] == f"folder/{copied.name}"


def test_a_recipe_that_is_not_there_gets_a_suggestion() -> None:
    assert "quickstart" in run("recipes", "show", "quickstrat", code=2).stderr


def test_reports_are_written_anew(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    (tmp_path / "run/report.html").unlink()
    assert run("report", tmp_path / "run").stdout == f"{tmp_path / 'run/report.html'}\n"
    assert (tmp_path / "run/report.html").read_text().startswith("<!")
    assert document("report", tmp_path / "run", trained)["reports"] == [
        str(folder / "report.html") for folder in (tmp_path / "run", trained)
    ]
    assert str(tmp_path) in run("report", tmp_path / "run", tmp_path, code=2).stderr


def test_a_report_of_two_runs_figures_and_tables(trained: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.mkdir()
    shutil.copy(trained / "summary.json", part)
    page, figures, tables = tmp_path / "both.html", tmp_path / "figures", tmp_path / "tables"
    found = document("report", part, trained, "--out", page)
    assert found == {"reports": [str(page)], "figures": [], "tables": []}
    assert "2 runs" in page.read_text(encoding="utf-8")
    found = document("report", part, "--figures", figures, "--tables", tables)
    assert found["reports"] == [str(part / "report.html")]
    for kind, folder in (("figures", figures), ("tables", tables)):
        assert sorted(found[kind]) == sorted(map(str, folder.iterdir()))
        assert found[kind]


@pytest.mark.parametrize(
    ("names", "head"),
    [
        (["awful", "poor", "mixed", "good", "excellent"], "by number"),
        (None, "by number"),
        (["bad", "good"], "not the checkpoint's: other classes"),
    ],
)
def test_init_begins_with_a_classification_checkpoint(tmp_path: Path, names: list[str] | None, head: str) -> None:
    folder = tiny_encoder(tmp_path / "checkpoint")
    labels = {"num_labels": 5} if names is None else {"id2label": dict(enumerate(names)), "label2id": None}
    config = AutoConfig.from_pretrained(folder, **labels)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    out = tmp_path / "mine.yaml"
    run("init", SAMPLE / "reviews.train.csv", "--checkpoint", folder, "--out", out)
    recipe = load_recipe(out).recipe
    assert recipe.encoder.checkpoint == str(folder)
    assert (recipe.encoder.pooling.kind, recipe.encoder.max_tokens) == ("pooler", 62)
    assert head in out.read_text()
    (task,) = recipe.tasks.values()
    kept = head == "by number"
    assert (task.head.kind, task.head_from) == (("linear", "checkpoint") if kept else ("hidden", "auto"))
    assert (task.label_names == names) == (kept and names is not None)
    result = run("check", out)
    assert ("the head of reviews is the checkpoint's" in result.stderr) == kept
    start = document("check", out)["start"]
    assert ("heads.reviews" in start["kept"]) == kept
    assert ("heads.reviews" in start["new"]) != kept


def test_init_begins_with_other_checkpoints_or_refuses_them(encoder: Path, tmp_path: Path) -> None:
    file, plain = SAMPLE / "reviews.train.csv", document("init", SAMPLE / "reviews.train.csv", "--checkpoint", encoder)
    assert f"checkpoint: {encoder}, pooling: mean, max_tokens: 62" in plain["recipe"]
    assert "head: {kind: hidden}\n" in plain["recipe"]
    assert "has no config.json" in run("init", file, "--checkpoint", tmp_path, code=2).stderr
    assert "there is no folder" in run("init", file, "--checkpoint", tmp_path / "none", code=2).stderr


def test_words_of_a_file_are_matched_with_the_names_of_a_checkpoint() -> None:
    head = "{kind: linear, dropout: 0.1}"
    named = Beginning("{}", head, 2, ("Yes", "no"))
    assert named.head_of_words(["no", "yes"])[0] == f"head: {head}"
    assert named.head_of_words(["no", "maybe"])[0].startswith("head: {kind: hidden}  # not the checkpoint's: names")
    assert Beginning("{}", head, 2).head_of_words(["no", "yes"])[0].endswith("names do not say which is which")
    assert Beginning("{}", head, 1).head_of_score()[1].startswith("head_from: checkpoint  # its one output")
    assert named.head_of_score()[0].endswith("it gives no score")
    assert Beginning().head_of_score() == Beginning().head_of_words(["a", "b"]) == ["head: {kind: hidden}"]
