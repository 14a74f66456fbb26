"""What training a recipe would cost: steps, tokens, disk, and, roughly, time. Nothing is trained for it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from manyhead.batching import pack
from manyhead.build import Parts, new_model, plan_schedule
from manyhead.model import MultiTaskModel
from manyhead.packed import PackedBatch
from manyhead.recipe.schema import Stage
from manyhead.schedules.base import Schedule

TRAINING_PER_FORWARD = 3
"""How much longer a training step takes than a forward pass over its tokens: backward computes twice as much."""

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


def estimate(parts: Parts) -> Cost:
    """The cost of a recipe whose encoder and data were read. The time is three measured forward passes a step."""
    model = new_model(parts).to(parts.hardware.device).eval()
    model.autocast = parts.hardware.autocast
    schedules = [plan_schedule(parts, index, stage) for index, stage in enumerate(parts.recipe.stages)]
    rate = _forward_rate(model, _first_batch(parts, schedules[0]))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    pairs = zip(parts.recipe.stages, schedules, strict=True)
    return Cost(
        parameters=parameters,
        disk_bytes=_disk_bytes(parts, parameters),
        device=parts.hardware.device,
        precision=parts.hardware.precision,
        forward_tokens_per_second=rate,
        stages=[_stage_cost(parts, stage, schedule, rate) for stage, schedule in pairs],
    )


def _stage_cost(parts: Parts, stage: Stage, schedule: Schedule, rate: float) -> StageCost:
    steps = schedule.epoch_steps * stage.epochs
    steps = steps if stage.max_steps is None else min(steps, stage.max_steps)
    tokens = {task: round(examples * _mean_tokens(parts, task)) for task, examples in schedule.epoch_examples.items()}
    evaluations = -(-steps // (stage.evaluate_every_steps or schedule.epoch_steps))
    dev_tokens = sum(len(data.tokens.ids) for data in parts.split("dev").values())
    trained = sum(tokens.values()) * steps / schedule.epoch_steps
    return StageCost(
        name=stage.name,
        steps=steps,
        epoch_steps=schedule.epoch_steps,
        epoch_examples=dict(schedule.epoch_examples),
        epoch_tokens=tokens,
        evaluations=evaluations,
        seconds=(TRAINING_PER_FORWARD * trained + evaluations * dev_tokens) / rate,
    )


def _mean_tokens(parts: Parts, task: str) -> float:
    tokens = parts.data[task, "train"].tokens
    return len(tokens.ids) / tokens.n_examples


def _first_batch(parts: Parts, schedule: Schedule) -> PackedBatch:
    stores = {task: data.tokens for task, data in parts.split("train").items()}
    batch = pack(schedule.step(0).parts, stores, segment_ids=parts.recipe.encoder.segment_ids)
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
