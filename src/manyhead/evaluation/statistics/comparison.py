"""Two sides compared on every task that both have: one model a side, or several runs of a recipe a side."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from manyhead.evaluation.metrics import METRICS
from manyhead.evaluation.scored import Scored
from manyhead.evaluation.statistics.differences import (
    Difference,
    ModelPair,
    RecipePair,
    discordant,
    effects_of,
    model_pair,
    overall_of_models,
    overall_of_recipes,
    recipe_pair,
    sign_of,
)
from manyhead.evaluation.statistics.intervals import (
    FEWEST,
    LEVEL,
    RESAMPLES,
    Interval,
    mapping,
    score_of,
)
from manyhead.evaluation.statistics.pairs import holm
from manyhead.evaluation.statistics.sides import Run, overall_interval, side_interval
from manyhead.evaluation.statistics.words import Facts, Verdict, sentence_of

OVERALL = "overall"


@dataclass(frozen=True)
class TaskComparison:
    """A task, or ``overall``.

    Attributes:
        task: Its name, or "overall".
        metric: What it is scored by, "overall" for the mean.
        n: Number of examples.
        runs: Runs of the baseline and of the other.
        scores: Scores of the runs of either.
        baseline: Mean score of the baseline's runs, with its interval.
        other: The same of the other.
        difference: Positive where the other is better, also where less is better.
        p_values: By test: "permutation", with "mcnemar" (of accuracies), "williams" (of Pearson's correlations) or
            "jackknife" (of Spearman's); "t" for recipes.
        test: The test that decides; None where there is none.
        p: Its p-value.
        p_holm: That, adjusted for the number of tasks; of ``overall``, which stands alone, the same as ``p``.
        effects: Effect sizes: "cohen_h", "cohen_q", "only_baseline" and "only_other" (examples that one model alone
            predicts rightly), "odds" (their ratio).
        verdict: "helped", "hurt" or "no evidence".
        sentence: The same in words.
        detectable: The smallest difference that would have been found with 80 % power, beside as many other tests.
        examples_needed: Examples that would show a difference of the size seen with 80 % power.
        runs_needed: Runs a side that would.
    """

    task: str
    metric: str
    n: int
    runs: tuple[int, int]
    scores: tuple[tuple[float, ...], tuple[float, ...]]
    baseline: Interval
    other: Interval
    difference: Interval
    p_values: Mapping[str, float]
    test: str | None
    p: float | None
    p_holm: float | None
    effects: Mapping[str, float | None]
    verdict: Verdict
    sentence: str
    detectable: float | None
    examples_needed: int | None
    runs_needed: int | None


@dataclass(frozen=True)
class Comparison:
    """The other side against the baseline.

    Attributes:
        names: Of the baseline and of the other.
        about: Whether it speaks of "models", one run a side, or of "recipes".
        tasks: Those that both sides have.
        overall: Over these tasks; None for a single one, or where there is no such mean.
        left_out: Tasks that only one side has, by the side's name.
        level: Confidence of the intervals; a difference is told apart where p is at most 1 less this.
    """

    names: tuple[str, str]
    about: Literal["models", "recipes"]
    tasks: list[TaskComparison]
    overall: TaskComparison | None
    left_out: Mapping[str, list[str]]
    level: float

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Draft:
    """What is known of a task before the number of tests is."""

    task: str
    metric: str
    scores: tuple[tuple[float, ...], tuple[float, ...]]
    intervals: tuple[Interval, Interval]
    found: Difference
    effects: Mapping[str, float | None]
    pair: ModelPair | RecipePair | None = None


def compare_sides(
    baseline: Sequence[Run],
    other: Sequence[Run],
    *,
    names: tuple[str, str] = ("baseline", "other"),
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Comparison:
    """Compares ``other`` with ``baseline`` on the tasks that all runs have, each by its own metric.

    Args:
        baseline: For each run its predictions by task. One run stands for itself, several for their recipe.
        other: The same; all of a task are predictions of the same examples in the same order.
        names: How the sides are called.
        resamples: Number of bootstrap samples, and of permutations.
        level: Confidence of intervals; 1 less this is the level of tests.
        seed: What is drawn depends on it and the tasks' names alone.
    """
    every = [*baseline, *other]
    common = [task for task in baseline[0] if all(task in run for run in every)]
    options = {"resamples": resamples, "level": level, "seed": seed}
    drafts = [
        _draft([run[task] for run in baseline], [run[task] for run in other], tests=len(common), **options)
        for task in common
    ]
    adjusted = holm({draft.task: p for draft in drafts if (p := _primary(draft.found)) is not None})
    tasks = [_finished(draft, names, level, adjusted.get(draft.task), len(adjusted)) for draft in drafts]
    left = {
        name: [task for task in dict.fromkeys(task for run in side for task in run) if task not in common]
        for name, side in zip(names, (baseline, other), strict=True)
    }
    overall = _overall_draft(drafts, baseline, other, **options)
    return Comparison(
        names,
        "models" if len(every) == 2 else "recipes",
        tasks,
        None if overall is None else _finished(overall, names, level, _primary(overall.found), 1),
        {name: found for name, found in left.items() if found},
        level,
    )


def _draft(
    baseline: list[Scored], other: list[Scored], *, tests: int, resamples: int, level: float, seed: int
) -> _Draft:
    first = baseline[0]
    sides = (baseline, other)
    scores = (tuple(map(score_of, baseline)), tuple(map(score_of, other)))
    finite = all(map(math.isfinite, (*scores[0], *scores[1])))
    options: dict[str, Any] = {"resamples": resamples, "level": level, "seed": seed}
    intervals = (side_interval(baseline, scores[0], options), side_interval(other, scores[1], options))
    means = [float(np.mean(each)) for each in scores]
    several = len(baseline) + len(other) > 2
    value = sign_of(first.metric) * (means[1] - means[0])
    if not finite:
        none = Interval(value, None, None, level, first.n, "none", "some predictions are not finite numbers")
        return _Draft(first.task, first.metric, scores, intervals, Difference(none), {})
    effects = effects_of(first.metric, *means)
    if several and first.n < FEWEST:
        reason = f"{first.n} example{'s' if first.n > 1 else ''} tell too little; at least {FEWEST} are needed"
        none = Interval(value, None, None, level, first.n, "none", reason)
        return _Draft(first.task, first.metric, scores, intervals, Difference(none), effects)
    pair = recipe_pair(*sides) if several else model_pair(baseline[0], other[0], resamples=resamples, seed=seed)
    if not several and (first.kind == "classification" or first.metric == "exact_match"):
        only = discordant(baseline[0], other[0])
        effects |= {"only_baseline": only[0], "only_other": only[1], "odds": only[1] / only[0] if only[0] else None}
    return _Draft(first.task, first.metric, scores, intervals, pair.difference(level, tests), effects, pair)


def _overall_draft(
    drafts: Sequence[_Draft], baseline: Sequence[Run], other: Sequence[Run], **options: Any
) -> _Draft | None:
    metrics = {draft.task: draft.metric for draft in drafts}
    if len(drafts) < 2 or not all(METRICS[metric].bounded for metric in metrics.values()):
        return None
    models = {draft.task: draft.pair for draft in drafts if isinstance(draft.pair, ModelPair)}
    recipes = {draft.task: draft.pair for draft in drafts if isinstance(draft.pair, RecipePair)}
    if len(models) == len(drafts):
        pair = overall_of_models(models, metrics)
    elif len(recipes) == len(drafts):
        pair = overall_of_recipes(recipes, metrics)
    else:
        return None
    sides = tuple([{task: run[task] for task in metrics} for run in side] for side in (baseline, other))
    scores = (_overall_scores(drafts, 0), _overall_scores(drafts, 1))
    intervals = tuple(overall_interval(side, each, options) for side, each in zip(sides, scores, strict=True))
    found = pair.difference(options["level"])
    return _Draft(OVERALL, OVERALL, scores, (intervals[0], intervals[1]), found, {}, pair)


def _overall_scores(drafts: Sequence[_Draft], side: int) -> tuple[float, ...]:
    """Of each run of a side."""
    mapped: list[NDArray[np.float64]] = []
    for draft in drafts:
        factor, shift = mapping(draft.metric)
        mapped.append(factor * np.asarray(draft.scores[side]) + shift)
    return tuple(np.mean(mapped, axis=0).tolist())


def _primary(found: Difference) -> float | None:
    return next(iter(found.p_values.values()), None)


def _finished(
    draft: _Draft, names: tuple[str, str], level: float, adjusted: float | None, tests: int
) -> TaskComparison:
    found = draft.found
    told = adjusted is not None and adjusted <= 1 - level and found.interval.value != 0
    verdict: Verdict = "no evidence" if not told else "helped" if found.interval.value > 0 else "hurt"
    runs = (len(draft.scores[0]), len(draft.scores[1]))
    facts = Facts(
        task=draft.task,
        metric=draft.metric,
        names=names,
        runs=runs,
        values=(draft.intervals[0].value, draft.intervals[1].value),
        found=found,
        adjusted=adjusted,
        tests=tests,
        verdict=verdict,
    )
    return TaskComparison(
        task=draft.task,
        metric=draft.metric,
        n=found.interval.n,
        runs=runs,
        scores=draft.scores,
        baseline=draft.intervals[0],
        other=draft.intervals[1],
        difference=found.interval,
        p_values=dict(found.p_values),
        test=next(iter(found.p_values), None),
        p=_primary(found),
        p_holm=adjusted,
        effects=draft.effects,
        verdict=verdict,
        sentence=sentence_of(facts),
        detectable=found.detectable,
        examples_needed=found.examples_needed,
        runs_needed=found.runs_needed,
    )
