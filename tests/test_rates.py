"""Rates as functions of the step."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyhead.rates import (
    ConstantRate,
    CosineRate,
    HalvedRate,
    LinearRate,
    build_constant,
    build_cosine,
    build_halved,
    build_linear,
)


def test_halved_each_epoch() -> None:
    rate = build_halved(HalvedRate(), 30, 10)
    assert [rate(step) for step in (0, 9, 10, 19, 20, 29)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_constant_is_one_after_a_rise() -> None:
    rate = build_constant(ConstantRate(warmup=4), 30, 10)
    assert [rate(step) for step in range(6)] == [0.2, 0.4, 0.6, 0.8, 1, 1]


@given(total=st.integers(2, 500), warmup=st.floats(0, 0.9))
def test_falling_rates_rise_to_one_and_fall_towards_zero(total: int, warmup: float) -> None:
    for rate in (
        build_linear(LinearRate(warmup=warmup), total, 1),
        build_cosine(CosineRate(warmup=warmup), total, 1),
    ):
        values = [rate(step) for step in range(total)]
        start = round(warmup * total)
        assert values[:start] == sorted(values[:start])
        assert values[start:] == sorted(values[start:], reverse=True)
        assert all(0 < value <= 1 for value in values)
        assert start == total or math.isclose(values[start], 1)
        assert rate(total) == pytest.approx(0, abs=1e-12)


def test_linear_and_cosine_meet_half_way() -> None:
    assert build_linear(LinearRate(), 100, 1)(50) == pytest.approx(0.5)
    assert build_cosine(CosineRate(), 100, 1)(50) == pytest.approx(0.5)
