"""A comparison in words: what was found, what it speaks of, and what it would take to know more."""

from dataclasses import dataclass
from typing import Literal

from manyhead.evaluation.statistics.differences import Difference

Verdict = Literal["helped", "hurt", "no evidence"]

_TESTS = {"permutation": "permutation test", "t": "t test over runs and examples"}


@dataclass(frozen=True)
class Facts:
    """What a sentence is made of; see `TaskComparison`."""

    task: str
    metric: str
    names: tuple[str, str]
    runs: tuple[int, int]
    values: tuple[float, float]
    found: Difference
    adjusted: float | None
    tests: int
    verdict: Verdict


def sentence_of(facts: Facts) -> str:
    """The comparison of one task, or of ``overall``, in a few sentences."""
    parts = [_finding(facts), *_needs(facts), _scope(facts)]
    return " ".join(parts)


def number(value: float, *, signed: bool = False) -> str:
    """A score or difference with three decimals, or two digits where that would leave none."""
    sign = "+" if signed else ""
    return f"{value:{sign}.3f}" if abs(value) >= 0.001 or value == 0 else f"{value:{sign}.2g}"


def p_text(p: float) -> str:
    """A p-value with its sign of equality, never as 0."""
    return f"= {p:.3f}" if p >= 0.001 else "< 0.001"


def interval_text(low: float | None, high: float | None, *, signed: bool = False) -> str:
    """Both ends, or a dash."""
    return "-" if low is None or high is None else f"{number(low, signed=signed)} to {number(high, signed=signed)}"


def _finding(facts: Facts) -> str:
    names, interval, found = facts.names, facts.found.interval, facts.found
    word = {"helped": "better", "hurt": "worse", "no evidence": "not told apart from"}[facts.verdict]
    word = word if facts.verdict == "no evidence" else f"{word} than"
    head = f"{names[1]} is {word} {names[0]} in {_measure(facts)}: {number(facts.values[1])} against "
    head += number(facts.values[0])
    if interval.low is None:
        said = f"no interval: {interval.reason}"
    else:
        said = f"{100 * interval.level:g} % interval {interval_text(interval.low, interval.high, signed=True)}"
    tested = ""
    if found.p_values and facts.adjusted is not None:
        name, p = next(iter(found.p_values.items()))
        tested = f"; {_TESTS[name]} p {p_text(p)}"
        if facts.tests > 1:
            tested += f", {p_text(facts.adjusted).removeprefix('= ')} after Holm's correction for {facts.tests} tasks"
    return f"{head}, a difference of {number(interval.value, signed=True)} ({said}{tested})."


def _measure(facts: Facts) -> str:
    return "overall score" if facts.metric == "overall" else f"{facts.task} {facts.metric}"


def _needs(facts: Facts) -> list[str]:
    found = facts.found
    if facts.verdict != "no evidence" or found.detectable is None:
        return []
    seen = f"{found.interval.n:,} examples"
    least = f"With {seen} a difference of {number(found.detectable)} would be found in 80 % of such comparisons"
    if found.interval.value == 0:
        return [f"{least}."]
    return [f"{least}; {_wanted(facts)}."]


def _wanted(facts: Facts) -> str:
    found = facts.found
    size = "one of the size seen"
    examples = None if found.examples_needed is None else f"about {_rounded(found.examples_needed):,} examples"
    if sum(facts.runs) == 2:
        return f"{size} would take {examples}"
    runs = None if found.runs_needed is None else f"about {found.runs_needed} runs a side with these examples"
    if examples and runs:
        return f"{size} would take {examples} with these runs, or {runs}"
    if examples:
        return f"{size} would take {examples} with these runs, and no number of runs alone"
    if runs:
        return f"{size} would take {runs}, and no number of examples alone"
    return f"{size} would take both more runs and more examples: no number of one alone would do"


def _scope(facts: Facts) -> str:
    first, second = facts.runs
    if first + second == 2:
        return "This speaks of these two models: one seed a side cannot tell what the recipes do with other seeds."
    said = f"This speaks of the recipes, by {first} and {second} runs"
    if 1 in facts.runs:
        alone = facts.names[facts.runs.index(1)]
        said += f"; {alone}, with one run, is taken to vary with its seed as much as the other does"
    return f"{said}."


def _rounded(count: int) -> int:
    """Upwards, to two digits."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return -(-count // unit) * unit
