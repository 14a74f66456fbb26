"""What a run's scores say, in words: each task against its majority baseline, and what is doubtful."""

from dataclasses import dataclass
from typing import Literal

from manyhead.evaluation.metrics import METRICS
from manyhead.report.text import decimal

Standing = Literal["better", "unclear", "worse", "unknown"]

STANDINGS: dict[Standing, str] = {
    "better": "better than the baseline",
    "unclear": "not told from the baseline",
    "worse": "worse than the baseline",
    "unknown": "cannot be said",
}


@dataclass(frozen=True)
class Score:
    """A task's value of one metric beside the baseline's. ``gain`` is above 0 where the run is the better one.

    ``low`` and ``high`` are the ends of the 95 % interval of ``value``, None where ``reason`` says why there is none.
    """

    metric: str
    value: float | None
    baseline: float | None
    is_primary: bool = False
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    @property
    def gain(self) -> float | None:
        """How much better than the baseline."""
        if self.value is None or self.baseline is None:
            return None
        is_loss = self.metric in METRICS and not METRICS[self.metric].higher_is_better
        return self.baseline - self.value if is_loss else self.value - self.baseline

    @property
    def standing(self) -> Standing:
        """Where the baseline lies: beneath the interval, inside or above; nothing without one."""
        if self.gain is None or self.baseline is None or self.low is None or self.high is None:
            return "unknown"
        if self.low <= self.baseline <= self.high:
            return "unclear"
        return "better" if self.gain > 0 else "worse"

    @property
    def sentence(self) -> str:
        """The standing in a sentence."""
        value, baseline = decimal(self.value), decimal(self.baseline)
        if self.value is None:
            return f"No {self.metric} is known."
        if self.baseline is None:
            return f"{self.metric} is {value}; the majority baseline is not known."
        if self.low is None or self.high is None:
            why = self.reason or "there are no predictions to tell by"
            return f"{self.metric} is {value}, the majority baseline's {baseline}; there is no interval: {why}."
        interval = f"{decimal(self.low)} to {decimal(self.high)}"
        if self.standing == "unclear":
            return (
                f"{self.metric} {value} cannot be told from the majority baseline's {baseline}, which lies within its "
                f"95\u00a0% interval, {interval}."
            )
        side = "above" if self.value > self.baseline else "below"
        where = f"lies {side} the majority baseline's {baseline}"
        return f"{self.metric} is {value}. Its 95\u00a0% interval, {interval}, {where}."


def headline(scores: dict[str, Score]) -> str:
    """All tasks in one sentence."""
    if not scores:
        return "No task is known of this run."
    by_standing = {
        standing: [task for task, score in scores.items() if score.standing == standing] for standing in STANDINGS
    }
    if len(scores) == len(by_standing["better"]):
        every = {1: "The task is", 2: "Both tasks are"}.get(len(scores), f"All {len(scores)} tasks are")
        return f"{every} better than the majority baseline: it lies outside each 95\u00a0% interval."
    parts = {
        "better": "better than the majority baseline",
        "unclear": "not to be told from it" if by_standing["better"] else "not to be told from the majority baseline",
        "worse": "worse than it"
        if by_standing["better"] or by_standing["unclear"]
        else "worse than the majority baseline",
        "unknown": "without an interval, so that nothing can be said",
    }
    said = [
        f"{_listed(tasks)} {'is' if len(tasks) == 1 else 'are'} {parts[s]}" for s, tasks in by_standing.items() if tasks
    ]
    return f"{'; '.join(said)}."


def _listed(names: list[str]) -> str:
    if len(names) > 4:
        return f"{len(names)} tasks"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
