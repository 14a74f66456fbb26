"""The sentence maps of a run, drawn: sentences of a task in a plane, coloured by target."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from manyhead.report.cells import mapping, number
from manyhead.report.charts.canvas import Chart
from manyhead.report.charts.errors import map_chart
from manyhead.report.text import percent, shortened

POOLINGS = {"cls": "first token", "mean": "mean of tokens", "attention": "attention-weighted mean"}
SHADES = 5
"""Groups that scores are coloured by."""


def map_charts(found: Mapping[str, Any], names: Sequence[str]) -> list[Chart]:
    """A chart for each way to make a vector of a sentence, where ``found`` is what maps.json says of the task.

    ``names`` are the classes in order; empty for scores.
    """
    targets = found.get("targets")
    if not isinstance(targets, list) or not targets:
        return []
    groups, shown = _classes(targets, names) if names else _groups(targets)
    charts: list[Chart] = []
    for pooling, words in POOLINGS.items():
        plane = mapping(mapping(found.get("planes")).get(pooling))
        points = _points(plane)
        if len(groups) and points is not None and len(points) == len(targets):
            variance = plane.get("variance")
            shares = [number(share) for share in variance] if isinstance(variance, list) else []
            seen = sum(share for share in shares if share is not None)
            title = f"Sentence map, {words}: {percent(seen)} of the variance"
            charts.append(map_chart(f"map-{pooling}", title, points, groups, shown))
    return charts


def _points(plane: Mapping[str, Any]) -> np.ndarray | None:
    columns = [column for axis in "xy" if isinstance(column := plane.get(axis), list)]
    if len(columns) != 2 or not columns[0] or len(columns[0]) != len(columns[1]):
        return None
    if any(number(value) is None for column in columns for value in column):
        return None
    return np.array(columns, np.float64).T


def _classes(targets: Sequence[Any], names: Sequence[str]) -> tuple[list[int], Sequence[str]]:
    places = {name: place for place, name in enumerate(names)}
    groups = [places.get(shortened(str(target), 80), -1) for target in targets]
    return ([] if -1 in groups else groups), names


def _groups(targets: Sequence[Any]) -> tuple[list[int], Sequence[str]]:
    """Equal parts of the scores' span."""
    values = [number(target) for target in targets]
    if any(value is None for value in values):
        return [], ()
    scores = np.array(values, np.float64)
    edges = np.linspace(scores.min(), scores.max(), SHADES + 1)
    if edges[0] == edges[-1]:
        return [0] * len(scores), [f"{edges[0]:.3g}"]
    names = [f"{low:.3g} to {high:.3g}" for low, high in pairwise(edges)]
    return np.searchsorted(edges[1:-1], scores).tolist(), names
