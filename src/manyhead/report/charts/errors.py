"""Where predictions go wrong: counts of classes, scatter of scores, reliability of probabilities, maps of sentences."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from manyhead.report.charts.canvas import (
    COLOURS,
    FONT,
    GROUND,
    INK,
    LINE,
    SOFT,
    WIDTH,
    Chart,
    canvas,
    compact,
    dots,
    legend,
    short,
    width_of,
)
from manyhead.report.charts.curves import ticks
from manyhead.report.text import percent

Bin = tuple[int, float, float]
"""Examples, their mean confidence, and the share of them that is right."""

MAX_BARS = 24
NAME_CHARACTERS = 18


def confusion_chart(key: str, title: str, names: Sequence[str], counts: Sequence[Sequence[int]]) -> Chart:
    """Counts (C, C), a row a target, a column a prediction; shades are shares of the row."""
    size = len(names)
    shown = [short(name, NAME_CHARACTERS) for name in names]
    left, cell = width_of(shown) + 30, max(26.0, min(46.0, (WIDTH - 160) / size))
    slanted = max(map(len, shown)) * 0.58 * FONT > cell
    bottom = (width_of(shown) * 0.72 if slanted else 14) + 34
    height, width = cell * size, cell * 1.25 * size
    with canvas(height + bottom + 8, width=left + width + 12, left=left, right=12, top=8, bottom=bottom) as (
        figure,
        axes,
    ):
        axes.set_xlim(-0.5, size - 0.5)
        axes.set_ylim(size - 0.5, -0.5)
        axes.set_xticks(range(size), shown, rotation=45 if slanted else 0, ha="right" if slanted else "center")
        axes.set_yticks(range(size), shown)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("target")
        for row, of_row in enumerate(counts):
            total = sum(of_row) or 1
            for column, count in enumerate(of_row):
                left, right, shade = column - 0.48, column + 0.48, 0.05 + 0.9 * count / total
                box = axes.fill_between(
                    [left, right], row - 0.48, row + 0.48, color=COLOURS[0], alpha=shade, linewidth=0
                )
                box.set_clip_on(False)
                colour = GROUND if count / total > 0.55 else INK
                axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=FONT - 1)
    said = "; ".join(
        f"{name}: " + ", ".join(f"{count:,} as {other}" for other, count in zip(names, row, strict=True) if count)
        for name, row in zip(names, counts, strict=True)
    )
    return Chart(key, title, f"{said}.", figure)


def distribution_chart(
    key: str, title: str, names: Sequence[str], true: Sequence[int], predicted: Sequence[int]
) -> Chart:
    """How often each class, or bucket of scores, is the target and is predicted; of very many, the commonest."""
    places = sorted(range(len(names)), key=lambda place: -(true[place] + predicted[place]))[:MAX_BARS]
    places.sort()
    shown = [short(names[place], NAME_CHARACTERS) for place in places]
    left, row = width_of(shown) + 12, 34
    with canvas(row * len(places) + 26, left=left, right=50, top=22, bottom=4) as (figure, axes):
        axes.set_xlim(0, max(1, *true, *predicted))
        axes.set_ylim(len(places) - 0.5, -0.5)
        axes.set_yticks(range(len(places)), shown, color=INK)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.spines["left"].set_color(LINE)
        for shift, counts, colour, label in (
            (-0.19, true, COLOURS[5], "target"),
            (0.19, predicted, COLOURS[0], "predicted"),
        ):
            at = np.arange(len(places)) + shift
            values = [counts[place] for place in places]
            axes.barh(at, values, height=0.34, color=colour, label=label, linewidth=0, clip_on=False)
            for y, value in zip(at, values, strict=True):
                axes.annotate(
                    f"{value:,}",
                    (value, y),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=FONT - 1.5,
                )
        legend(axes, columns=2)
    said = "; ".join(f"{names[place]}: {true[place]:,} targets, {predicted[place]:,} predicted" for place in places)
    left_out = len(names) - len(places)
    return Chart(key, title, said + (f"; {left_out} rarer ones are not drawn." if left_out else "."), figure)


def scatter_chart(
    key: str,
    title: str,
    targets: ArrayLike,
    predictions: ArrayLike,
    *,
    bounds: tuple[float, float] | None,
    of: int,
) -> Chart:
    """Predicted scores over targets, with the line of those that are right."""
    x, y = np.asarray(targets, np.float64), np.asarray(predictions, np.float64)
    everything = np.concatenate([x, y, np.array(bounds or (), np.float64)])
    marks, low, high = ticks(everything, most=5, padded=True)
    texts = [compact(mark) for mark in marks]
    side = 232
    with canvas(side + 46, left=width_of(texts) + 28, right=WIDTH - side - width_of(texts) - 28, top=8, bottom=38) as (
        figure,
        axes,
    ):
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_xticks(marks, texts)
        axes.set_yticks(marks, texts)
        axes.set_xlabel("target")
        axes.set_ylabel("predicted")
        axes.spines[["left", "bottom"]].set_color(LINE)
        axes.plot([low, high], [low, high], color=SOFT, linewidth=1, linestyle=(0, (4, 3)), clip_on=False)
        dots(axes, x, y, colour=COLOURS[0], size=4.5, alpha=0.35 if len(x) > 150 else 0.6)
    shown = f"{len(x):,} of {of:,} examples" if len(x) < of else f"{of:,} examples"
    off = np.abs(y - x)
    half, most = np.median(off), np.quantile(off, 0.9)
    said = f"{shown}; half of them are off by {half:.2f} or less, a tenth by more than {most:.2f}."
    return Chart(key, title, said, figure)


def reliability_chart(key: str, title: str, bins: Sequence[Bin], ece: float, before: Sequence[Bin] = ()) -> Chart:
    """Share that is right over mean confidence of each bin, without empty ones.

    ``before`` are the bins without the fitted temperature, where there is one.
    """
    side, marks = 220, [0, 0.25, 0.5, 0.75, 1]
    texts = [f"{mark:g}" for mark in marks]
    with canvas(side + 60, left=54, right=WIDTH - side - 54, top=22, bottom=38) as (figure, axes):
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xticks(marks, texts)
        axes.set_yticks(marks, texts)
        axes.set_xlabel("probability of the predicted class")
        axes.set_ylabel("share that is right")
        axes.spines[["left", "bottom"]].set_color(LINE)
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (4, 3)), clip_on=False)
        total = sum(n for n, _, _ in bins) or 1
        for n, sure, right in bins:
            axes.plot([sure, sure], [sure, right], color=COLOURS[0], alpha=0.35, linewidth=2, clip_on=False)
            dots(axes, [sure], [right], colour=COLOURS[0], size=4 + 10 * (n / total) ** 0.5)
        if before:
            _, x, y = zip(*before, strict=True)
            axes.plot(x, y, color=COLOURS[1], linewidth=1.5, linestyle=(0, (5, 2)), clip_on=False, label="before")
            dots(axes, x, y, colour=COLOURS[1], size=4)
            axes.plot([], [], color=COLOURS[0], linewidth=4, label="at its temperature")
            legend(axes, columns=2)
    said = "; ".join(
        f"{n:,} examples, sure by {percent(sure)} on average: {percent(right)} right" for n, sure, right in bins
    )
    return Chart(key, title, f"Expected calibration error {ece:.3f}. {said}.", figure)


def map_chart(key: str, title: str, points: ArrayLike, groups: Sequence[int], names: Sequence[str]) -> Chart:
    """Points (E, 2), coloured by group, an index into ``names``; of more groups than colours, the rest is grey."""
    places, of = np.asarray(points, np.float64), np.asarray(groups)
    low, high = places.min(0), places.max(0)
    spread = np.where(high > low, high - low, 1)
    places = (places - (low + high) / 2) / spread.max()
    rows = -(-min(len(names), len(COLOURS)) // 3)
    top = 8 + 15 * rows
    with canvas(250 + top, left=8, right=8, top=top, bottom=8) as (figure, axes):
        extent = np.abs(places).max(0) * 1.04 + 1e-9
        axes.set_xlim(-extent[0], extent[0])
        axes.set_ylim(-extent[1], extent[1])
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set(visible=True, color=LINE)
        for group, name in enumerate(names):
            colour = COLOURS[group] if group < len(COLOURS) else LINE
            dots(axes, *places[of == group].T, colour=colour, size=4.5, alpha=0.7)
            if group < len(COLOURS):
                axes.plot([], [], color=colour, linewidth=5, label=short(name, 16))
        legend(axes, columns=3)
    said = "; ".join(f"{name}: {int((of == group).sum()):,}" for group, name in enumerate(names))
    return Chart(key, title, f"{len(of):,} examples, each a point; {said}.", figure)
