"""What a task's errors look like: against sklearn and brute force, and of predictions that say little."""

import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scored_makers import classes, random_classes, scores
from sklearn.metrics import confusion_matrix

from manyhead.errors import UsageError
from manyhead.evaluation.errors.analysis import analyse
from manyhead.evaluation.errors.buckets import MOST_POINTS, bucket_edges, score_errors_of
from manyhead.evaluation.errors.confusion import confusion_of
from manyhead.evaluation.errors.labels import label_suspicions_of
from manyhead.evaluation.errors.mistakes import disagreements_of, mistakes_of
from manyhead.evaluation.errors.slices import FEWEST, memberships, slices_of
from manyhead.evaluation.errors.words import is_negation, is_question, numbers_in, overlap, words_of
from manyhead.evaluation.metrics import accuracy
from manyhead.evaluation.statistics.intervals import score_interval

HOSTILE = [
    "<script>alert(1)</script>",
    "&lt;b&gt; \"quoted\" 'single'",
    "\U0001f469\u200d\U0001f467 \U0001f525\U0001f525",
    "\u05e9\u05dc\u05d5\u05dd \u202eabc\u202c \u0645\u0631\u062d\u0628\u0627",
    "\ufffd\ufffd",
    "",
    "   \t ",
    "a\x00b\x07",
]


@pytest.mark.parametrize("size", [2, 5])
def test_counts_are_sklearns_and_rates_follow_from_them(size: int) -> None:
    scored = random_classes(2, 300, size)
    found = confusion_of(scored)
    expected = confusion_matrix(scored.targets, scored.values, labels=range(size))
    np.testing.assert_array_equal(found.counts, expected)
    assert list(found.true) == expected.sum(1).tolist()
    assert list(found.predicted) == expected.sum(0).tolist()
    assert found.right == pytest.approx(accuracy(scored.values, scored.targets))
    for rate in found.rates:
        k = scored.labels.index(rate.label)
        is_class, said = scored.targets == k, scored.values == k
        assert rate.false_positive_rate == pytest.approx(said[~is_class].mean())
        assert rate.false_negative_rate == pytest.approx(1 - said[is_class].mean())
    assert len(found.rates) == (1 if size == 2 else size)
    if size == 5:
        assert found.within_one == pytest.approx(np.mean(abs(scored.values - scored.targets) <= 1))


def test_a_class_that_does_not_occur_has_no_rate() -> None:
    found = confusion_of(classes([0, 0, 1], np.eye(3)[[0, 1, 1]]))
    assert found.rates[2].false_negative_rate is None
    assert found.rates[2].false_positive_rate == 0
    assert confusion_of(classes([1, 1], np.eye(2)[[0, 1]])).rates[0].false_positive_rate is None


def test_buckets_are_those_of_the_study() -> None:
    found = score_errors_of(scores([0.5, 1.0, 4.2, 5.0, 2.9], [-3.0, 0.99, 9.0, 4.0, 3.0]))
    assert [(each.low, each.high) for each in found.buckets] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    assert [each.true for each in found.buckets] == [1, 1, 1, 0, 2]
    assert [each.predicted for each in found.buckets] == [2, 0, 0, 1, 2]
    assert [each.right for each in found.buckets] == [1, 0, 0, None, 1]
    assert found.right == pytest.approx(3 / 5)
    assert found.clipped == 2
    assert found.within_one == 1.0
    residuals = np.array([-3.5, -0.01, 4.8, -1.0, 0.1])
    assert (found.bias, found.spread) == pytest.approx((residuals.mean(), residuals.std()))


