"""Lines over training steps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyhead.report.charts.canvas import (
    COLOURS,
    DASHES,
    FONT,
    LINE,
    SOFT,
    WIDTH,
    Chart,
    canvas,
    compact,
    dots,
    legend,
    legend_columns,
    short,
    width_of,
)

MAX_POINTS = 240
"""Points a line is drawn with at most; more are averaged in buckets."""
TREND_POINTS = 40
"""Points of the bold line through a noisy one, at most; each is the mean of ten values at least."""
MAX_LINES = 12
"""Lines a chart shows at most; more could not be told apart."""

FLAT, MIN_SPREAD = 1e-6, 1e-100
"""A spread below this share of the values, or below this at all, is drawn as a flat line."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One line to draw: main, noise (a pale line beneath), side or baseline."""

    name: str
    points: Points
    style: str = "main"
    colour: int = 0


def line_chart(
    key: str,
    title: str,
    lines: Sequence[Line],
    *,
    span: tuple[int, int] | None = None,
    stages: Mapping[str, int] | None = None,
    best: float | None = None,
) -> Chart | None:
    """Draw ``lines`` over steps; None without a point.

    Args:
        key: Name of its file.
        title: What the values are.
        lines: Drawn in order, so the last lies on top; of very many, the first.
        span: First and last step the axis shows at least, so that charts of one run line up.
        stages: Stage to the step it begins at: a vertical line each, from the second on.
        best: Step of the best checkpoint: a vertical line.
    """
    lines = [line for line in lines if len(line.points)][:MAX_LINES]
    if not lines:
        return None
    columns = [downsample(np.array(line.points, dtype=np.float64), MAX_POINTS) for line in lines]
    everything = np.concatenate(columns)
    x_ticks, x_low, x_high = ticks(np.append(everything[:, 0], span or ()), most=6, padded=False)
    y_ticks, y_low, y_high = ticks(everything[:, 1], most=5, padded=True)
    y_texts = [compact(tick) for tick in y_ticks]
    marks = [(step, short(name, 16)) for name, step in list((stages or {}).items())[1:]]
    marks += [] if best is None else [(best, "best")]
    marks = [(step, text) for step, text in marks if x_low <= step <= x_high]

    names = [short(line.name, 28) for line in lines if line.style != "noise"]
    per_row = legend_columns(names, WIDTH - 40)
    rows = math.ceil(len(names) / per_row) if len(names) > 1 else 0
    top = 12 + rows * 15 + (14 if marks else 0)
    with canvas(168 + top + 36, left=width_of(y_texts) + 10, top=top, bottom=36) as (figure, axes):
        axes.set_xlim(x_low, x_high)
        axes.set_ylim(y_low, y_high)
        axes.set_xticks(x_ticks, [compact(tick) for tick in x_ticks])
        axes.set_yticks(y_ticks, y_texts)
        axes.set_xlabel("step", loc="right", labelpad=2)
        axes.spines["left"].set_visible(False)
        for tick in y_ticks:
            axes.plot([x_low, x_high], [tick, tick], color=LINE, linewidth=1, zorder=0, clip_on=False)
        for step, text in marks:
            axes.plot([step, step], [y_low, y_high], color=SOFT, linewidth=1, dashes=(2, 3), zorder=1, clip_on=False)
            side = "right" if step > x_low + 0.8 * (x_high - x_low) else "left"
            axes.annotate(text, (step, y_high), xytext=(0, 3), textcoords="offset points", ha=side, fontsize=FONT - 1)
        for line, points in zip(lines, columns, strict=True):
            axes.plot(
                *points.T,
                **_look(line),
                clip_on=False,
                label=short(line.name, 28) if rows and line.style != "noise" else None,
            )
            if line.style in ("main", "side") and len(points) <= TREND_POINTS / 2:
                dots(axes, *points.T, colour=COLOURS[line.colour % len(COLOURS)], size=5)
        if rows:
            legend(axes, columns=per_row, above=(14 if marks else 0) / 168)
    said = "; ".join(_describe(line) for line in lines if line.style != "noise")
    return Chart(key, title, f"{said}.", figure)


def downsample(points: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """At most ``most`` rows of ``points`` (P, 2): the means of equal buckets of neighbours."""
    if len(points) <= most:
        return points
    starts = np.linspace(0, len(points), most, endpoint=False).astype(np.int64)
    counts = np.diff(starts, append=len(points))
    return np.add.reduceat(points, starts) / counts[:, None]


def trend(name: str, points: Points, colour: int = 0) -> list[Line]:
    """A noisy series as two lines: its points, pale, and their means over longer stretches."""
    if len(points) <= TREND_POINTS:
        return [Line(name, points, "main", colour)]
    means = downsample(np.array(points, dtype=np.float64), max(2, min(TREND_POINTS, len(points) // 10)))
    return [Line(name, points, "noise", colour), Line(name, [(x, y) for x, y in means.tolist()], "main", colour)]


def ticks(values: NDArray[np.float64], *, most: int, padded: bool) -> tuple[list[float], float, float]:
    """Round ticks, and the lowest and highest value shown; a padded axis begins and ends at a tick."""
    low, high = float(values.min()), float(values.max())
    if high - low <= max(FLAT * max(abs(low), abs(high)), MIN_SPREAD):
        margin = max(abs(high) * 0.1, 0.5 if padded else 1)
        low, high = low - margin, high + margin
    step = _round_step((high - low) / most)
    if not padded:
        step = max(step, 1.0)
    first, last = math.floor(low / step), math.ceil(high / step)
    found = [step * index for index in range(first, last + 1)]
    if padded:
        return found, found[0], found[-1]
    return [tick for tick in found if low <= tick <= high], low, high


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _look(line: Line) -> dict[str, Any]:
    colour = COLOURS[line.colour % len(COLOURS)]
    dash = DASHES[line.colour % len(DASHES)]
    return {
        "main": {"color": colour, "linewidth": 1.8, "linestyle": dash if line.colour else "-"},
        "noise": {"color": colour, "linewidth": 1, "alpha": 0.3, "zorder": 1.5},
        "side": {"color": colour, "linewidth": 1.3, "linestyle": dash},
        "baseline": {"color": SOFT, "linewidth": 1.2, "linestyle": (0, (1, 2.5))},
    }[line.style]


def _describe(line: Line) -> str:
    (first, start), (last, end) = line.points[0], line.points[-1]
    if line.style == "baseline":
        return f"{line.name} {end:.3g}"
    values = [value for _, value in line.points]
    span = f"from {start:.3g} at step {first:,.0f} to {end:.3g} at step {last:,.0f}"
    return f"{line.name} {span}, lowest {min(values):.3g}, highest {max(values):.3g}"
