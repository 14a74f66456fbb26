import hashlib
import json
import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fake_runs import PARA, SST, STS, fabricate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manyhead.errors import UsageError, WriteError
from manyhead.report.content import gather_report
from manyhead.report.page import build_report, render_page, write_report
from manyhead.report.text import visible

MakeRun = Callable[..., Path]
VOID = {"meta", "link", "br", "hr", "img", "input"}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a\u202etxt.exe",
    "&lt;b&gt; 'q'",
    "{{ 7 * 7 }}",
]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Writes a run folder of that name: ``make_run("name", tasks, ...)``."""

    def make(name: str = "cs224n", *arguments: Any, **options: Any) -> Path:
        return fabricate(tmp_path / name, *arguments, **options)

    return make


class Page(HTMLParser):
    """Checks that every tag is closed in order, and gathers what a test asks about."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute occurs twice in {tag}"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    @property
    def text(self) -> str:
        return "\n".join(text for tag, text in self.texts if tag not in ("style", "script"))

    @property
    def scripts(self) -> list[str]:
        return [text for tag, text in self.texts if tag == "script"]

    @property
    def charts(self) -> list[str]:
        """What the charts say of themselves."""
        return [str(tag["aria-label"]) for tag in self.of("svg")]

    def of(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.tags if name == tag)

    def values(self, attribute: str) -> list[str | None]:
        return [attributes[attribute] for _, attributes in self.tags if attribute in attributes]


