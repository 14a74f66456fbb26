"""The page in a real browser: it asks nothing of any network, runs its own script only, and filters as it says."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_runs import PARA, SST, STS, fabricate
from playwright.sync_api import Browser, Page

from manyhead.report.page import build_report

pytestmark = pytest.mark.browser

PLANTED = (
    "<script>window.planted = 1</script>",
    "</script><script>window.planted = 2</script>",
    '<img src=x onerror="window.planted = 3">',
    "<!--<script>window.planted = 4</script>",
    "\u202eabc\u2028\ud800 x",
    "long " * 20_000,
)
Row = list[Any]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with planted texts."""
    folder = tmp_path_factory.mktemp("browser")
    run = fabricate(folder / "run", [SST, PARA, STS], steps=30, evaluations=2)
    path = run / "predictions" / "sst.dev.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    for place, text in enumerate(PLANTED, 1):
        cells = lines[place].split(",")
        quoted = text.encode("utf-8", "replace").decode().replace('"', '""')
        lines[place] = ",".join([f"planted{place}", cells[1], f'"{quoted}"', *cells[3:]])
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    page = folder / "report.html"
    page.write_text(build_report([run]), encoding="utf-8")
    return page


@pytest.fixture
def opened(browser: Browser, report: Path) -> Iterator[Callable[..., Page]]:
    """Opens the page from disk; at the end nothing was asked of a network, no error said and no planted script run."""
    asked: list[str] = []
    said: list[str] = []
    pages: list[Page] = []

    def open_page(**options: Any) -> Page:
        page = browser.new_context(**options).new_page()
        pages.append(page)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.route("**/*", lambda route: route.continue_() if route.request.url == report.as_uri() else route.abort())
        page.goto(report.as_uri())
        return page

    yield open_page
    assert {url for url in asked if not url.startswith("data:")} == {report.as_uri()}
    assert said == []
    for page in pages:
        if page.evaluate("typeof document.querySelector") == "function":
            assert page.evaluate("window.planted") is None
        page.context.close()


def tasks_of(report: Path) -> list[dict[str, Any]]:
    """What the page's data block holds."""
    text = report.read_text(encoding="utf-8").split('id="examples-data">')[1].split("</script>")[0]
    return json.loads(text)


def shown_ids(page: Page) -> list[str]:
    """The ids in the table, over all its pages."""
    found: list[str] = []
    while True:
        found += page.locator("#examples-rows th small").all_text_contents()
        following = page.locator("#examples-next")
        if not following.is_visible() or following.is_disabled():
            return found
        following.click()


def is_wrong(row: Row) -> bool:
    return any(not said[3] for said in row[4])


def test_the_page_opens_from_disk_with_its_charts_and_rows(opened: Callable[..., Page], report: Path) -> None:
    page = opened()
    first = tasks_of(report)[0]
    assert page.locator("svg.chart").count() > 15
    assert page.locator("#examples-found").inner_text().startswith(f"{len(first['rows'])} of {len(first['rows'])}")
    assert shown_ids(page) == [row[0] for row in first["rows"]]
    assert page.locator("h1").inner_text() == "run"


def test_planted_texts_are_text(opened: Callable[..., Page]) -> None:
    page = opened()
    page.fill("#examples-query", "planted")
    texts = "\n".join(page.locator("#examples-rows th").all_text_contents())
    for text in PLANTED[:4]:
        assert text in texts
    assert "\\u202eabc\\u2028" in texts
    assert "[100,000 characters; shortened]" in texts
    assert page.locator("main img, main iframe").count() == 0
    assert page.evaluate("document.scripts.length") == 2


