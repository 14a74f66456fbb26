"""Requests that schemathesis draws from the server's own description, valid and not."""

import time
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from live import Live

SECONDS = 60


@pytest.mark.slow
def test_no_drawn_request_breaks_the_server_or_its_description(shared: Live) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    schemathesis.checks.load_all_checks()
    schema: Any = schemathesis.openapi.from_url(f"{shared.url}/openapi.json")
    modes = list(schemathesis.GenerationMode)
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) == 8
    cases = st.one_of(*(each.as_strategy(generation_mode=mode) for each in operations for mode in modes))
    statuses: dict[int, int] = {}
    end = time.monotonic() + SECONDS

    @settings(
        max_examples=3000,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    @given(case=cases)
    def draw(case: Any) -> None:
        if time.monotonic() > end:
            return
        response = case.call(timeout=30)
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
        hurried = response.status_code == 504 and "timeout" in (case.headers or {})
        assert response.status_code < 500 or hurried, (case.as_curl_command(), response.text)
        case.operation.validate_response(response)

    draw()
    assert sum(statuses.values()) >= 100
    assert {200, 422} <= statuses.keys()
