"""What all charts share: measures, colours, a figure to draw on, and the drawing as SVG for the page or as a file.

One unit of a figure (1/72 inch) is one unit of the SVG's view box, so sizes read as CSS pixels. Nothing is clipped and
no markers are used: both need ids in SVG, which would collide between the charts of a page.
"""

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from numpy.typing import ArrayLike

from manyhead.report.text import visible

WIDTH = 360
FONT = 11.5
_CHARACTER = 0.58 * FONT
"""Width of a character, on average."""

INK, SOFT, LINE, GROUND = "#1c2126", "#5b6570", "#dfe3e8", "#fefefe"
COLOURS = ("#0a69a6", "#c4530b", "#0b8664", "#a3478a", "#86690a", "#4c5a68")
"""Apart for all kinds of colour vision, and each at 4:1 on white at least."""
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.8)), (0, (7, 2, 1.5, 2)), (0, (3, 1.2)), (0, (9, 3)))
_VARIABLES = {INK: "ink", SOFT: "soft", LINE: "line", GROUND: "ground"} | {
    colour: f"c{index}" for index, colour in enumerate(COLOURS)
}

_STYLE: Any = {
    "font.size": FONT,
    "text.color": SOFT,
    "text.parse_math": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "path.simplify": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "manyhead",
}
_COLOUR = re.compile("#[0-9a-f]{6}")
_NUMBER = re.compile(r"-?\d+\.\d+")
_PLAIN = {"stroke-dashoffset": "0", "stroke-linejoin": "miter", "stroke-linecap": "square", "text-anchor": "start"}
"""Properties that change nothing that is seen here."""


@dataclass(frozen=True)
class Chart:
    """A drawn chart. ``key`` names its file, ``description`` says its numbers in words."""

    key: str
    title: str
    description: str
    figure: Figure

    @cached_property
    def svg(self) -> Markup:
        """The chart for the page: its colours are the page's variables, its fonts the page's, its ids none."""
        with _drawing():
            file = io.StringIO()
            self.figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        drawing = _Drawing(file.getvalue())
        label = visible(f"{self.title}: {self.description}")
        inner = Markup("").join(drawing.parts)
        return Markup('<svg class="chart" viewBox="{}" role="img" aria-label="{}">{}</svg>').format(
            drawing.box, label, inner
        )

    def save(self, path: Path) -> None:
        """The chart as a file of its own, on white; the ending of ``path`` says which kind."""
        with _drawing():
            metadata: dict[str, Any] = {"Date": None} if path.suffix == ".svg" else {}
            self.figure.savefig(path, dpi=200, facecolor="white", metadata=metadata)


@contextmanager
def _drawing() -> Iterator[None]:
    """Our style; and fonts lacking a glyph are no matter, since the reader's own fonts draw the page's texts."""
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support", category=UserWarning)
        yield


@contextmanager
def canvas(
    height: float, *, left: float = 40, right: float = 18, top: float = 12, bottom: float = 34, width: float = WIDTH
) -> Iterator[tuple[Figure, Axes]]:
    """A figure and its axes inside margins, drawn on in our style."""
    with _drawing():
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        box = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
        yield figure, figure.add_axes(box)


def width_of(texts: Sequence[str]) -> float:
    """Room that the widest of ``texts`` takes."""
    return max((len(text) for text in texts), default=0) * _CHARACTER


def short(text: str, most: int = 20) -> str:
    """``text`` as it fits beside an axis, in characters that can be seen."""
    text = visible(text)
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def compact(value: float) -> str:
    """A number for an axis: 12,000 as 12k."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / min(size, 1e3) if unit == 'k' else value / size:.4g}{unit}".replace("-", "\u2212")
    return f"{value:.6g}".replace("-", "\u2212")


def dots(axes: Axes, x: ArrayLike, y: ArrayLike, *, colour: str, size: float = 5, alpha: float = 1.0) -> None:
    """Points as one path: strokes of next to no length, ended by round caps."""
    points = np.column_stack([np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)])
    if not len(points):
        return
    low, high = axes.get_xlim()
    ends = np.stack([points, points + np.array([1e-4 * (high - low), 0])], axis=1)
    outline = Outline(ends.reshape(-1, 2), np.tile([Outline.MOVETO, Outline.LINETO], len(points)))
    patch = PathPatch(outline, fill=False, edgecolor=colour, linewidth=size, alpha=alpha, capstyle="round", zorder=3)
    patch.set_clip_on(False)
    axes.add_patch(patch)


def legend(axes: Axes, *, columns: int, above: float = 0.0) -> None:
    """Names of the lines, ``above`` the axes by a share of their height."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0 + above),
        ncols=columns,
        frameon=False,
        fontsize=FONT,
        labelcolor=SOFT,
        handlelength=1.6,
        handletextpad=0.5,
        columnspacing=1.2,
        borderaxespad=0.2,
        labelspacing=0.25,
    )


def legend_columns(names: Sequence[str], width: float) -> int:
    """How many names fit beside each other."""
    return max(1, min(len(names), int(width / (width_of(names) + 34))))


class _Drawing(HTMLParser):
    """The paths and texts of matplotlib's SVG as the page has them, in order."""

    def __init__(self, svg: str) -> None:
        super().__init__(convert_charrefs=True)
        self.box = ""
        self.parts: list[Markup] = []
        self._text: dict[str, str] | None = None
        self.feed(svg)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "svg":
            self.box = found["viewbox"]
        elif tag == "path":
            self._add_path(found)
        elif tag == "text":
            self._text = found

    def handle_endtag(self, tag: str) -> None:
        if tag == "text":
            self._text = None

    def handle_data(self, data: str) -> None:
        if self._text is None or not data.strip():
            return
        turned = self._text.get("transform", "")
        turn = "" if re.match(r"rotate\(-?0(\.0)? ", turned) else _rounded(turned)
        x, y = (_rounded(f"{float(self._text.get(axis, 0)):.3f}") for axis in "xy")
        transform = Markup(' transform="{}"').format(turn) if turn else ""
        style = _styled(self._text)
        self.parts.append(Markup('<text x="{}" y="{}"{} style="{}">{}</text>').format(x, y, transform, style, data))

    def _add_path(self, found: Mapping[str, str]) -> None:
        style, data = _styled(found), " ".join(found.get("d", "").split())
        if data and style not in ("", "fill:none"):
            data = _rounded(data).replace(" L ", "L").replace("M ", "M").replace(" z", "z")
            self.parts.append(Markup('<path d="{}" style="{}"/>').format(data, style))


def _styled(element: Mapping[str, str]) -> str:
    """The style with the page's variables as colours, without what says nothing."""
    pairs = [pair.split(":", 1) for pair in element.get("style", "").split(";") if ":" in pair]
    kept = {name.strip(): value.strip() for name, value in pairs}
    style = ";".join(
        f"{name}:{value}" for name, value in kept.items() if _PLAIN.get(name) != value and name != "font-family"
    )
    return _COLOUR.sub(lambda found: f"var(--{_VARIABLES[found[0]]})" if found[0] in _VARIABLES else found[0], style)


def _rounded(text: str) -> str:
    return _NUMBER.sub(lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), text)
