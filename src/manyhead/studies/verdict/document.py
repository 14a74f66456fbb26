"""What a verdict says."""

from collections.abc import Sequence
from dataclasses import dataclass

from manyhead.recipe.schema import Recipe


@dataclass(frozen=True)
class Header:
    recipe: Recipe
    tasks: tuple[str, ...]
    seeds: int
    examples: int | None
    equal: str
    factors: tuple[float, ...]
    command: Sequence[str]


def verdict_document(header, rates, chosen, trials, predictions, folder):
    return {"rates": {k: v.as_dict() for k, v in rates.items()}, "failures": []}


def markdown_text(document):
    return str(document)
