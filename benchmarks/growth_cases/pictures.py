"""The curves of `growth.py` as pictures."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.dpi": 150,
}
LINES = (("#123a63", "o", "-"), ("#e07b00", "s", "--"), ("#bcd6e6", "^", ":"))
"""Colour, marker and stroke of each line: dark, middling and light in grey."""

Part = Callable[[Axes, Mapping[str, Any]], None]


def draw(curves: Mapping[str, Any], folder: Path) -> None:
    """Writes one picture for each curve into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, curve in curves.items():
            _picture(folder / f"growth-{name}.png", curve, *PARTS[name])


def _picture(path: Path, curve: Mapping[str, Any], *parts: Part) -> None:
    """One part beside the other."""
    figure = Figure(figsize=(5.2 * len(parts), 3.4), layout="constrained")
    for place, part in enumerate(parts):
        part(figure.add_subplot(1, len(parts), place + 1), curve)
    figure.savefig(path, metadata={"Software": None})


def _rows(axes: Axes, curve: Mapping[str, Any]) -> None:
    _rates(axes, curve)
    _logarithmic(axes, curve)
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right")


def _length(axes: Axes, curve: Mapping[str, Any]) -> None:
    _rates(axes, curve)
    _logarithmic(axes, curve)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(_number))
    axes.yaxis.set_minor_locator(NullLocator())


def _tokens(axes: Axes, curve: Mapping[str, Any]) -> None:
    _rates(axes, curve, "tokens_per_second", "tokens a second")
    _logarithmic(axes, curve)
    axes.set_ylim(bottom=0)


def _tasks(axes: Axes, curve: Mapping[str, Any]) -> None:
    _rates(axes, curve)
    axes.set_xticks(_all_values(curve))
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right")


def _memory(axes: Axes, curve: Mapping[str, Any]) -> None:
    for (line, points), style in zip(curve["lines"].items(), LINES, strict=False):
        colour, marker, stroke = style
        peaks = [point["peak_mib"] for point in points]
        axes.plot(_values(points), peaks, color=colour, marker=marker, linestyle=stroke, label=line)
    axes.set_xlabel(curve["title"])
    axes.set_ylabel("peak memory of the process, MiB")
    axes.yaxis.set_major_formatter(FuncFormatter(_number))
    axes.set_xticks(_all_values(curve))
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right")


def _batch(axes: Axes, curve: Mapping[str, Any]) -> None:
    _rates(axes, curve)
    _logarithmic(axes, curve)
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right")


def _processes(axes: Axes, curve: Mapping[str, Any]) -> None:
    lines = curve["lines"]
    values = _all_values(curve)
    width = 0.8 / len(lines)
    for place, (line, points) in enumerate(lines.items()):
        rates, errors = _medians(points, "examples_per_second")
        at = [group + (place - (len(lines) - 1) / 2) * width for group in range(len(values))]
        colour = LINES[place][0]
        axes.bar(at, rates, 0.92 * width, yerr=errors, color=colour, ecolor="#555555", capsize=2, label=line)
    axes.set_xticks(range(len(values)), [f"{value:,}" for value in values])
    axes.grid(axis="x", visible=False)
    axes.set_xlabel(curve["title"])
    axes.set_ylabel("examples a second, in all")
    axes.set_ylim(top=1.45 * max(axes.get_ylim()))
    axes.legend(loc="upper left")


def _rates(
    axes: Axes, curve: Mapping[str, Any], what: str = "examples_per_second", label: str = "examples a second"
) -> None:
    """Each line's medians, with quartiles as bars."""
    for (line, points), style in zip(curve["lines"].items(), LINES, strict=False):
        colour, marker, stroke = style
        rates, errors = _medians(points, what)
        axes.errorbar(
            _values(points), rates, yerr=errors, color=colour, marker=marker, linestyle=stroke, capsize=2, label=line
        )
    axes.set_xlabel(curve["title"])
    axes.set_ylabel(label)
    axes.yaxis.set_major_formatter(FuncFormatter(_number))


def _medians(points: Any, what: str) -> tuple[list[float], list[list[float]]]:
    """Medians, and how far the quartiles are below and above them."""
    found = [point[what] for point in points]
    below = [each["median"] - each["low_quartile"] for each in found]
    above = [each["high_quartile"] - each["median"] for each in found]
    return [each["median"] for each in found], [below, above]


def _logarithmic(axes: Axes, curve: Mapping[str, Any]) -> None:
    """A logarithmic axis of values with the measured ones as ticks."""
    axes.set_xscale("log")
    axes.set_xticks(_all_values(curve), [f"{value:,}" for value in _all_values(curve)])
    axes.xaxis.set_minor_locator(NullLocator())


def _values(points: Any) -> list[int]:
    return [point["value"] for point in points]


def _all_values(curve: Mapping[str, Any]) -> list[int]:
    return sorted({value for points in curve["lines"].values() for value in _values(points)})


def _number(value: float, place: int | None) -> str:
    del place
    return f"{value:,.0f}"


PARTS: dict[str, tuple[Part, ...]] = {
    "rows": (_rows,),
    "length": (_length, _tokens),
    "tasks": (_tasks,),
    "memory": (_memory,),
    "batch": (_batch,),
    "processes": (_processes,),
}
