"""Recipes in which each two values of any two factors meet, as far as recipes allow it."""

import random
from collections.abc import Mapping
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any

from faulty import staged

from manyhead.errors import RecipeError
from manyhead.recipe.load import load_recipe

SEED = 11
CANDIDATES = 10
BAD_ROW = 5

LION = {"kind": "pytorch_optimizer", "name": "lion", "lr": 1e-3, "weight_decay": 0.1}
WARM_UP = ({"name": "warm-up", "tasks": ["reviews"], "epochs": 1}, {"name": "multitask", "start": "encoder"})
CONTRAST = ({"name": "texts", "pretraining": "simcse", "epochs": 1, "max_steps": 2}, {"name": "multitask"})
TAUGHT = (
    {"name": "teacher", "tasks": ["reviews", "questions"], "epochs": 1},
    {"name": "multitask", "start": "encoder", "distillation": {"teachers": ["teacher"]}},
)
TRIPLETS = {"questions": {"pairing": "siamese", "auxiliary": ["cosine_embedding", "cosine_triplet"]}}
SMART = [{"kind": "smart", "bregman": 1.0}]

Row = Mapping[str, str]
FACTORS: dict[str, dict[str, Any]] = {
    "stages": {"one": ({"name": "multitask"},), "warm-up": WARM_UP, "contrastive": CONTRAST, "distillation": TAUGHT},
    "balancing": {name: name for name in ("sum", "gls", "pcgrad", "dwa", "uncertainty")},
    "schedule": {name: name for name in ("interleaved", "sequential", "round_robin", "shuffled")},
    "accumulation": {"1": 1, "3": 3},
    "optimizer": {"adamw": {"kind": "adamw", "lr": 1e-3}, "adabelief": {"kind": "adabelief", "lr": 1e-3}, "lion": LION},
    "regularisers": {"none": [], "smart": SMART, "r_drop": ["r_drop"]},
    "experts": {
        "none": None,
        "low_rank": {"kind": "low_rank", "rank": 4},
        "pal_parallel": {"kind": "pal_parallel", "width": 8, "heads": 2},
    },
    "precision": {"fp32": "fp32", "bf16": "bf16"},
    "tasks": {"plain": {}, "triplets": TRIPLETS},
    "early_stopping": {"none": None, "patience": {"patience": 2}},
    "keep_checkpoints": {"2": 2, "1": 1},
    "on_nonfinite": {"stop": "stop", "skip": "skip"},
}
"""The first value of each is one that goes with every other."""

Pair = tuple[tuple[str, str], tuple[str, str]]


def recipe_of(row: Row, encoder: Path | str) -> dict[str, Any]:
    """The recipe of a choice of values."""
    values = {factor: FACTORS[factor][value] for factor, value in row.items()}
    common = {
        "epochs": 2,
        "max_steps": 8,
        "evaluate_every_steps": 3,
        "checkpoint_every_steps": 2,
        "schedule": values["schedule"],
        "optimizer": values["optimizer"],
        "keep_checkpoints": values["keep_checkpoints"],
        "accumulation": values["accumulation"],
        "on_nonfinite": values["on_nonfinite"],
    }
    last = {key: values[key] for key in ("balancing", "regularisers", "early_stopping")}
    stages = [common | stage for stage in values["stages"]]
    stages[-1] |= last
    recipe = staged(Path(encoder), *stages, tasks=values["tasks"], experts=values["experts"])
    return {**recipe, "precision": values["precision"]}


@cache
def is_legal(row: tuple[tuple[str, str], ...]) -> bool:
    """Whether the recipe can train. That low-rank experts leave nothing shared to train is told by the encoder."""
    if {("balancing", "pcgrad"), ("experts", "low_rank")} <= {*row}:
        return False
    try:
        load_recipe(recipe_of(dict(row), "somewhere"))
    except RecipeError:
        return False
    return True


def pairs_of(row: Row) -> set[Pair]:
    return {(one, other) for one, other in combinations(row.items(), 2)}


@cache
def legal_pairs() -> dict[Pair, Row]:
    """Each pair that some recipe can have, and the plainest that has it."""
    plain = {factor: next(iter(values)) for factor, values in FACTORS.items()}
    found: dict[Pair, Row] = {}
    for one, other in combinations(FACTORS, 2):
        for values in product(FACTORS[one], FACTORS[other]):
            row = plain | {one: values[0], other: values[1]}
            if is_legal(tuple(row.items())):
                found[(one, values[0]), (other, values[1])] = row
    return found


@cache
def covering() -> list[Row]:
    """Rows that have every legal pair, each chosen to have many pairs that those before it lack."""
    generator = random.Random(SEED)
    left = dict(legal_pairs())
    rows: list[Row] = []
    while left:
        starts = generator.sample(list(left.items()), min(CANDIDATES, len(left)))
        rows.append(max((_filled(*start, left, generator) for start in starts), key=lambda row: _new(row, left)))
        for pair in pairs_of(rows[-1]):
            left.pop(pair, None)
    return rows


def _new(row: Row, left: Mapping[Pair, Row]) -> int:
    return len(pairs_of(row) & left.keys())


def _filled(pair: Pair, start: Row, left: Mapping[Pair, Row], generator: random.Random) -> Row:
    """``start``, which has ``pair``, its other values changed one by one to those that bring most of what is left."""
    row = dict(start)
    factors = [factor for factor in FACTORS if factor not in dict(pair)]
    generator.shuffle(factors)
    for factor in factors:
        choices = [{**row, factor: value} for value in generator.sample(list(FACTORS[factor]), len(FACTORS[factor]))]
        row = max((each for each in choices if is_legal(tuple(each.items()))), key=lambda each: _new(each, left))
    return row