def check(page: str) -> Page:
    """Everything that holds of every page; returns it parsed."""
    found = Page(page)
    assert page.startswith("<!DOCTYPE html>")
    assert len(page.encode("utf-8")) < 3_000_000
    assert not {tag for tag, _ in found.tags} & {"img", "iframe", "object", "embed", "base", "audio"}
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert all(str(target).startswith("#") or target == "data:," for target in found.values("href"))
    assert not found.values("src")
    assert not re.search(r"https?://|//cdn|url\(|@import", page)
    policy = next(tag["content"] for tag in found.of("meta") if tag.get("http-equiv") == "Content-Security-Policy")
    scripts = re.findall("<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) <= 1
    digest = b64encode(hashlib.sha256("".join(scripts).encode()).digest()).decode()
    assert not scripts or f"script-src 'sha256-{digest}';" in str(policy)
    assert str(policy).startswith("default-src 'none'; ")
    assert "'unsafe-eval'" not in str(policy)
    assert [tag.get("type") for tag in found.of("script")] in ([], ["application/json", None])
    if scripts:
        json.loads(found.scripts[0])
    _check_access(found)
    return found


def _check_access(found: Page) -> None:
    names = [tag for tag, _ in found.tags]
    ids = found.values("id")
    assert len(ids) == len(set(ids))
    referred = [part for value in found.values("aria-labelledby") for part in str(value).split()]
    referred += [str(target)[1:] for target in found.values("href") if str(target).startswith("#")]
    assert set(referred) <= set(ids)
    assert names.count("table") == names.count("caption")
    assert names.count("h1") == 1
    levels = [int(name[1]) for name in names if re.fullmatch("h[1-6]", name)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(tag.get("role") == "img" and tag.get("aria-label") for tag in found.of("svg"))
    assert all(tag.get("scope") in ("col", "row") for tag in found.of("th"))


def test_a_page_of_three_tasks_says_what_came_out(make_run: MakeRun) -> None:
    run = make_run()
    summary = json.loads((run / "summary.json").read_text())
    page = check(build_report([run]))
    assert ("bdi", "cs224n") in page.texts
    for fact in ("13", "finished", "1 h 15 min 22 s", "2025-11-20 09:14:03", "1,440", "14,400"):
        assert fact in page.text.split("\n")
    assert "device cpu · cores 8" in page.text
    for task, metric in summary["primary"].items():
        value, base = summary["dev"]["tasks"][task][metric], summary["baseline"]["tasks"][task][metric]
        assert {f"{value:.3f}", f"{base:.3f}", f"{value - base:+.3f}"} <= set(page.text.split("\n"))
        assert f"{summary['dev']['tasks'][task]['n']:,}" in page.text.split("\n")
    for name in ("overall", "overall_raw"):
        assert f"{summary['dev'][name]:.3f}" in page.text.split("\n")
    titles = [label.split(":")[0] for label in page.charts]
    assert titles[:5] == [
        "Dev scores and their 95\u00a0% intervals",
        "Overall on dev",
        "Cosines between the tasks' gradients",
        "Learning rate",
        "Gradient norm",
    ]
    counts = {"Training loss": 3, "Dev scores": 3, "Norm of its own gradient": 3, "Slices": 3, "Calibration": 2}
    assert {title: titles.count(title) for title in counts} == counts
    assert page.text.count("Targets against predictions") == 3
    assert "somewhat negative" in page.text
    assert "checkpoint: embedded" in page.text


def test_a_page_of_one_task(make_run: MakeRun) -> None:
    page = check(build_report([make_run("single", [STS], steps=30, evaluations=1)]))
    titles = [label.split(":")[0] for label in page.charts]
    assert "Training loss" in titles
    assert "Dev scores" not in titles, "one evaluation makes no curve"
    assert "not in the run folder" not in page.text


def test_several_runs_stand_side_by_side(make_run: MakeRun) -> None:
    runs = [
        make_run("first", [STS]),
        make_run("second", [PARA]),
        make_run("third", [STS], finished=False, steps=9),
    ]
    page = check(build_report(runs))
    assert ("h1", "3 runs") in page.texts
    assert "Side by side" in page.text
    assert "These runs cannot be compared." in page.text
    assert page.text.count("Scores on dev") == 3
    total = json.loads((runs[0] / "summary.json").read_text())["dev"]["overall"]
    table = page.text.split("Side by side")[1].split("Run 1 of 3")[0]
    assert f"{total:.3f}" not in table, "means over other tasks are not compared"


def test_a_stopped_run_is_reported_as_far_as_it_went(make_run: MakeRun) -> None:
    page = check(build_report([make_run(finished=False, steps=90)]))
    assert "Not in the run folder, so not on this page: summary.json, predictions/sst.dev.csv" in page.text
    assert "The scores are those of the last evaluation, at step 90" in page.text
    assert "stopped" in page.text


@pytest.mark.parametrize("kept", ["recipe.yaml", "state.json", "metrics.jsonl", "summary.json"])
def test_any_one_file_makes_a_page(make_run: MakeRun, kept: str) -> None:
    run = make_run("kept", [STS], steps=40)
    for file in run.iterdir():
        if file.is_file() and file.name != kept:
            file.unlink()
    page = check(build_report([run]))
    assert "Not in the run folder" in page.text


GARBAGE = [
    "",
    "{",
    "[]",
    "null",
    '"text"',
    "3",
    "\x00\x01",
    '{"dev": 3, "tasks": [1], "baseline": "x", "best": [], "examples": 1}',
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_in_any_file_is_tolerated(make_run: MakeRun, garbage: str) -> None:
    files = ("state.json", "metrics.jsonl", "summary.json", "maps.json", "predictions/sts.dev.csv")
    for name, garbled in (("recipe", ["recipe.yaml"]), ("others", files)):
        run = make_run(name, [STS], steps=4, evaluations=2)
        for file in garbled:
            (run / file).write_text(garbage, encoding="utf-8")
        check(build_report([run]))


KEYS = [
    *(
        "kind",
        "step",
        "stage",
        "split",
        "losses",
        "lr",
        "grad_norm",
        "cosines",
        "tasks",
        "overall",
        "dev",
        "baseline",
        "best",
        "seconds",
        "examples",
    ),
    *("tokens", "primary", "status", "versions", "hardware", "time", "started", "name", "seed", "labels", "range"),
    *("sst", "sts", "accuracy", "pearson", "mse", "n", "metric", "regression", "eval"),
]
atoms = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), st.text(max_size=5)),
    st.sampled_from(KEYS),
)
things = st.recursive(
    atoms,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)
summaries = st.fixed_dictionaries(
    {},
    optional={
        "dev": st.fixed_dictionaries({"tasks": st.dictionaries(st.sampled_from(["sst", "sts"]), things)}),
        "best": st.fixed_dictionaries({"step": things}),
        "primary": st.fixed_dictionaries({"sst": things}),
        **dict.fromkeys(("name", "seconds", "examples", "tokens", "baseline", "status"), things),
    },
)
records = st.fixed_dictionaries(
    {"kind": st.sampled_from(["step", "eval"]), "step": st.integers() | things},
    optional={
        "stage": things,
        "split": st.just("dev"),
        "losses": st.dictionaries(st.sampled_from(["sst", "sts"]), atoms) | things,
        "tasks": st.dictionaries(st.sampled_from(["sst", "sts"]), things) | things,
        "overall": things,
        "lr": atoms,
        "grad_norm": atoms,
        "grad_norms": things | st.dictionaries(st.sampled_from(["sst", "sts"]), atoms),
        "cosines": things | st.lists(st.lists(st.floats(-1, 1), max_size=2), max_size=2),
    },
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(things, summaries | things, things, st.lists(records | things, max_size=4))
def test_no_content_of_the_files_breaks_the_page(
    tmp_path: Path, recipe: object, summary: object, state: object, log: list[object]
) -> None:
    folder = tmp_path / "run"
    (folder / "predictions").mkdir(parents=True, exist_ok=True)
    (folder / "predictions" / "sst.dev.csv").write_text("target,prediction\n1,1\na,\n")
    for name, content in (("recipe.yaml", recipe), ("summary.json", summary), ("state.json", state)):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in log), encoding="utf-8")
    check(build_report([folder]))


