"""The page in a real browser, before a real server: what it shows, whom it asks, and what it says when things fail."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from playwright.sync_api import Browser, Error, Page, Route, expect

from manyhead.build import train
from manyhead.recipe.load import load_recipe
from manyhead.report.text import visible
from tiny import SAMPLE, tiny_encoder, tiny_recipe

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PLANTED = (
    "<script>window.planted = 1</script>",
    "</textarea><script>window.planted = 2</script>",
    '<img src=x onerror="window.planted = 3">',
    "\u202eabc {{ 7 * 7 }} ${window.planted = 4}",
)
PAIR = ("how do I boil an egg", "boiling eggs")
LIMITS = ("--max-bytes", "200000")
TOKEN = "a-token-of-tests-0123456789"


@dataclass(frozen=True)
class Server:
    address: str

    def ask(self, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(self.address + path, data, {"Content-Type": "application/json"})) as answer:
            return json.load(answer)


def launch(model: Path, token: str | None = None) -> Iterator[Server]:
    """A server process on a free port."""
    command = [sys.executable, "-m", "manyhead", "serve", str(model), "--port", "0", "--json", *LIMITS]
    environment = os.environ | ({"MANYHEAD_TOKEN": token} if token else {})
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            yield Server(json.loads(process.stdout.readline())["address"])
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged sample, with planted texts among the first of its dev rows."""
    folder = tmp_path_factory.mktemp("data")
    for path in SAMPLE.glob("*.csv"):
        shutil.copy(path, folder)
    path = folder / "reviews.dev.csv"
    rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    place = rows[0].index("text")
    for row, text in zip(rows[1:], PLANTED, strict=False):
        row[place] = text
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Callable[..., Path]:
    """Trains a tiny model; keywords are of the recipe's encoder."""
    base = tmp_path_factory.mktemp("model")
    encoder = tiny_encoder(base / "encoder")

    def run(**changes: Any) -> Path:
        recipe = {**tiny_recipe(encoder, epochs=1), "data_dir": str(data)}
        recipe["encoder"] |= changes
        return train(load_recipe(recipe), out=base / f"run{len(changes)}").path

    return run


@pytest.fixture(scope="module")
def server(trained: Callable[..., Path]) -> Iterator[Server]:
    yield from launch(trained())


@pytest.fixture(scope="module")
def guarded(trained: Callable[..., Path]) -> Iterator[Server]:
    """A server that wants a token, with a model whose experts read a text for a task."""
    yield from launch(trained(experts={"kind": "low_rank", "rank": 2}), TOKEN)


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a server's page; at the end no other was asked, no error said, no planted text run, and nothing stored."""
    asked: list[str] = []
    said: list[str] = []
    pages: list[tuple[Page, Server]] = []

    def open_page(server: Server, *, expects: str = "#ask", **options: Any) -> Page:
        page = browser.new_context(**options).new_page()
        page.set_default_timeout(10_000)
        pages.append((page, server))
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(server.address + "/")
        expect(page.locator(expects)).to_be_visible()
        return page

    yield open_page
    # The browser itself notes each answer that is an error.
    assert [text for text in said if not text.startswith("Failed to load resource")] == []
    for page, server in pages:
        assert page.evaluate("window.planted") is None
        assert page.evaluate("localStorage.length + document.cookie.length + location.search.length") == 0
        assert page.evaluate("location.href") == f"{server.address}/"
        page.context.close()
    assert {url.split("/", 3)[2] for url in asked} == {server.address.split("/", 3)[2] for _, server in pages}


def predict(page: Page, *texts: str) -> None:
    """Types texts, presses Enter and waits for the answers."""
    page.click("#mode-one" if len(texts) == 1 else "#mode-two")
    for field, text in zip(("#first", "#second"), texts, strict=False):
        page.fill(field, text)
    page.press("#first", "Enter")
    settled(page)


def settled(page: Page) -> None:
    expect(page.locator("#answers")).to_be_visible()
    expect(page.locator("#answers")).not_to_have_attribute("aria-busy", "true")


def percent(share: float) -> str:
    if 0 < share < 0.005:
        return "<1 %"
    return ">99 %" if 0.995 <= share < 1 else f"{math.floor(share * 100 + 0.5)} %"


def bars_of(page: Page, task: str) -> dict[str, str]:
    rows = page.locator(f"[data-task={task}] .bars tr")
    return dict(row.inner_text().replace("\ttrue", "").split("\n") for row in rows.all())


