"""Line charts as plain geometry: this module computes where everything goes, the page's template draws it as SVG."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 48, 26, 22, 42
MAX_POINTS = 500
"""Points a line is drawn with at most; more are averaged in buckets."""
TREND_POINTS = 40
"""Points of the bold line through a noisy one, at most; each is the mean of ten values at least."""


FLAT, MIN_SPREAD = 1e-6, 1e-100
"""A spread below this share of the values, or below this at all, is drawn as a flat line."""


@dataclass(frozen=True)
class Line:
    """One line to draw. ``style`` names a CSS class: main, noise (a pale line beneath), side or baseline."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "main"
    colour: int = 0


@dataclass(frozen=True)
class DrawnLine:
    """A line in the chart's own units. ``dots`` are the points themselves, where they are few."""

    name: str
    style: str
    colour: int
    path: str
    dots: list[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """A chart ready to be drawn: positions are in units of the SVG's view box."""

    title: str
    description: str
    lines: list[DrawnLine]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    marks: list[tuple[float, str, str]]
    """Position, text and CSS class (stage, best) of each vertical line."""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    span: tuple[int, int] | None = None,
    stages: Mapping[str, int] | None = None,
    best: float | None = None,
) -> Chart | None:
    """Lay out ``lines`` over steps; None without a point.

    Args:
        title: What the values are.
        lines: Drawn in order, so the last lies on top.
        span: First and last step the axis shows at least, so that charts of one run line up.
        stages: Stage to the step it begins at: a vertical line each, from the second on.
        best: Step of the best checkpoint: a vertical line.
    """
    lines = [line for line in lines if line.points]
    if not lines:
        return None
    columns = [downsample(np.array(line.points, dtype=np.float64), MAX_POINTS) for line in lines]
    everything = np.concatenate(columns)
    x_ticks, x_low, x_high = _axis(np.append(everything[:, 0], span or ()), most=6, padded=False)
    y_ticks, y_low, y_high = _axis(everything[:, 1], most=5, padded=True)

    def place(x: Any, y: Any) -> tuple[Any, Any]:
        across = LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)
        return across, down

    marks = [(step, name, "stage") for name, step in list((stages or {}).items())[1:]]
    marks += [] if best is None else [(best, "best", "best")]
    return Chart(
        title=title,
        description="; ".join(_describe(line) for line in lines if line.style != "noise") + ".",
        lines=[_draw(line, *place(*points.T)) for line, points in zip(lines, columns, strict=True)],
        x_ticks=[(place(tick, y_low)[0], f"{tick:,.0f}") for tick in x_ticks],
        y_ticks=[(place(x_low, tick)[1], f"{tick:.8g}".replace("-", "\u2212")) for tick in y_ticks],
        marks=[(place(step, y_low)[0], text, style) for step, text, style in marks if x_low <= step <= x_high],
    )


def downsample(points: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """At most ``most`` rows of ``points`` (P, 2): the means of equal buckets of neighbours."""
    if len(points) <= most:
        return points
    starts = np.linspace(0, len(points), most, endpoint=False).astype(np.int64)
    counts = np.diff(starts, append=len(points))
    return np.add.reduceat(points, starts) / counts[:, None]


def trend(name: str, points: Sequence[tuple[float, float]]) -> list[Line]:
    """A noisy series as two lines: its points, pale, and their means over longer stretches."""
    if len(points) <= TREND_POINTS:
        return [Line(name, points)]
    means = downsample(np.array(points, dtype=np.float64), min(TREND_POINTS, len(points) // 10))
    return [Line(name, points, "noise"), Line(name, [(x, y) for x, y in means.tolist()])]


def _axis(values: NDArray[np.float64], *, most: int, padded: bool) -> tuple[list[float], float, float]:
    """Round ticks, and the lowest and highest value shown; a padded axis begins and ends at a tick."""
    low, high = float(values.min()), float(values.max())
    if high - low <= max(FLAT * max(abs(low), abs(high)), MIN_SPREAD):
        margin = max(abs(high) * 0.1, 0.5 if padded else 1)
        low, high = low - margin, high + margin
    step = _round_step((high - low) / most)
    if not padded:
        step = max(step, 1.0)
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = [step * index for index in range(first, last + 1)]
    if padded:
        return ticks, ticks[0], ticks[-1]
    return [tick for tick in ticks if low <= tick <= high], low, high


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _draw(line: Line, across: NDArray[np.float64], down: NDArray[np.float64]) -> DrawnLine:
    spots = [(round(x, 1), round(y, 1)) for x, y in zip(across.tolist(), down.tolist(), strict=True)]
    path = "M" + "L".join(f"{x} {y}" for x, y in spots)
    few = line.style in ("main", "side") and len(spots) <= TREND_POINTS / 2
    return DrawnLine(line.name, line.style, line.colour, path, spots if few else [])


def _describe(line: Line) -> str:
    (first, start), (last, end) = line.points[0], line.points[-1]
    if line.style == "baseline":
        return f"{line.name} {end:.3g}"
    values = [value for _, value in line.points]
    span = f"from {start:.3g} at step {first:,.0f} to {end:.3g} at step {last:,.0f}"
    return f"{line.name} {span}, lowest {min(values):.3g}, highest {max(values):.3g}"
