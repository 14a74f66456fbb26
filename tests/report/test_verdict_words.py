from manyhead.report.verdict import Score, headline


def score(
    value: float | None, low: float | None, high: float | None, baseline: float | None = 0.5, **more: str
) -> Score:
    return Score(more.get("metric", "accuracy"), value, baseline, True, low, high, more.get("reason"))


def test_a_score_stands_where_the_baseline_lies() -> None:
    assert score(0.7, 0.6, 0.8).standing == "better"
    assert score(0.7, 0.4, 0.8).standing == "unclear"
    assert score(0.3, 0.2, 0.4).standing == "worse"
    assert score(0.7, None, None).standing == "unknown"
    assert score(0.2, 0.1, 0.3, metric="mse").standing == "better"
    assert score(0.9, 0.8, 1.1, metric="mse").standing == "worse"


def test_sentences_give_value_interval_and_baseline() -> None:
    assert score(0.7, 0.6, 0.8).sentence == (
        "accuracy is 0.700. Its 95\u00a0% interval, 0.600 to 0.800, lies above the majority baseline's 0.500."
    )
    assert "lies below the majority baseline's 0.500" in score(0.2, 0.1, 0.3, metric="mse").sentence
    assert "cannot be told from" in score(0.7, 0.4, 0.8).sentence
    assert "3 examples" in score(0.7, None, None, reason="3 examples tell too little").sentence
    assert score(None, None, None).sentence == "No accuracy is known."
    assert "not known" in score(0.7, None, None, None).sentence


def test_the_headline_names_the_tasks_by_standing() -> None:
    good, open_, bad, none = score(0.7, 0.6, 0.8), score(0.7, 0.4, 0.8), score(0.3, 0.2, 0.4), score(0.7, None, None)
    assert headline({}) == "No task is known of this run."
    assert headline({"a": good}).startswith("The task is better")
    assert headline({"a": good, "b": good}).startswith("Both tasks are better")
    assert headline({"a": good, "b": open_}) == "a is better than the majority baseline; b is not to be told from it."
    said = headline({"a": bad, "b": none})
    assert "a is worse than the majority baseline" in said
    assert "b is without an interval" in said