def test_a_text_gets_the_answer_of_every_task_that_reads_one(opened: Callable[..., Page], server: Server) -> None:
    page, text = opened(server), "a good film"
    predict(page, text)
    said = server.ask("/v1/predict", {"texts": [text]})["predictions"]
    assert list(said) == ["reviews"]
    (review,) = said["reviews"]
    assert [card.get_attribute("data-task") for card in page.locator(".card").all()] == ["reviews"]
    assert page.locator(".card .figure").inner_text() == review["label"]
    shown = page.locator(".card .bars tr").all()
    names = [row.locator("th").inner_text() for row in shown]
    assert names == ["awful", "poor", "mixed", "good", "excellent"]
    assert [row.locator("td").inner_text() for row in shown] == [
        percent(review["probabilities"][name]) for name in names
    ]
    drawn = [float(row.evaluate("row => row.style.getPropertyValue('--share')")) for row in shown]
    assert drawn == pytest.approx([review["probabilities"][name] for name in names], abs=1e-5)
    assert " ms in the server" in page.locator("#timing").inner_text()
    assert page.locator("#cut").is_hidden()
    assert page.locator("#said").inner_text().startswith(f"reviews: {review['label']}, ")


def test_a_pair_gets_scores_on_their_range_and_a_cosine(opened: Callable[..., Page], server: Server) -> None:
    page = opened(server)
    predict(page, *PAIR)
    said = server.ask("/v1/predict", {"texts": [PAIR]})["predictions"]
    assert page.locator("[data-task=questions] .figure").inner_text() == said["questions"][0]["label"]
    score = said["sentences"][0]["score"]
    meter = page.get_by_role("meter", name="Score of sentences")
    assert float(meter.get_attribute("aria-valuenow") or "") == pytest.approx(score, abs=1e-4)
    assert (meter.get_attribute("aria-valuemin"), meter.get_attribute("aria-valuemax")) == ("0", "5")
    assert page.locator("[data-task=sentences] .figure").inner_text() == f"{score:.3f} on 0 to 5".replace("-", "\u2212")
    one, other = (np.array(row) for row in server.ask("/v1/embed", {"texts": PAIR})["embeddings"])
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    shown = page.locator("[data-vectors] .figure").inner_text()
    assert shown == f"{cosine:.3f} cosine".replace("-", "\u2212")
    assert page.locator("#reader").is_hidden()


def test_a_list_fills_a_table_and_says_which_line_is_odd(opened: Callable[..., Page], server: Server) -> None:
    page, lines = opened(server), ["a good film", "dull", "a good film"]
    page.click("#mode-many")
    page.fill("#lines", "\n\n".join(lines))
    page.press("#lines", "Control+Enter")
    settled(page)
    said = server.ask("/v1/predict", {"texts": lines})["predictions"]["reviews"]
    rows = page.locator("#table tbody tr").all()
    assert [row.locator("th").inner_text() for row in rows] == lines
    assert [row.locator("td bdi").inner_text() for row in rows] == [each["label"] for each in said]
    page.fill("#lines", "\t".join(PAIR))
    page.click("#run")
    expect(page.locator("#table thead")).to_contain_text("sentences")
    page.fill("#lines", "\t".join(PAIR) + "\nalone")
    page.click("#run")
    expect(page.locator("#trouble-words")).to_have_text("Line 2 has 1 texts and the first has 2; all need as many.")
    assert page.locator("#answers").is_hidden()


def test_a_long_text_is_said_to_be_cut(opened: Callable[..., Page], server: Server) -> None:
    page = opened(server)
    predict(page, "the meal was cold " * 5000)
    assert page.locator("#cut").inner_text() == "Longer than the model reads: cut to 40 tokens for reviews."
    predict(page, "a good film", "long " * 200)
    assert page.locator("#cut").inner_text().endswith("for questions, sentences, the vectors.")


def test_an_example_comes_with_its_true_answer(opened: Callable[..., Page], server: Server) -> None:
    page = opened(server)
    for task in ("reviews", "questions", "sentences"):
        page.select_option("#examples-task", task)
        examples = server.ask(f"/v1/examples?task={task}")["examples"]
        expect(page.locator(".example")).to_have_count(len(examples))
        page.locator("#examples summary").click()
        page.locator(".example").last.click()
        settled(page)
        texts, target = examples[-1]["texts"], examples[-1]["target"]
        assert [page.input_value(field) for field in ("#first", "#second")][: len(texts)] == texts
        truth = page.locator(f"[data-task={task}] .truth")
        said = server.ask("/v1/predict", {"texts": [texts if len(texts) > 1 else texts[0]]})["predictions"][task][0]
        if task == "sentences":
            assert truth.inner_text().endswith(f"{abs(said['score'] - target):.3f} apart")
        else:
            assert truth.inner_text() == f"True answer: {target}, {'right' if said['label'] == target else 'wrong'}"
        assert page.locator(".truth").count() == 1
        page.press("#first", "End")
        page.locator("#first").press_sequentially("!")
        page.press("#first", "Enter")
        expect(page.locator(".truth")).to_have_count(0)
        assert page.locator(".example[aria-current]").count() == 0


