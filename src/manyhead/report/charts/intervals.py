"""Values with their intervals, one a line."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from manyhead.report.charts.canvas import COLOURS, FONT, INK, LINE, SOFT, WIDTH, Chart, canvas, compact, dots, short
from manyhead.report.charts.curves import ticks
from manyhead.report.text import decimal

ROW = 26
NAME_CHARACTERS = 20


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
    names = [short(row.name, NAME_CHARACTERS) for row in rows]
    left = 12 + max(len(name) for name in names) * 0.56 * FONT
    has_reference = line is not None or any(row.baseline is not None for row in rows)
    top = 24 if has_reference else 8
    height = ROW * len(rows)
    with canvas(height + top + 26, left=left, right=46, top=top, bottom=26) as (figure, axes):
        axes.set_xlim(low, high)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks(x_ticks, [compact(tick) for tick in x_ticks])
        axes.set_yticks(range(len(rows)), names, color=INK)
        axes.spines[["left", "bottom"]].set_visible(False)
        for tick in x_ticks:
            axes.plot([tick, tick], [-0.5, len(rows) - 0.5], color=LINE, linewidth=1, zorder=0, clip_on=False)
        if line is not None:
            axes.plot([line, line], [-0.5, len(rows) - 0.5], color=COLOURS[1], linewidth=1.5, zorder=1, clip_on=False)
        for place, row in enumerate(rows):
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [place, place], color=COLOURS[0], linewidth=2, clip_on=False)
            if row.baseline is not None:
                ends = (place - 0.3, place + 0.3)
                axes.plot([row.baseline] * 2, ends, color=COLOURS[1], linewidth=2, zorder=2.5, clip_on=False)
            axes.annotate(
                decimal(row.value), (1, place), xycoords=("axes fraction", "data"), xytext=(8, 0),
                textcoords="offset points", va="center", color=INK,
            )  # fmt: skip
        dots(axes, [row.value for row in rows], range(len(rows)), colour=COLOURS[0], size=8)
        if has_reference:
            _key(axes, reference, WIDTH - left - 46, height)
    return Chart(key, title, "; ".join(row.describe() for row in rows) + ".", figure)


def _key(axes, reference: str, width: float, height: float) -> None:
    """What the strokes mean, above the rows."""
    axes.annotate(
        f"|  {reference}", (0, 1), xycoords="axes fraction", xytext=(0, 6), textcoords="offset points", color=COLOURS[1]
    )
