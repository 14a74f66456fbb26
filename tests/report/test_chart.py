import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyhead.report.chart import HEIGHT, MAX_POINTS, TREND_POINTS, WIDTH, Line, downsample, line_chart, trend

series = st.lists(st.floats(-1e99, 1e99) | st.floats(0, 3), min_size=1, max_size=60)


@given(series)
def test_everything_drawn_lies_inside_the_picture(values: list[float]) -> None:
    chart = line_chart("loss", [Line("loss", list(enumerate(values)))], stages={"a": 0, "b": 5}, best=len(values) - 1)
    assert chart is not None
    spots = [tuple(map(float, spot.split())) for spot in re.split("[ML]", chart.lines[0].path)[1:]]
    spots += [(x, chart.bottom) for x, _ in chart.x_ticks] + [(chart.left, y) for y, _ in chart.y_ticks]
    spots += [(x, chart.top) for x, _, _ in chart.marks]
    assert all(chart.left - 0.1 <= x <= chart.right + 0.1 for x, _ in spots)
    assert all(chart.top - 0.1 <= y <= chart.bottom + 0.1 for _, y in spots)
    assert 0 < chart.left < chart.right < WIDTH
    assert 0 < chart.top < chart.bottom < HEIGHT


@given(series)
def test_ticks_are_few_and_distinct(values: list[float]) -> None:
    chart = line_chart("loss", [Line("loss", [(7 * step, value) for step, value in enumerate(values)])])
    assert chart is not None
    assert 2 <= len(chart.y_ticks) <= 8
    assert 1 <= len(chart.x_ticks) <= 8
    assert len({text for _, text in chart.x_ticks}) == len(chart.x_ticks)
    assert len({text for _, text in chart.y_ticks}) == len(chart.y_ticks)


def test_higher_values_are_drawn_higher_and_ticks_agree_with_the_line() -> None:
    chart = line_chart("score", [Line("score", [(0, 0.0), (100, 1.0)])])
    assert chart is not None
    ticks = {text: y for y, text in chart.y_ticks}
    assert chart.lines[0].dots == [(chart.left, round(ticks["0"], 1)), (chart.right, round(ticks["1"], 1))]
    assert ticks["1"] < ticks["0"]


def test_a_chart_without_points_is_none() -> None:
    assert line_chart("loss", []) is None
    assert line_chart("loss", [Line("loss", [])]) is None


def test_marks_show_later_stages_and_the_best_step_inside_the_span() -> None:
    points = [(step, 1.0) for step in range(10, 20)]
    chart = line_chart("loss", [Line("loss", points)], span=(0, 30), stages={"a": 1, "b": 15, "c": 99}, best=30)
    assert chart is not None
    assert [(text, style) for _, text, style in chart.marks] == [("b", "stage"), ("best", "best")]
    assert chart.marks[0][0] == pytest.approx((chart.left + chart.right) / 2)


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
    chart = line_chart("loss", [pale, bold])
    assert chart is not None
    assert chart.lines[0].path.count("L") == MAX_POINTS - 1
    assert [line.style for line in trend("loss", points[:TREND_POINTS])] == ["main"]