def test_planted_texts_are_text(opened: Callable[..., Page], server: Server) -> None:
    page = opened(server)
    predict(page, *PLANTED[1:3])
    page.click("#mode-many")
    page.fill("#lines", "\n".join(PLANTED))
    page.click("#run")
    settled(page)
    shown = page.locator("#table tbody th").all_inner_texts()
    assert shown == [*PLANTED[:3], PLANTED[3].replace("\u202e", "\\u202e")]
    examples = page.locator(".example").all_text_contents()
    for text in shown:
        assert [each for each in examples if text in each]
    assert page.locator("main img, main iframe, main script").count() == 0
    assert page.evaluate("document.scripts.length") == 1


def test_everything_works_by_keyboard(opened: Callable[..., Page], server: Server) -> None:
    page = opened(server)

    def focused() -> str:
        return page.evaluate(
            "document.activeElement.id || document.activeElement.className || document.activeElement.value"
        )

    def tab_to(name: str) -> None:
        for _ in range(20):
            page.keyboard.press("Tab")
            assert page.evaluate(SEEN_FOCUS), focused()
            if focused() == name:
                return
        raise AssertionError(f"{name} is out of reach")

    tab_to("one")
    page.keyboard.press("ArrowRight")
    assert focused() == "two"
    tab_to("first")
    page.keyboard.type("eggs")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("boiled")
    tab_to("second")
    page.keyboard.type("boiled eggs")
    page.keyboard.press("Enter")
    settled(page)
    assert page.input_value("#first") == "eggs\nboiled"
    assert focused() == "second"
    assert page.locator(".card").count() == 3
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    tab_to("run")
    page.keyboard.press("Space")
    settled(page)
    tab_to("examples-task")
    tab_to("example")
    page.keyboard.press("Enter")
    expect(page.locator(".truth")).to_have_count(1)


SEEN_FOCUS = """() => {
  const style = getComputedStyle(document.activeElement.closest('.modes label') ?? document.activeElement);
  return style.outlineStyle === 'solid' && parseFloat(style.outlineWidth) >= 2;
}"""