def test_filters_by_mouse_give_the_rows_they_say(opened: Callable[..., Page], report: Path) -> None:
    page, tasks = opened(), tasks_of(report)
    for place in (2, 1, 0):
        page.select_option("#examples-task", str(place))
        rows: list[Row] = tasks[place]["rows"]
        for name, value, keep in (
            ("shown", "wrong", is_wrong),
            ("shown", "right", lambda row: not is_wrong(row)),
            ("target", "1", lambda row: row[2] == 1),
            ("predicted", "0", lambda row: row[4][0][0] == 0),
            ("slice", "1", lambda row: 1 in row[5]),
        ):
            page.click("#examples-clear")
            page.select_option(f"#examples-{name}", value)
            assert shown_ids(page) == [row[0] for row in rows if keep(row)]
    page.select_option("#examples-shown", "wrong")
    page.select_option("#examples-target", "2")
    page.fill("#examples-query", "NOT film")
    expected = [
        row[0]
        for row in tasks[0]["rows"]
        if is_wrong(row)
        and row[2] == 2
        and 1 in row[5]
        and all(word in str(row[:2]).lower() for word in ("not", "film"))
    ]
    assert shown_ids(page) == expected


def test_everything_works_by_keyboard(opened: Callable[..., Page], report: Path) -> None:
    page, task = opened(), tasks_of(report)[0]
    page.focus("#examples-task")
    page.keyboard.press("Tab")
    page.keyboard.type("mistakes")
    mistakes = [row for row in task["rows"] if is_wrong(row)]
    assert page.locator("#examples-found").inner_text().startswith(f"{len(mistakes)} of ")
    for _ in range(4):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "examples-query"
    page.keyboard.type("story")
    found = [row[0] for row in mistakes if "story" in "\n".join(row[1]).lower()]
    assert found
    assert shown_ids(page) == found
    page.keyboard.type(" nothing that is there")
    assert "No example" in page.locator("#examples-found").inner_text()
    page.focus("#examples-clear")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.focus("#examples-next")
    page.keyboard.press("Enter")
    assert "; 26 to 50 are shown" in page.locator("#examples-found").inner_text()
    summary = page.locator("summary").first
    summary.focus()
    was = page.evaluate("document.activeElement.parentElement.open")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.parentElement.open") is not was


def test_a_count_of_the_matrix_leads_to_its_examples(opened: Callable[..., Page], report: Path) -> None:
    page, task = opened(), tasks_of(report)[1]
    link = page.locator('a[data-task="1"][data-target="0"][data-predicted="1"]')
    count = int(link.inner_text())
    link.click()
    ids = shown_ids(page)
    assert ids == [row[0] for row in task["rows"] if row[2] == 0 and row[4][0][0] == 1]
    assert len(ids) == count


@pytest.mark.parametrize("width", [360, 768])
def test_a_narrow_page_does_not_scroll_sideways(opened: Callable[..., Page], width: int) -> None:
    page = opened(viewport={"width": width, "height": 740})
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_mode_changes_page_and_charts(opened: Callable[..., Page]) -> None:
    seen = []
    for scheme in ("light", "dark"):
        page = opened(color_scheme=scheme)
        style = "(selector, name) => getComputedStyle(document.querySelector(selector))[name]"
        seen.append(
            [
                page.evaluate(f"({style})('body', 'backgroundColor')"),
                page.evaluate(f"({style})('.chart text', 'fill')"),
                page.evaluate(f"({style})('body', 'color')"),
            ]
        )
    assert all(light != dark for light, dark in zip(*seen, strict=True))


def test_print_opens_every_part_and_hides_the_controls(opened: Callable[..., Page]) -> None:
    page = opened()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    for hidden in ("#examples-filters", "#examples-pager", "nav"):
        assert not page.locator(hidden).first.is_visible()
    assert page.locator("pre").first.is_visible()


def test_without_script_the_page_says_so_and_keeps_the_rest(opened: Callable[..., Page]) -> None:
    page = opened(java_script_enabled=False)
    assert page.locator("noscript p").is_visible()
    assert not page.locator("#examples-filters").is_visible()
    assert page.locator("svg.chart").first.is_visible()