def test_binary_and_deep_files_are_tolerated(make_run: MakeRun) -> None:
    run = make_run(steps=10)
    (run / "recipe.yaml").write_bytes(b"\xff\xfe\x00tasks")
    (run / "summary.json").write_text("[" * 100_000)
    (run / "predictions" / "sst.dev.csv").unlink()
    (run / "predictions" / "sst.dev.csv").mkdir()
    page = check(build_report([run]))
    for name in ("recipe.yaml", "summary.json", "predictions/sst.dev.csv"):
        assert f"{name} cannot be read" in page.text


def test_odd_records_are_counted_and_left_out(make_run: MakeRun) -> None:
    run = make_run("odd", [STS], steps=20)
    odd: list[Any] = [
        {"kind": "step", "step": 21, "losses": {"sst": float("nan"), "para": None, "sts": "1"}},
        {"kind": "step", "step": "22", "losses": {"sst": 1.0}},
        {"kind": "eval", "step": 23, "split": "dev", "tasks": {"sst": {"accuracy": float("inf")}}, "overall": None},
        {"kind": "eval", "step": 24, "split": "dev", "tasks": 5},
        {"kind": "event", "what": "resumed"},
        7,
    ]
    with (run / "metrics.jsonl").open("a") as log:
        log.writelines(json.dumps(record) + "\n" for record in odd)
        log.write('{"kind": "step", "st')
    page = check(build_report([run]))
    assert "Losses that are not finite numbers and are not drawn: 3." in page.text
    assert "Lines of metrics.jsonl that cannot be read and are left out: 1." in page.text


def test_hostile_names_stay_text(make_run: MakeRun) -> None:
    task = replace(SST, labels=dict(enumerate(HOSTILE)))
    run = make_run("hostile", [replace(PARA, name='a"b<i>&\u202e')], steps=40, stages=("one", "<svg/onload=x>"))
    other = make_run("labels", [task], steps=40)
    for name in ("summary.json", "state.json"):
        content = json.loads((run / name).read_text()) | {"name": HOSTILE[0], "status": HOSTILE[1]}
        content |= {"versions": {"<b>": "</style><script>"}, "hardware": HOSTILE, "started": "\ud800\x00\x1b[31m"}
        (run / name).write_text(json.dumps(content))
    text = build_report([run, other])
    page = check(text)
    assert text.count("<script") == 2
    assert "<img" not in text
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b\ud800-\udfff]", text)
    for label in (HOSTILE[0], HOSTILE[1], "a\\u202etxt.exe", HOSTILE[3], HOSTILE[4]):
        assert ("bdi", label) in page.texts
    assert "\\ud800\\u0000\\u001b[31m" in page.text
    assert "<svg/onload=x>" in page.text


def test_many_thousand_steps_make_a_small_page_quickly(make_run: MakeRun) -> None:
    run = make_run("long", [STS], steps=50_000, evaluations=1, stages=("a", "b", "c"))
    start = time.process_time()
    text = build_report([run])
    assert time.process_time() - start < 10
    assert len(text) < 400_000
    check(text)


def test_many_classes_are_listed_by_confusion(make_run: MakeRun) -> None:
    task = replace(SST, labels={index: f"intent {index}" for index in range(150)})
    page = check(build_report([make_run("intents", [task], steps=20)]))
    assert "The 20 commonest confusions of 150 classes" in page.text