@pytest.mark.parametrize(
    ("range", "edges"),
    [
        ((0, 5), [0, 1, 2, 3, 4, 5]),
        ((1, 3), [1, 2, 3]),
        ((0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ((0, 100), [0, 20, 40, 60, 80, 100]),
        ((-0.5, 4.5), [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5]),
        (None, [2, 3, 4, 5, 6, 7]),
    ],
)
def test_edges_of_buckets(range: Any, edges: list[float]) -> None:
    assert bucket_edges(scores([2, 7], [0, 0], range=range)) == pytest.approx(edges)


@given(
    st.lists(st.tuples(st.floats(-10, 10), st.floats(-1e6, 1e6)), min_size=1, max_size=40),
    st.sampled_from([None, (0.0, 5.0), (-10.0, 10.0)]),
)
def test_every_score_is_in_one_bucket(pairs: list[tuple[float, float]], range: Any) -> None:
    targets, values = zip(*pairs, strict=True)
    found = score_errors_of(scores(targets, values, range=range))
    assert sum(map(sum, found.counts)) == len(pairs)
    assert sum(each.true for each in found.buckets) == sum(each.predicted for each in found.buckets) == len(pairs)
    assert 0 <= found.right <= 1


def test_points_of_a_scatter_are_thinned_alike() -> None:
    values = np.linspace(0, 5, 4321)
    first, second = (score_errors_of(scores(values, values)).points for _ in range(2))
    assert first == second
    assert len(first.rows) == MOST_POINTS
    assert (first.rows[0], first.rows[-1], first.of) == (0, 4320, 4321)
    assert len(score_errors_of(scores([1, 2], [1, 2])).points.rows) == 2


def test_words_and_what_they_tell() -> None:
    assert words_of("It's 3.5 Caf\u00e9s, isn\u2019t it?") == ["it's", "3", "5", "caf\u00e9s", "isn't", "it"]
    assert is_negation(words_of("He didn\u2019t go"))
    assert is_negation(words_of("NEVER again"))
    assert not is_negation(words_of("a knot, a note, nottingham"))
    assert numbers_in("two cats, 1,000 dogs and w12", words_of("two cats, 1,000 dogs and w12")) == {"two", "1,000"}
    assert is_question("Really?", words_of("Really?"))
    assert is_question("how to swim", words_of("how to swim"))
    assert is_question("\u0647\u0644 \u062a\u0633\u0628\u062d\u061f", [])
    assert not is_question("I know how", words_of("I know how"))
    assert overlap(["a", "b", "c"], ["b", "c", "d"]) == 0.5
    assert overlap([], []) == 1


def test_slices_are_what_their_definitions_say() -> None:
    generator = random.Random(4)
    parts = ["not", "never", "cat", "dog", "7", "two", "is", "why", "runs", "?", "blue", "rare"]
    texts = [
        tuple(
            " ".join(generator.choices(parts, k=generator.randint(1, 9))) + f" w{row % (37 + 300 * (row % 2))}"
            for _ in range(2)
        )
        for row in range(160)
    ]
    scored = random_classes(9, 160, 3)
    scored = classes(scored.targets.tolist(), scored.probabilities, texts=texts)
    masks = {each.name: each.mask for each in memberships(scored)}
    words = [[words_of(text) for text in pair] for pair in texts]
    negative = [[bool({"not", "never"} & set(each)) for each in pair] for pair in words]
    assert masks["negation"].tolist() == [any(each) for each in negative]
    assert masks["negation in one text"].tolist() == [sum(each) == 1 for each in negative]
    numbers = [[{"7", "two"} & set(each) for each in pair] for pair in words]
    assert masks["different numbers"].tolist() == [a != b for a, b in numbers]
    asked = [
        any("?" in text or own[0] in ("is", "why") for text, own in zip(*each, strict=True))
        for each in zip(texts, words, strict=True)
    ]
    assert masks["questions"].tolist() == asked
    for name in ("length", "word overlap", "rare words"):
        quarters = [mask for each, mask in masks.items() if each.startswith(f"{name}: ")]
        assert np.sum(quarters, axis=0).tolist() == [1] * 160
    lengths = np.array([sum(map(len, pair)) for pair in words])
    assert lengths[masks["length: lowest quarter"]].max() <= lengths[masks["length: second quarter"]].min()
    for each in slices_of(scored, resamples=200):
        mask = masks[each.name]
        assert (each.n, each.rest_n) == (mask.sum(), (~mask).sum())
        if each.n < FEWEST:
            assert each.value is None
            assert "too few" in (each.note or "")
            continue
        assert each.value == pytest.approx(np.mean(scored.values[mask] == scored.targets[mask]))
        interval = score_interval(scored.take(mask), resamples=200)
        assert (each.low, each.high) == (interval.low, interval.high)
        if each.rest_n >= FEWEST:
            assert each.rest == pytest.approx(np.mean(scored.values[~mask] == scored.targets[~mask]))


def test_mistakes_come_surest_first() -> None:
    scored = random_classes(6, 100, 3)
    assert scored.probabilities is not None
    wrong = np.flatnonzero(scored.values != scored.targets)
    found = mistakes_of(scored, most=10)
    surest = scored.probabilities.max(1)
    assert [each.row for each in found] == sorted(wrong, key=lambda row: -surest[row])[:10]
    assert found[0].target == scored.labels[scored.targets[found[0].row]]
    off = mistakes_of(scores([1, 2, 3], [1.5, 2, 0]))
    assert [(each.row, each.score) for each in off] == [(2, 3.0), (0, 0.5)]
    assert off[0].target == 3.0
    assert off[0].predicted == 0.0


def test_disagreements_of_two_models() -> None:
    first = classes([0, 1, 0, 1], [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]])
    second = classes([0, 1, 0, 1], [[0.4, 0.6], [0.1, 0.9], [0.8, 0.2], [0.6, 0.4]])
    found = disagreements_of(first, second)
    assert (found.n_first, found.n_second, found.n_alike) == (1, 1, 2)
    assert [(each.row, each.predicted, each.score) for each in found.first_right] == [(0, "c1", pytest.approx(0.54))]
    assert [each.row for each in found.second_right] == [2]
    mirrored = disagreements_of(second, first)
    assert mirrored.first_right == found.second_right
    nearer = disagreements_of(scores([1, 2, 3], [1, 0, 3]), scores([1, 2, 3], [2, 1.5, 3]))
    assert (nearer.n_first, nearer.n_second, nearer.n_alike) == (1, 1, 1)
    with pytest.raises(UsageError, match="same rows"):
        disagreements_of(first, classes([0, 1, 1, 1], np.eye(2)[[0, 1, 1, 1]]))


def test_planted_label_errors_are_among_the_first() -> None:
    scored = random_classes(11, 600, 4, sure=1.5, right=4.0)
    generator = np.random.default_rng(1)
    planted = generator.choice(600, 20, replace=False)
    targets = scored.targets.copy()
    targets[planted] = (targets[planted] + generator.integers(1, 4, 20)) % 4
    found = label_suspicions_of(classes(targets.tolist(), scored.probabilities), most=30)
    assert len({each.row for each in found.suspects} & set(planted.tolist())) >= 17
    assert [each.score for each in found.suspects] == sorted((each.score for each in found.suspects), reverse=True)


def test_confident_learning_by_its_definition() -> None:
    scored = random_classes(12, 200, 3, right=1.5)
    p, given_labels = scored.probabilities, scored.targets
    assert p is not None
    thresholds = [p[given_labels == c, c].mean() for c in range(3)]
    joint = np.zeros((3, 3), int)
    suspects: list[int] = []
    for row in range(200):
        reached = [c for c in range(3) if p[row, c] >= thresholds[c]]
        if reached:
            best = max(reached, key=lambda c: p[row, c])
            joint[given_labels[row], best] += 1
            if best != given_labels[row]:
                suspects.append(row)
    found = label_suspicions_of(scored, most=1000)
    np.testing.assert_array_equal(found.joint, joint)
    assert found.thresholds == pytest.approx(thresholds)
    assert {each.row for each in found.suspects} == set(suspects)
    assert found.n == len(suspects)


def test_scores_far_from_their_predictions_are_suspicious() -> None:
    generator = np.random.default_rng(3)
    targets = generator.uniform(0, 5, 300)
    values = targets + generator.normal(0.3, 0.2, 300)
    targets[[5, 80]] += 3
    found = label_suspicions_of(scores(targets, values))
    assert {each.row for each in found.suspects[:2]} == {5, 80}
    assert found.n < 10


LITTLE: dict[str, Any] = {
    "one example": classes([1], [[0.2, 0.8]], texts=[("one",)]),
    "three examples": classes([0, 1, 2], np.eye(3)[[0, 1, 1]], texts=[("a",), ("b",), ("c",)]),
    "one class": classes([1] * 30, [[0.3, 0.7]] * 30, texts=[("x y",)] * 30),
    "constant predictions": classes([0, 1] * 30, [[0.3, 0.7]] * 60),
    "no texts": random_classes(0, 40, 3),
    "hostile texts": classes([0, 1] * 4, np.eye(2)[[0, 0, 1, 1] * 2], texts=[(text,) for text in HOSTILE]),
    "hostile pairs": scores(range(8), range(8), texts=[(text, text[::-1]) for text in HOSTILE]),
    "one score": scores([2.5], [2.4]),
    "equal scores": scores([2.0] * 30, [1.0] * 30, range=None),
    "not a number": scores([1.0, 2.0, 3.0], [1.0, np.nan, np.inf]),
    "no number at all": scores([1.0], [np.nan]),
}


@pytest.mark.parametrize("name", LITTLE)
def test_predictions_that_say_little_are_analysed_and_it_is_said(name: str) -> None:
    scored = LITTLE[name]
    found = analyse(scored, resamples=100)
    json.dumps(found.as_dict(), allow_nan=False)
    assert found.notes or name == "hostile pairs"
    notes = " | ".join(found.notes)
    said = {
        "one example": "1 example: too few to say much",
        "three examples": "3 examples: too few to say much",
        "one class": "likely label errors are left out: one class only",
        "constant predictions": "all predictions are the same",
        "no texts": "slices are left out: there are no texts",
        "not a number": "2 of 3 examples have no finite prediction and are left out",
    }
    assert said.get(name, "") in notes
    if name == "hostile texts":
        assert {text for each in found.mistakes for text in each.texts} <= set(HOSTILE)


def test_an_analysis_is_a_function_of_the_predictions() -> None:
    scored = random_classes(4, 90, 3)
    texts = [(f"word{row % 7} not {row}",) for row in range(90)]
    scored = classes(scored.targets.tolist(), scored.probabilities, texts=texts)
    first, second = (json.dumps(analyse(scored, resamples=100).as_dict()) for _ in range(2))
    assert first == second
