import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyhead.report.charts.canvas import COLOURS, Chart
from manyhead.report.charts.curves import MAX_POINTS, TREND_POINTS, Line, downsample, line_chart, ticks, trend
from manyhead.report.charts.errors import (
    confusion_chart,
    distribution_chart,
    map_chart,
    reliability_chart,
    scatter_chart,
)
from manyhead.report.charts.intervals import Row, interval_chart

series = st.lists(st.floats(-1e99, 1e99) | st.floats(0, 3), min_size=1, max_size=60)


def every_chart() -> list[Chart]:
    """One of each kind, with names that are markup, formulas, foreign or long."""
    names = ["a<b>&\"'", "$x^2$", "\u6f22\u5b57\u202e", "a rather long name of a class"]
    charts = [
        line_chart("a", "<t>", [Line(name, [(0, 1), (5, 2)], "main", place) for place, name in enumerate(names)]),
        interval_chart("b", "t", [Row(names[0], 0.5, 0.4, 0.7, 0.3), Row(names[1], 0.2)], line=0.1),
        confusion_chart("c", "t", names, np.arange(16).reshape(4, 4).tolist()),
        distribution_chart("d", "t", names, [0, 1, 2, 3], [3, 2, 1, 0]),
        scatter_chart("e", "t", [0, 1, 5], [0.5, 7, -1], bounds=(0, 5), of=9),
        reliability_chart("f", "t", [(3, 0.5, 0.6), (9, 0.9, 0.7)], 0.12, [(12, 0.8, 0.6)]),
        map_chart("g", "t", [[0, 0], [1, 1], [2, 0]], [0, 1, 3], names),
    ]
    return [chart for chart in charts if chart is not None]


def spots(svg: str) -> np.ndarray:
    """All corners of all paths (P, 2)."""
    paths = re.findall(' d="([^"]*)"', svg)
    return np.array([spot.split() for path in paths for spot in re.findall(r"[-\d.]+ [-\d.]+", path)], np.float64)


@settings(max_examples=15)
@given(series)
def test_everything_drawn_lies_inside_the_picture(values: list[float]) -> None:
    chart = line_chart(
        "loss", "t", [Line("loss", list(enumerate(values)))], stages={"a": 0, "b": 5}, best=len(values) - 1
    )
    assert chart is not None
    box = re.search('viewBox="0 0 ([^ ]+) ([^"]+)"', chart.svg)
    assert box is not None
    found = spots(chart.svg)
    assert (found >= -0.1).all()
    assert (found <= np.array([float(box[1]), float(box[2])]) + 0.1).all()


@given(series, st.integers(3, 8), st.booleans())
def test_ticks_are_round_few_and_around_the_values(values: list[float], most: int, padded: bool) -> None:
    found, low, high = ticks(np.array(values), most=most, padded=padded)
    assert low < high
    assert low <= min(values)
    assert max(values) <= high
    assert len(found) <= most + 3
    assert (np.diff(found) > 0).all()
    if padded:
        assert (found[0], found[-1]) == (low, high)


def test_a_chart_for_the_page_has_no_ids_and_no_colours_of_its_own() -> None:
    for chart in every_chart():
        svg = chart.svg
        assert svg.startswith('<svg class="chart" viewBox=')
        assert 'role="img"' in svg
        assert not re.search(r"\bid=|url\(|href|<use|<style|#[0-9a-f]{6}|font-family|<image", svg)
        assert "var(--" in svg
        assert "<b>" not in svg
        assert "\u202e" not in svg
        assert len(svg) < 20_000


def test_texts_stay_text_and_are_not_read_as_formulas() -> None:
    chart = distribution_chart("d", "t", ["$x^2$", "a<b>"], [1, 2], [3, 4])
    assert ">$x^2$</text>" in chart.svg
    assert ">a&lt;b&gt;</text>" in chart.svg


def test_a_chart_says_its_numbers() -> None:
    assert "a: 1 as a, 2 as b; b: 4 as b" in confusion_chart("c", "t", ["a", "b"], [[1, 2], [0, 4]]).svg
    chart = interval_chart("i", "t", [Row("sst", 0.5, 0.4, 0.6, 0.2)])
    assert chart is not None
    assert "sst 0.500 (0.400 to 0.600), against 0.200" in chart.svg


def test_the_same_numbers_give_the_same_chart() -> None:
    assert [chart.svg for chart in every_chart()] == [chart.svg for chart in every_chart()]


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_chart_as_a_file_has_its_real_colours_and_the_same_bytes_again(tmp_path: Path, ending: str) -> None:
    first, second = every_chart()[3], every_chart()[3]
    first.save(tmp_path / f"a.{ending}")
    second.save(tmp_path / f"b.{ending}")
    content = (tmp_path / f"a.{ending}").read_bytes()
    assert content == (tmp_path / f"b.{ending}").read_bytes()
    assert ending == "png" or COLOURS[0].encode() in content


def test_a_chart_without_points_is_none() -> None:
    assert line_chart("loss", "t", []) is None
    assert line_chart("loss", "t", [Line("loss", [])]) is None
    assert interval_chart("i", "t", []) is None


def test_marks_show_later_stages_and_the_best_step_inside_the_span() -> None:
    points = [(step, 1.0) for step in range(10, 20)]
    chart = line_chart("a", "t", [Line("loss", points)], span=(0, 30), stages={"a": 1, "b": 15, "c": 99}, best=30)
    assert chart is not None
    texts = re.findall(">([^<]+)</text>", chart.svg)
    assert [text for text in texts if text in ("a", "b", "c", "best")] == ["b", "best"]


@given(st.integers(1, 3000), st.integers(1, 700))
def test_downsampling_averages_equal_buckets(rows: int, most: int) -> None:
    steps = np.arange(rows, dtype=np.float64)
    points = np.stack([steps, np.sin(steps)], axis=1)
    found = downsample(points, most)
    assert len(found) == min(rows, most)
    assert (np.diff(found[:, 0]) > 0).all()
    if rows % most == 0:
        assert np.allclose(found, points.reshape(-1, rows // most, 2).mean(1) if rows > most else points)


def test_a_noisy_line_gets_a_trend_and_a_short_one_does_not() -> None:
    points = [(step, float(step % 2)) for step in range(5000)]
    pale, bold = trend("loss", points)
    assert (pale.style, bold.style) == ("noise", "main")
    assert len(bold.points) == TREND_POINTS
    assert all(value == pytest.approx(0.5, abs=0.01) for _, value in bold.points)
    chart = line_chart("loss", "t", [pale, bold])
    assert chart is not None
    assert max(path.count("L") for path in re.findall(' d="([^"]*)"', chart.svg)) == MAX_POINTS - 1
    assert [line.style for line in trend("loss", points[:TREND_POINTS])] == ["main"]
