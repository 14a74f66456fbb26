"""Values with their intervals, one a line."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from manyhead.report.charts.canvas import COLOURS, GROUND, INK, LINE, Chart, canvas, compact, dots, short
from manyhead.report.charts.curves import ticks
from manyhead.report.text import decimal

ROW = 40
NAME_CHARACTERS = 40


@dataclass(frozen=True)
class Row:
    """One line: a value, its interval where there is one, and what it is held against."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    baseline: float | None = None

    def describe(self) -> str:
        """The line in words."""
        doubt = "" if self.low is None or self.high is None else f" ({decimal(self.low)} to {decimal(self.high)})"
        against = "" if self.baseline is None else f", against {decimal(self.baseline)}"
        return f"{self.name} {decimal(self.value)}{doubt}{against}"


def interval_chart(
    key: str, title: str, rows: Sequence[Row], *, line: float | None = None, reference: str = "majority baseline"
) -> Chart | None:
    """Points with intervals, and a tick where each row's baseline lies; None without a row.

    Args:
        key: Name of its file.
        title: What the values are.
        rows: From top to bottom.
        line: A value that all rows are held against: a vertical line.
        reference: What the rows' baselines, or ``line``, are.
    """
    if not rows:
        return None
    ends = [end for row in rows for end in (row.low, row.high, row.value, row.baseline, line) if end is not None]
    x_ticks, low, high = ticks(np.array(ends), most=5, padded=True)
    has_reference = line is not None or any(row.baseline is not None for row in rows)
    top, bottom = (22 if has_reference else 4), 24
    with canvas(ROW * len(rows) + top + bottom, left=16, right=16, top=top, bottom=bottom) as (figure, axes):
        axes.set_xlim(low, high)
        axes.set_ylim(len(rows) - 0.3, -0.7)
        axes.set_xticks(x_ticks, [compact(tick) for tick in x_ticks])
        axes.set_yticks([])
        axes.spines[["left", "bottom"]].set_visible(False)
        for tick in x_ticks:
            axes.plot([tick, tick], axes.get_ylim(), color=LINE, linewidth=1, zorder=0, clip_on=False)
        if line is not None:
            axes.plot([line, line], axes.get_ylim(), color=COLOURS[1], linewidth=1.5, zorder=1, clip_on=False)
        for place, row in enumerate(rows):
            _draw(axes, place, row)
        dots(axes, [row.value for row in rows], range(len(rows)), colour=COLOURS[0], size=8)
        if has_reference:
            at = {"xycoords": "axes fraction", "xytext": (0, 7), "textcoords": "offset points"}
            axes.annotate(f"|  {reference}", (0, 1), color=COLOURS[1], **at)
    return Chart(key, title, "; ".join(row.describe() for row in rows) + ".", figure)


def _draw(axes: Axes, place: int, row: Row) -> None:
    """A row: its name and value, and beneath them its interval and what it is held against."""
    if row.low is not None and row.high is not None:
        axes.plot([row.low, row.high], [place, place], color=COLOURS[0], linewidth=2, clip_on=False)
    if row.baseline is not None:
        axes.plot(
            [row.baseline] * 2, (place - 0.2, place + 0.2), color=COLOURS[1], linewidth=2, zorder=2.5, clip_on=False
        )
    for x, text, side in ((0, short(row.name, NAME_CHARACTERS), "left"), (1, decimal(row.value), "right")):
        axes.annotate(
            text, (x, place - 0.36), xycoords=("axes fraction", "data"), va="center", ha=side, color=INK,
            bbox={"facecolor": GROUND, "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