def test_the_curl_command_gets_the_same_answer(opened: Callable[..., Page], server: Server) -> None:
    page, texts = opened(server), ('it\'s "good" $HOME `id` \\ \u00fc\u202e 😀', "-d @/etc/passwd")
    predict(page, *texts)
    page.click("#same summary")
    commands = page.locator("#curl").inner_text().split("\n\n")
    assert all(command.isascii() for command in commands)
    done = [subprocess.run(["bash", "-c", f"{command} -s"], capture_output=True, check=True) for command in commands]
    predicted, embedded = (json.loads(each.stdout) for each in done)
    assert predicted["predictions"] == server.ask("/v1/predict", {"texts": [texts]})["predictions"]
    assert embedded["embeddings"] == server.ask("/v1/embed", {"texts": texts})["embeddings"]
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#copy")
    expect(page.locator("#copied")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == "\n\n".join(commands)


def test_a_token_is_asked_for_and_kept_in_the_tab(opened: Callable[..., Page], guarded: Server) -> None:
    page = opened(guarded, expects="#token")
    assert page.evaluate("document.activeElement.id") == "token-value"
    assert page.locator("#ask").is_hidden()
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#token-why")).to_have_text("The server refused this token.")
    page.fill("#token-value", "zwei Wörter")
    page.keyboard.press("Enter")
    expect(page.locator("#token-why")).to_contain_text("no spaces")
    page.fill("#token-value", TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#ask")).to_be_visible()
    assert page.locator("#token").is_hidden()
    expect(page.locator("#first")).to_be_focused()
    page.reload()
    expect(page.locator("#ask")).to_be_visible()
    predict(page, *PAIR)
    cosines = set()
    for task in ("reviews", "questions", "sentences"):
        page.select_option("#reader-task", task)
        expect(page.locator("[data-vectors] p.soft")).to_contain_text(f"for {task};")
        cosines.add(page.locator("[data-vectors] .figure").inner_text())
    page.click("#same summary")
    command = page.locator("#curl").inner_text()
    assert TOKEN not in command
    assert '"task":"sentences"' in command
    environment = {**os.environ, "MANYHEAD_TOKEN": TOKEN}
    done = subprocess.run(
        ["bash", "-c", command.split("\n\n")[0] + " -s"], capture_output=True, check=True, env=environment
    )
    assert "predictions" in json.loads(done.stdout)
    assert TOKEN not in page.content()


def answering(page: Page, status: int, headers: dict[str, str] | None = None, content: str | None = None) -> None:
    """From now on predictions are answered so, as a server in need or a proxy before it does."""
    said = json.dumps({"error": {"code": "x", "message": "said by <b>the server</b>"}}) if content is None else content

    def fulfil(route: Route) -> None:
        route.fulfill(status=status, headers=headers or {}, content_type="application/json", body=said)

    page.route("**/v1/predict", fulfil)


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (429, {"Retry-After": "1"}, "more to do than it can take at once. Try again in 1 second."),
        (429, {}, "more to do than it can take at once. Try again in a moment."),
        (503, {"Retry-After": "30"}, "not ready: it is starting or stopping. Try again in 30 seconds."),
        (504, {}, "found no time for this"),
        (422, {}, "said by <b>the server</b>"),
        (413, {}, "said by <b>the server</b>"),
    ],
)
def test_refusals_are_said_and_can_be_tried_again(
    opened: Callable[..., Page], server: Server, status: int, headers: dict[str, str], words: str
) -> None:
    page = opened(server)
    predict(page, "a good film")
    answering(page, status, headers)
    page.press("#first", "Enter")
    expect(page.locator("#trouble-words")).to_contain_text(words)
    assert page.locator("#answers").is_hidden()
    assert page.input_value("#first") == "a good film"
    if headers.get("Retry-After") == "1":
        expect(page.locator("#trouble-words")).to_have_text("The server should have room again now.")
    page.unroute("**/v1/predict")
    page.focus("#again")
    page.keyboard.press("Enter")
    settled(page)
    assert page.locator("#trouble").is_hidden()
    assert page.evaluate("document.activeElement.id") == "run"


def test_no_server_and_no_sense_are_said(opened: Callable[..., Page], server: Server) -> None:
    page = opened(server)
    page.context.set_offline(True)
    page.fill("#first", "a good film")
    page.press("#first", "Enter")
    expect(page.locator("#trouble-words")).to_contain_text("cannot be reached")
    expect(page.locator("#state")).to_have_text("out of reach")
    page.context.set_offline(False)
    page.click("#again")
    settled(page)
    expect(page.locator("#state")).to_have_text("ready")
    answering(page, 200, content="<html>a gateway's login</html>")
    page.click("#run")
    expect(page.locator("#trouble-words")).to_contain_text("cannot be read")
    page.unroute("**/v1/predict")
    page.fill("#first", "  ")
    page.click("#run")
    expect(page.locator("#trouble-words")).to_have_text("Write a text first.")
    most = server.ask("/v1/tasks")["limits"]["max_bytes"]
    page.fill("#first", "x" * (most + 1))
    page.click("#run")
    expect(page.locator("#trouble-words")).to_contain_text("Send less.")


def test_a_newer_question_takes_the_place_of_a_slow_one(opened: Callable[..., Page], server: Server) -> None:
    page = opened(server)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/v1/predict", hold)
    page.fill("#first", "slow one")
    page.press("#first", "Enter")
    expect(page.locator("#answers")).to_have_attribute("aria-busy", "true")
    page.unroute("**/v1/predict")
    predict(page, "a good film")
    assert len(held) == 1
    assert page.locator("#trouble").is_hidden()
    assert '"a good film"' in (page.locator("#curl").text_content() or "")


def test_a_server_that_still_loads_is_asked_again(opened: Callable[..., Page], server: Server) -> None:
    page, answers = opened(server), [503]

    def loading(route: Route) -> None:
        if not answers:
            route.continue_()
            return
        headers, said = {"Retry-After": "1"}, {"error": {"code": "not_ready", "message": "loading"}}
        route.fulfill(status=answers.pop(), headers=headers, json=said)

    page.route("**/v1/tasks", loading)
    page.reload()
    expect(page.locator("#trouble-words")).to_contain_text("it is starting or stopping. Try again in 1 second.")
    assert page.locator("#ask").is_hidden()
    expect(page.locator("#ask")).to_be_visible()
    expect(page.locator(".example").first).to_be_visible()
    assert page.locator("#trouble").is_hidden()


