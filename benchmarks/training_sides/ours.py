"""Updates as `manyhead train` takes them, of a recipe's only stage."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from work import three_tasks

from manyhead.build.parts import read_parts
from manyhead.build.plan import new_model, plan_stages
from manyhead.data.task_data import TaskData
from manyhead.training.observer import Observer
from manyhead.training.step import take_step
from training_sides.examples import Block, Taken, Work


def side(work: Work, settings: Mapping[str, Any], *, in_turn: bool) -> Block:
    """A batch of each task in every step; the tasks share the model, so nothing can be ``in_turn``."""
    del in_turn
    given = work.settings
    stage = {"schedule": "interleaved", "batch_size": given.batch_size, "epoch_examples": {}, "length_window": 0}
    changed = {f"stages.0.{key}": value for key, value in {**stage, **settings}.items()}
    parts = read_parts(three_tasks(given.data_dir, {**changed, "threads": given.threads}), Observer())
    data = {(task, "train"): _some(parts.data[task, "train"], each.rows) for task, each in work.examples.items()}
    parts = replace(parts, data=data)
    plan = plan_stages(parts, new_model(parts))[0]

    def block(number: int) -> Taken:
        first = number * given.steps
        take_step(plan.learner, plan.schedule.step(first))
        began = time.perf_counter()
        tokens = sum(take_step(plan.learner, plan.schedule.step(first + each)).tokens for each in range(given.steps))
        return Taken(time.perf_counter() - began, tokens)

    return block


def _some(data: TaskData, rows: Any) -> TaskData:
    """Some rows of a split."""
    assert data.targets is not None
    ids: Any = [data.ids[int(row)] for row in rows]
    return replace(data, tokens=data.tokens.take(rows), targets=data.targets[rows], lines=data.lines[rows], ids=ids)
