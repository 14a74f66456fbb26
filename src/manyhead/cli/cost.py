"""What training a recipe would cost: steps, tokens, disk and time, the last from a few steps on a model thrown away."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from manyhead.batching import pack
from manyhead.build import Parts, new_model, plan_stages
from manyhead.model import MultiTaskModel
from manyhead.packed import PackedBatch
from manyhead.schedules.base import Part, Step
from manyhead.training.stage_plan import StagePlan
from manyhead.training.step import take_step

MEASURING_SECONDS = 3.0
"""About how long steps are tried, over all stages."""

_BYTES_PER_WEIGHT = 4
_OPTIMIZER_VALUES = 2
_TIMINGS = 2


@dataclass(frozen=True)
class StageCost:
    """A stage: examples and tokens of one epoch by task, steps and evaluations of all epochs."""

    name: str
    steps: int
    epoch_steps: int
    epoch_examples: dict[str, int]
    epoch_tokens: dict[str, int]
    evaluations: int
    seconds: float


@dataclass(frozen=True)
class Cost:
    """All stages. ``disk_bytes`` is the most that checkpoints and the model take at a time."""

    parameters: int
    disk_bytes: int
    device: str
    precision: str
    forward_tokens_per_second: float
    stages: list[StageCost]

    @property
    def seconds(self) -> float:
        """Estimate for all stages."""
        return sum(stage.seconds for stage in self.stages)


@dataclass(frozen=True)
class StepTime:
    """What a step takes: ``fixed`` seconds, mostly the optimiser's, and seconds for each token."""

    fixed: float
    per_token: float


def estimate(parts: Parts) -> Cost:
    """The cost of a recipe whose encoder and data were read. Some steps of each stage are tried and forgotten."""
    model = new_model(parts)
    plans = plan_stages(parts, model)
    forward = _forward_rate(model.eval(), _batch(parts, plans[0].schedule.step(0)))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(
        parameters=parameters,
        disk_bytes=_disk_bytes(parts, parameters),
        device=parts.hardware.device,
        precision=parts.hardware.precision,
        forward_tokens_per_second=forward,
        stages=[_stage_cost(parts, model, plan, forward, MEASURING_SECONDS / len(plans)) for plan in plans],
    )


def step_time(model: MultiTaskModel, plan: StagePlan, limit_seconds: float) -> StepTime:
    """Takes steps of a stage, each of twice the examples, up to a whole one or until about ``limit_seconds`` passed."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in plan.trainable)
    for regulariser in plan.learner.lesson.regularisers:
        regulariser.started(model)
    whole = plan.schedule.step(0)
    largest = max(len(part.examples) for part in whole.parts)
    _timed(plan, whole, 1)  # the optimiser makes its state in its first step
    first = last = _timed(plan, whole, 1)
    began, examples = time.perf_counter(), 1
    while examples < largest and time.perf_counter() - began + 2 * last[0] < limit_seconds:
        examples *= 2
        last = _timed(plan, whole, examples)
    plan.learner.optimizer.state.clear()
    more_tokens = last[1] - first[1]
    per_token = max(0.0, last[0] - first[0]) / more_tokens if more_tokens else 0.0
    return StepTime(max(0.0, last[0] - per_token * last[1]), per_token)


def _timed(plan: StagePlan, whole: Step, examples: int) -> tuple[float, int]:
    """Seconds and tokens of a step of up to ``examples`` of each task."""
    parts = tuple(Part(part.task, part.examples[:examples]) for part in whole.parts)
    began = time.perf_counter()
    result = take_step(plan.learner, Step(whole.index, whole.epoch, parts))
    return time.perf_counter() - began, result.tokens


def _stage_cost(
    parts: Parts, model: MultiTaskModel, plan: StagePlan, forward: float, limit_seconds: float
) -> StageCost:
    schedule, options = plan.schedule, plan.options
    steps = plan.total_steps
    tokens = {task: round(examples * _mean_tokens(parts, task)) for task, examples in schedule.epoch_examples.items()}
    evaluations = -(-steps // (options.evaluate_every_steps or schedule.epoch_steps))
    read = 0 if options.pretraining else evaluations * sum(len(data.tokens.ids) for data in parts.split("dev").values())
    if options.distillation:
        taught = sum(len(parts.data[task, "train"].tokens.ids) for task in tokens)
        read += len(options.distillation.teachers) * taught
    a_step = step_time(model, plan, limit_seconds)
    trained = sum(tokens.values()) * steps / schedule.epoch_steps
    return StageCost(
        name=options.name,
        steps=steps,
        epoch_steps=schedule.epoch_steps,
        epoch_examples=dict(schedule.epoch_examples),
        epoch_tokens=tokens,
        evaluations=evaluations,
        seconds=steps * a_step.fixed + trained * a_step.per_token + read / forward,
    )


def _mean_tokens(parts: Parts, task: str) -> float:
    tokens = parts.data[task, "train"].tokens
    return len(tokens.ids) / tokens.n_examples


def _batch(parts: Parts, step: Step) -> PackedBatch:
    stores = {task: data.tokens for task, data in parts.split("train").items()}
    batch = pack(step.parts, stores, segment_ids=parts.recipe.encoder.segment_ids)
    return batch.to(torch.device(parts.hardware.device))


def _forward_rate(model: MultiTaskModel, batch: PackedBatch) -> float:
    """Tokens in a second, at best of a few passes."""
    best = float("inf")
    with torch.inference_mode():
        for _ in range(_TIMINGS):
            began = time.perf_counter()
            outputs: Mapping[str, torch.Tensor] = model(batch)
            for values in outputs.values():
                values.sum().item()  # waits for a device that works on its own
            best = min(best, time.perf_counter() - began)
    return batch.n_tokens / best


def _disk_bytes(parts: Parts, parameters: int) -> int:
    """Checkpoints hold weights and the optimiser's two values for each; one more is there while it replaces another."""
    kept = max(stage.keep_checkpoints for stage in parts.recipe.stages) + 2
    return parameters * _BYTES_PER_WEIGHT * ((1 + _OPTIMIZER_VALUES) * kept + 1)