def test_a_model_that_takes_the_place_of_another_is_described_anew(opened: Callable[..., Page], server: Server) -> None:
    page, facts = opened(server), server.ask("/v1/tasks")
    reviews = {**facts["tasks"][0], "name": "grades", "labels": ["10", "9", "0"]}
    shares = {"10": 0.5, "9": 0.3, "0": 0.2}
    said = {"value": "10", "label": "10", "probabilities": shares, "score": None, "truncated": False}
    timing = {"queue_ms": 0, "model_ms": 0, "total_ms": 0}
    page.route("**/v1/tasks", lambda route: route.fulfill(json={**facts, "name": "another", "tasks": [reviews]}))
    answering(page, 200, content=json.dumps({"predictions": {"grades": [said]}, "timing": timing}))
    predict(page, "a good film")
    expect(page.locator("h1")).to_have_text("another")
    assert page.locator("[data-task=grades] .bars th").all_inner_texts() == ["10", "9", "0"]


def test_texts_are_spelled_out_as_in_reports(opened: Callable[..., Page], server: Server) -> None:
    page = opened(server)
    spelled = page.evaluate(
        """async () => {
          const { visible } = await import('/page/drawing.js'), found = [];
          for (let code = 0; code < 0x110000; code += 1) {
            const text = String.fromCodePoint(code), shown = visible(text);
            if (shown !== text) found.push([code, shown]);
          }
          return found;
        }"""
    )
    assert spelled == [[code, shown] for code in range(0x110000) if (shown := visible(chr(code))) != chr(code)]


CONTRASTS = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = numbers(getComputedStyle(each).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const seen = [...document.querySelectorAll('body *')].filter((each) => each.checkVisibility()
    && [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
  return seen.map((each) => {
    const [one, other] = [numbers(getComputedStyle(each).color), ground(each)].map(light);
    return [(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), each.outerHTML.slice(0, 80)];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_its_ground(opened: Callable[..., Page], server: Server, scheme: str) -> None:
    page = opened(server, color_scheme=scheme)
    grounds = {"light": "rgb(254, 254, 254)", "dark": "rgb(19, 23, 27)"}
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == grounds[scheme]
    for task in ("questions", "reviews"):
        page.select_option("#examples-task", task)
        expect(page.locator(".example span").first).to_be_visible()
        for example in page.locator(".example").all()[:3]:
            example.click()
            settled(page)
            found = page.evaluate(CONTRASTS)
            assert len(found) > 30
            assert [each for each in found if each[0] < 4.5] == []
    predict(page, "long " * 200)
    answering(page, 503)
    assert [each for each in page.evaluate(CONTRASTS) if each[0] < 4.5] == []
    page.click("#run")
    expect(page.locator("#trouble")).to_be_visible()
    assert [each for each in page.evaluate(CONTRASTS) if each[0] < 4.5] == []


@pytest.mark.parametrize("width", [360, 768])
def test_a_narrow_page_does_not_scroll_sideways(opened: Callable[..., Page], server: Server, width: int) -> None:
    page = opened(server, viewport={"width": width, "height": 740}, reduced_motion="reduce")

    def fits() -> bool:
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        return page.evaluate("document.documentElement.scrollWidth") <= width

    assert fits()
    predict(page, "x" * 3000)
    assert fits()
    predict(page, *PAIR)
    assert fits()
    page.click("#mode-many")
    page.fill("#lines", f"{'y' * 300}\ndull")
    page.click("#run")
    settled(page)
    assert fits()
    answering(page, 422, content=json.dumps({"error": {"code": "x", "message": "z" * 500}}))
    page.click("#run")
    expect(page.locator("#trouble")).to_be_visible()
    assert fits()
    assert page.evaluate("document.getAnimations().length") == 0
    for control in page.locator("button:visible, select:visible, .modes label").all():
        box = control.bounding_box()
        assert box is not None
        assert box["height"] >= 24, control


def test_without_script_the_page_says_how_else(browser: Browser, server: Server) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(server.address + "/")
    assert page.locator("noscript").is_visible()
    assert "/v1/predict" in page.locator("noscript").inner_text()
    assert page.locator("#ask").is_hidden()
    page.context.close()


def test_the_browser_makes_no_markup_of_text(browser: Browser, server: Server) -> None:
    page = browser.new_context().new_page()
    page.goto(server.address + "/")
    expect(page.locator("#ask")).to_be_visible()
    with pytest.raises(Error, match="TrustedHTML"):
        page.evaluate("document.body.innerHTML = '<b>x</b>'")
    page.context.close()
