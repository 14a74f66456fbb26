"""The page's files: complete, its own, in the report's colours, and sent with headers that let nothing else run."""

import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from manyhead.serving.page import PAGE_HEADERS, page_files

PAGE = {path: file.content.decode() for path, file in page_files().items()}


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inside = ""
        self.inline = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data: str) -> None:
        if self.inside in ("script", "style"):
            self.inline += data.strip()


@pytest.fixture(scope="module")
def tags() -> Tags:
    parser = Tags()
    parser.feed(PAGE["/"])
    return parser


def test_the_table_holds_every_file_of_the_folder_and_all_that_the_page_asks_for(tags: Tags) -> None:
    folder = files("manyhead.serving.page")
    names = {entry.name for entry in folder.iterdir() if entry.is_file() and not entry.name.endswith(".py")}
    assert len(names) == len(PAGE)
    linked = {value for _, attributes in tags.found for name, value in attributes.items() if name in ("src", "href")}
    imported = {f"page/{name}" for text in PAGE.values() for name in re.findall(r'from "\./([\w.]+)"', text)}
    assert {f"/{path}" for path in linked | imported} == PAGE.keys() - {"/"}


def test_nothing_is_inline_and_no_address_leads_away(tags: Tags) -> None:
    assert tags.inline == ""
    for tag, attributes in tags.found:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "action")], tag
    for path, text in PAGE.items():
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path
        assert not re.search(r"@import|\burl\(", text), path


def test_no_script_makes_markup_or_code_of_text() -> None:
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|DOMParser|srcdoc|localStorage"
    for path, text in PAGE.items():
        assert not re.search(sinks, text), path


def test_every_label_names_a_field_and_every_field_has_a_label(tags: Tags) -> None:
    ids = [str(attributes["id"]) for _, attributes in tags.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in tags.found:
        for name in ("for", "aria-labelledby", "aria-describedby"):
            assert set((attributes.get(name) or "").split()) <= set(ids)
    labelled = {attributes.get("for") for tag, attributes in tags.found if tag == "label"}
    areas = {attributes["id"] for tag, attributes in tags.found if tag == "textarea"}
    assert areas
    assert areas <= labelled


def test_every_part_that_the_script_names_is_there(tags: Tags) -> None:
    ids = {attributes.get("id") for _, attributes in tags.found}
    named = set(re.findall(r'(?:get|show)\("([\w-]+)"', PAGE["/page/page.js"]))
    assert named
    assert named <= ids


def test_the_policy_allows_the_servers_own_files_only() -> None:
    policy = dict(part.strip().split(" ", 1) for part in PAGE_HEADERS["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[f"{kind}-src"] for kind in ("script", "style", "img", "connect")} == {"'self'"}
    assert {policy[name] for name in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
    assert "unsafe" not in str(policy)


def test_colours_are_the_reports() -> None:
    report = files("manyhead.report").joinpath("template", "page.css").read_text(encoding="utf-8")
    blocks = [re.findall(r":root \{([^}]*)\}", text) for text in (report, PAGE["/page/style.css"])]
    assert len(blocks[0]) == 2
    assert blocks[0] == blocks[1]
