"""docs/studies.md maps the papers' rows to recipes: every recipe is on it, and it names none that is not there."""

import re
from pathlib import Path

from manyhead.cli.recipes import shipped
from manyhead.recipe.names import shipped_studies
from manyhead.recipe.tables import TABLES

PAGE = (Path(__file__).parents[2] / "docs" / "studies.md").read_text("utf-8")
NAMES = {entry["name"] for entry in shipped()}
CODE = set(re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", PAGE, flags=re.MULTILINE | re.DOTALL)))


def test_every_recipe_is_on_the_page() -> None:
    assert sorted(NAMES - CODE) == []


def test_every_recipe_and_study_on_the_page_is_there() -> None:
    assert sorted(name for name in CODE if "/" in name and " " not in name and name not in NAMES) == []
    studies = {study for text in CODE for study in re.findall(r"manyhead study ([\w/-]+)", text)}
    assert studies >= {"s1", "s2", "s3", "s4"}
    assert sorted(studies - set(shipped_studies()) - NAMES) == []


def test_a_studys_recipes_are_in_its_own_section() -> None:
    sections = dict(re.findall(r"^## (S\d).*?\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL))
    for study in ("s1", "s2", "s3", "s4"):
        rows = set(re.findall(r"`([^`]+)`", sections[study.upper()]))
        assert {name for name in NAMES if name.startswith(f"{study}/")} == {
            name for name in rows if "/" in name and " " not in name
        }


def test_every_method_is_on_the_page() -> None:
    methods = PAGE.partition("## Methods by name")[2]
    words = set(re.findall(r"[a-z_0-9]+", " ".join(re.findall(r"`([^`]+)`", methods))))
    assert {kind for family, members in TABLES.items() for kind in members if family != "trackers"} - words == set()
