"""The affinity of tasks as a picture: a heat map of cosines, and one of each pair by layer."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from manyhead.files import writing
from manyhead.studies.affinity.affinity import Affinity

NAMES = ("affinity.svg", "affinity.png")

_COLOURS = "RdBu"
_DARK = 0.6
"""Cosines above it, in size, stand on a dark ground."""


def draw_affinity(affinity: Affinity) -> Figure:
    """Cosines between all tasks, with their intervals, beside those of each pair in each layer.

    Blue agrees, red conflicts. What noise hides is left white.
    """
    found, tasks, layers = affinity.estimates, affinity.tasks, affinity.gradients.layers
    pairs = [(one, other) for one in range(len(tasks)) for other in range(one + 1, len(tasks))]
    figure = Figure(figsize=(2.5 + 1.1 * len(tasks) + 0.7 * len(layers), 1.8 + 0.9 * len(tasks)), layout="constrained")
    whole, by_layer = figure.subplots(1, 2, width_ratios=[max(2, len(tasks)), max(2, len(layers))])
    notes = [
        [
            "" if one == other else f"{found.cosines_low[one, other]:.2f}\nto {found.cosines_high[one, other]:.2f}"
            for other in range(len(tasks))
        ]
        for one in range(len(tasks))
    ]
    image = _heat(whole, found.cosines, tasks, tasks, notes)
    whole.set_title("cosine of the tasks' gradients, 95 % interval")
    values = np.array([found.layer_cosines[:, one, other] for one, other in pairs])
    _heat(by_layer, values, [f"{tasks[one]}, {tasks[other]}" for one, other in pairs], layers, None)
    by_layer.set_title("by layer")
    figure.colorbar(image, ax=by_layer, label="cosine")
    return figure


def write_figures(affinity: Affinity, folder: Path) -> list[Path]:
    """Writes the picture as SVG and PNG into ``folder``; the same affinity always gives the same bytes."""
    with mpl.rc_context({"svg.hashsalt": "manyhead", "svg.fonttype": "none"}):
        figure = draw_affinity(affinity)
        paths = [folder / name for name in NAMES]
        with writing(str(folder)):
            figure.savefig(paths[0], metadata={"Date": None})
            figure.savefig(paths[1], dpi=150, metadata={"Software": None})
    return paths


def _heat(
    axes: Axes,
    values: NDArray[np.float64],
    rows: Sequence[str],
    columns: Sequence[str],
    notes: Sequence[Sequence[str]] | None,
) -> AxesImage:
    """A square for each number, ``notes`` below it."""
    image = axes.imshow(values, cmap=_COLOURS, vmin=-1, vmax=1, aspect="auto")
    axes.set_xticks(range(values.shape[1]), columns, rotation=45, ha="right")
    axes.set_yticks(range(values.shape[0]), rows)
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        text = "?" if np.isnan(value) else f"{value:.2f}"
        note = "" if notes is None or not notes[row][column] else f"\n{notes[row][column]}"
        colour = "white" if abs(value) > _DARK else "black"
        axes.text(column, row, text + note, ha="center", va="center", fontsize=8, color=colour)
    return image