def test_findings_are_told(make_run: MakeRun) -> None:
    run = make_run("weak", [STS], steps=10)
    rows = [f"{index},{index % 5},2.5,True" for index in range(10)]
    (run / "predictions" / "sts.dev.csv").write_text("\n".join(["id,target,prediction,truncated", *rows, "x,,1,0"]))
    summary = json.loads((run / "summary.json").read_text())
    summary["dev"]["tasks"]["sts"]["pearson"] = 0.0
    (run / "summary.json").write_text(json.dumps(summary))
    text = check(build_report([run])).text
    assert "pearson is 0.000" in text
    assert "so they are not those that the run was scored by" not in text, "constant predictions score 0 too"
    assert "there is no interval: 10 examples tell too little" in text
    assert "10 of 10 dev texts were cut" in text
    assert "1 of 11 dev predictions fit no class or are no numbers." in text
    assert "10 dev examples tell large differences only." in text
    (run / "predictions" / "sts.dev.csv").write_text("\n".join(["id,target,prediction,truncated", *rows]))
    assert "It gives the same prediction for every dev example" in build_report([run])


def test_a_lower_error_is_a_gain(make_run: MakeRun) -> None:
    run = make_run("error", [STS], steps=10)
    summary = json.loads((run / "summary.json").read_text())
    summary |= {"primary": {"sts": "mse"}}
    summary["dev"]["tasks"]["sts"]["mse"], summary["baseline"]["tasks"]["sts"]["mse"] = 0.5, 2.0
    (run / "summary.json").write_text(json.dumps(summary))
    assert "+1.500" in check(build_report([run])).text


def test_what_is_no_run_is_refused_all_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run is given"):
        build_report([])
    with pytest.raises(UsageError) as caught:
        build_report([tmp_path / "absent", tmp_path])
    assert [line.split(":")[0] for line in str(caught.value).split("\n")] == [str(tmp_path / "absent"), str(tmp_path)]
    with pytest.raises(UsageError):
        write_report(tmp_path)


def test_write_report_replaces_the_file_and_leaves_nothing_else(make_run: MakeRun) -> None:
    run = make_run("run", [STS], steps=10)
    before = {file.name for file in run.iterdir()}
    path = write_report(run)
    assert path == run / "report.html"
    path.write_text("old")
    assert write_report(run).read_text(encoding="utf-8") == build_report([run])
    assert {file.name for file in run.iterdir()} == before | {"report.html"}


def test_a_page_that_cannot_be_written_is_a_write_error(make_run: MakeRun) -> None:
    run = make_run("run", [STS], steps=10)
    (run / "report.html").mkdir()
    with pytest.raises(WriteError, match=r"report\.html could not be written"):
        write_report(run)
    assert not list(run.glob(".tmp-*"))


def test_the_same_run_gives_the_same_page(make_run: MakeRun) -> None:
    run = make_run("run", [STS], steps=30)
    assert build_report([run]) == build_report([run])


def test_runs_on_the_same_rows_are_compared(make_run: MakeRun) -> None:
    runs = [make_run("good", [STS, SST]), make_run("bad", [replace(STS, skill=0.3), SST], seed=14)]
    report = gather_report(runs)
    assert report.together is not None
    assert report.together.problem is None
    page = check(render_page(report))
    assert "bad is worse than good in sts" in page.text
    verdicts = {row.task: row.verdict for row in report.together.sides[0].rows}
    assert verdicts["sts"] == "hurt"
    assert all(row.sentence in page.text for row in report.together.sides[0].rows)
    assert any(label.startswith("bad less good, with 95\u00a0% intervals: sts \u2212") for label in page.charts)
    assert any(label.startswith("sts: pearson on dev: good from") for label in page.charts)
    assert re.search(r"sts: good is nearer to the target in \d+ examples, bad in \d+", page.text)
    assert json.loads(page.scripts[0])[0]["runs"] == ["good", "bad"]


def test_runs_that_cannot_be_compared_say_why(make_run: MakeRun) -> None:
    page = check(build_report([make_run("one", [STS]), make_run("two", [replace(STS, rows=60)])]))
    assert "These runs cannot be compared." in page.text
    assert "dev rows 60, not 110" in page.text


def test_a_run_that_is_not_finished_is_left_out_of_the_comparison_of_the_others(make_run: MakeRun) -> None:
    runs = [make_run("good", [STS]), make_run("going", [STS], finished=False)]
    text = check(build_report(runs)).text
    assert "These runs cannot be compared." in text
    assert "the run is not finished" in text
    text = check(build_report([*runs, make_run("bad", [replace(STS, skill=0.3)], seed=14)])).text
    assert "bad is worse than good in sts" in text
    assert "Left out of the comparison:" in text
    assert "going: the run is not finished" in text


@pytest.mark.parametrize("hidden", ["\xad", "\u061c", "\u180e", "\u200b", "\u2063", "\u3164", "\U000e0041"])
def test_characters_that_hide_are_spelled_out(hidden: str) -> None:
    assert visible(f"a{hidden}b") == f"a{hidden.encode('unicode_escape').decode().replace('x', 'u00')}b"


@pytest.mark.parametrize("text", ["naïve", "👩‍🔬", "❤️", "می‌خواهم", "कर्म", "日本"])
def test_characters_that_can_be_seen_stay(text: str) -> None:
    assert visible(text) == text


def rewrite(run: Path, task: str, lines: list[str]) -> None:
    (run / "predictions" / f"{task}.dev.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_of_three_examples_it_says_what_it_cannot_say(make_run: MakeRun) -> None:
    run = make_run("few", [STS, replace(SST, rows=3)], steps=4)
    rewrite(run, "sts", ["id,target,text_1,text_2,prediction,truncated", "a,1,x,y,2,0", "b,2,x,y,1,0", "c,4,x,z,3,0"])
    text = check(build_report([run])).text
    assert "3 examples tell too little of pearson" in text
    assert text.count("3 dev examples tell large differences only.") == 2
    assert "3 examples: too few to say much." in text
    assert "so they are not those that the run was scored by." in text


def test_one_class_and_one_prediction_are_told(make_run: MakeRun) -> None:
    run = make_run("one", [SST], steps=4)
    names = ",".join(f"probability_{name}" for name in (SST.labels or {}).values())
    rows = [f"{row},2,a text,2,neutral,0,0,1,0,0,0" for row in range(30)]
    rewrite(run, "sst", [f"id,target,text,prediction,label,{names},truncated", *rows])
    text = check(build_report([run])).text
    for told in (
        "It gives the same prediction for every dev example",
        "All dev targets are the same",
        "all predictions are the same.",
        "likely label errors are left out: one class only.",
    ):
        assert told in text


def test_sixty_classes_make_a_list_of_confusions_and_a_filter(make_run: MakeRun) -> None:
    task = replace(SST, labels={index: f"intent {index}" for index in range(60)}, rows=400)
    page = check(build_report([make_run("intents", [task], steps=4)]))
    assert "The 20 commonest confusions of 60 classes" in page.text
    assert len(json.loads(page.scripts[0])[0]["classes"]) == 60


def test_maps_of_sentences_are_drawn_and_odd_ones_are_not(make_run: MakeRun) -> None:
    run = make_run("maps", [SST, STS], steps=4)
    plane = {"x": [0.0, 1.0, 2.0], "y": [1.0, 0.0, 1.0], "variance": [0.5, 0.25]}
    found: dict[str, Any] = {"targets": ["neutral", "positive", "neutral"], "planes": {"cls": plane, "mean": None}}
    scores = {"targets": [0.0, 5.0, 1.0], "planes": {"attention": plane, "cls": {**plane, "x": [None, 1, 2]}}}
    (run / "maps.json").write_text(json.dumps({"tasks": {"sst": found, "sts": scores}}))
    titles = [label.split(";")[0] for label in check(build_report([run])).charts if label.startswith("Sentence map")]
    assert titles == [
        "Sentence map, first token: 75 % of the variance: 3 examples, each a point",
        "Sentence map, attention-weighted mean: 75 % of the variance: 3 examples, each a point",
    ]


def test_a_temperature_is_told_with_what_it_did(make_run: MakeRun) -> None:
    run = make_run("warm", [SST], steps=4)
    summary = json.loads((run / "summary.json").read_text())
    summary["calibration"] = {"sst": {"temperature": 1.5, "ece": {"before": 0.2, "after": 0.05}}}
    (run / "summary.json").write_text(json.dumps(summary))
    page = check(build_report([run]))
    assert "1.50" in page.text
    assert "0.200 → 0.050" in page.text


@pytest.mark.slow
def test_a_large_run_makes_a_page_below_its_limit(make_run: MakeRun) -> None:
    tasks = [replace(PARA, name=f"pairs{place}", rows=4000) for place in range(11)]
    run = make_run("large", [replace(PARA, rows=22_000), *tasks], steps=2000)
    start = time.process_time()
    text = build_report([run])
    assert time.process_time() - start < 60
    assert len(text.encode()) > 2_000_000
    page = check(text)
    blocks = json.loads(page.scripts[0])
    assert all(0 < len(block["rows"]) < block["total"] for block in blocks)
    assert "of 22,000 dev examples are on this page" in page.text
