"""Gradients of each task's mini-batches over the shared parameters, before training, and their inner products.

New heads are random: a gradient that comes through one says little of its task. So they are trained first for some
steps with the encoder as it is, on other examples than those that are measured. Gradients are fp32 and taken without
dropout, so that they are a property of model and data. They are those of the tasks' own losses, each a mean over its
batch; constants, regularisers and teachers of the recipe are left out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manyhead.balancing import SumBalancing
from manyhead.balancing.base import Balancer, Signals
from manyhead.build.parts import Parts, read_parts
from manyhead.build.plan import new_model, plan_stages
from manyhead.build.run import refuse_several
from manyhead.errors import UsageError
from manyhead.model import MultiTaskModel
from manyhead.optimizers import AdamWOptions
from manyhead.recipe.load import LoadedRecipe
from manyhead.recipe.schema import Recipe, Stage
from manyhead.schedules.base import Indices, Part, Step
from manyhead.schedules.draws import permutations
from manyhead.studies.affinity.sketch import Sketch
from manyhead.training.clipping import Clipping
from manyhead.training.loop import steps
from manyhead.training.losses import Lesson
from manyhead.training.observer import Observer
from manyhead.training.stage_plan import StagePlan
from manyhead.training.step import clear_gradients
from manyhead.training.task_gradients import TaskGradients

FEWEST_BATCHES = 8
"""Mini-batches of a task below which nothing can be said of their spread."""
WARMUP_BATCH = 16
WARMUP_RATE = 1e-3
_FROZEN = ["encoder.*", "pooling.*", "projections.*", "experts.*"]
_MEASURED_SHARE = 2 / 3
"""Most of a task's rows that are measured where others are needed to warm its head."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured: ``examples`` of a task at most, in mini-batches of ``batch_size``."""

    examples: int = 256
    batch_size: int = 8
    warmup_steps: int = 48


@dataclass(frozen=True)
class Gradients:
    """Inner products of the gradients of N mini-batches, K tasks' one behind the other.

    Attributes:
        layers: The L parts of the shared parameters: ``embeddings``, ``layer 1``, ..., ``pooling``, ``projections``.
        owners: (N,) the place of each mini-batch's task in ``tasks``.
        losses: (N,) their mean losses.
        products: (L, N, N) inner products of the gradients of each layer's parameters.
        batch_size: Examples of a mini-batch.
        step_sizes: Examples of each task in a step of the recipe.
    """

    tasks: tuple[str, ...]
    layers: tuple[str, ...]
    owners: NDArray[np.int64]
    losses: NDArray[np.float64]
    products: NDArray[np.float64]
    batch_size: int
    step_sizes: Mapping[str, int]


def measure_gradients(
    loaded: LoadedRecipe, sizes: Sizes | None = None, *, tell: Callable[[str], None] = lambda _: None
) -> Gradients:
    """Measures the gradients of the tasks of the recipe's first stage that trains some, at the start checkpoint.

    Raises `UsageError` where there are no two tasks to compare, no shared parameter that trains, or too few rows, and
    `RecipeError` and `DataError` as training does.
    """
    sizes = sizes or Sizes()
    refuse_several(loaded)
    stage = _measured_stage(loaded.recipe)
    recipe = loaded.recipe.with_changes(precision="fp32", stages=[stage], select_on=None)
    parts = read_parts(replace(loaded, recipe=recipe), _Telling(tell))
    model = new_model(parts)
    plan = plan_stages(parts, model)[0]
    measured, others = _divided(plan, recipe.seed, sizes)
    if sizes.warmup_steps:
        tell(f"warming the heads: {sizes.warmup_steps} steps, {WARMUP_BATCH} examples of each task")
        _warm_heads(parts, model, stage, others, sizes.warmup_steps)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in plan.trainable)
    lesson = replace(plan.learner.lesson, regularisers=(), teaching=None)
    plan.learner.extras.eval()
    step_sizes = {task: stage.batch_size_of(task) for task in measured}
    return batch_gradients(lesson, measured, sizes.batch_size, step_sizes=step_sizes, seed=recipe.seed, tell=tell)


def batch_gradients(
    lesson: Lesson,
    measured: Mapping[str, Indices],
    batch_size: int,
    *,
    step_sizes: Mapping[str, int],
    seed: int,
    tell: Callable[[str], None] = lambda _: None,
) -> Gradients:
    """The gradients of the rows ``measured`` of each task, cut into mini-batches of ``batch_size``, without dropout.

    One gradient is there at a time; of each, a `Sketch` of every layer stays. Raises `UsageError` where the tasks share
    no parameter that trains.
    """
    model = lesson.model.eval()
    layers = shared_layers(model)
    if not layers:
        raise UsageError(
            "the tasks share no parameter that trains, so their gradients do not meet; expected a shared part; leave "
            "out encoder.experts, or remove patterns from freeze"
        )
    sketches = {name: Sketch(sum(map(Tensor.numel, found)), ("affinity", seed, name)) for name, found in layers.items()}
    gradients = TaskGradients(Balancer(), model, Clipping(None), together=False)
    parts = [Part(task, batch) for task, rows in measured.items() for batch in rows.reshape(-1, batch_size)]
    kept = {name: torch.empty(len(parts), sketch.width) for name, sketch in sketches.items()}
    losses = np.empty(len(parts))
    for number, part in enumerate(parts):
        if number == 0 or part.task != parts[number - 1].task:
            tell(f"gradients of {part.task}: {len(measured[part.task]):,} examples")
        clear_gradients(model)
        counts = {part.task: batch_size}
        signals = Signals((part.task,), None, None, 0, ("affinity", number))
        found = gradients.add(lambda piece, counts=counts: lesson.losses(piece, counts), [part], signals)
        losses[number] = float(found[part.task])
        for name, parameters in layers.items():
            rows = [gradients.rows.gradient(parameter, part.task) for parameter in parameters]
            flat = [
                parameter.new_zeros(parameter.numel()) if row is None else row.flatten()
                for parameter, row in zip(parameters, rows, strict=True)
            ]
            kept[name][number] = sketches[name](torch.cat(flat))
    clear_gradients(model)
    products = np.stack([_products(vectors) for vectors in kept.values()])
    tasks = tuple(measured)
    owners = np.array([tasks.index(part.task) for part in parts])
    return Gradients(tasks, tuple(layers), owners, losses, products, batch_size, step_sizes)


def shared_layers(model: MultiTaskModel) -> dict[str, list[torch.nn.Parameter]]:
    """The parameters that all tasks share and that train, by layer, from the bottom up."""
    depths = model.encoder.depths("encoder.")
    found: dict[tuple[int, str], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or model.task_of(name) is not None:
            continue
        depth = depths.get(name, model.encoder.n_layers + 1)
        label = "embeddings" if depth == 0 else f"layer {depth}" if name in depths else name.partition(".")[0]
        found.setdefault((depth, label), []).append(parameter)
    return {label: found[depth, label] for depth, label in sorted(found)}


def _measured_stage(recipe: Recipe) -> Stage:
    """The first stage that trains tasks, less what is not theirs."""
    stages = [stage for stage in recipe.stages if stage.pretraining is None]
    if not stages:
        raise UsageError(
            f"{recipe.name}: every stage pretrains on texts, so there are no losses of tasks to compare; expected a "
            "stage without pretraining; add one"
        )
    stage = next((each for each in stages if len(recipe.trained_tasks(each)) > 1), stages[0])
    tasks = recipe.trained_tasks(stage)
    if len(tasks) < 2:
        without = [name for name, task in recipe.tasks.items() if task.files.train is None]
        why = f", and these have no train file: {', '.join(without)}" if without else ""
        found = f"only {tasks[0]} is trained" if tasks else "no task is trained"
        raise UsageError(
            f"{recipe.name}: {found} by stage {stage.name}{why}; expected two tasks or more, whose gradients can be "
            "compared; add one, or name more in stages.N.tasks"
        )
    changes = {"distillation": None, "regularisers": [], "start": "previous", "balancing": SumBalancing()}
    return stage.model_copy(update=changes)


def _divided(plan: StagePlan, seed: int, sizes: Sizes) -> tuple[dict[str, Indices], dict[str, Indices]]:
    """The rows that are measured, whole mini-batches of them, and others to warm the heads on, both in random order."""
    measured: dict[str, Indices] = {}
    others: dict[str, Indices] = {}
    few: list[str] = []
    for task, rows in plan.rows.items():
        order = rows[permutations(len(rows), ("affinity", seed, task))[0]]
        most = int(len(rows) * _MEASURED_SHARE) if sizes.warmup_steps else len(rows)
        batches = min(sizes.examples, most) // sizes.batch_size
        measured[task], others[task] = np.split(order, [batches * sizes.batch_size])
        if batches < FEWEST_BATCHES:
            few.append(f"{task}: {len(rows)} rows give {batches} mini-batches of {sizes.batch_size}")
    if few:
        raise UsageError(
            "\n".join(f"{each}; expected {FEWEST_BATCHES} or more" for each in few)
            + "\nmeasure more --examples, or choose a smaller --batch-size, or add rows"
        )
    return measured, others


@dataclass(frozen=True)
class _InTurn:
    """A schedule: a batch of each task a step, from its rows in their order, again and again."""

    rows: Mapping[str, Indices]
    epoch_steps: int

    @property
    def epoch_examples(self) -> dict[str, int]:
        """Examples of each task in all steps."""
        return dict.fromkeys(self.rows, self.epoch_steps * WARMUP_BATCH)

    def step(self, index: int) -> Step:
        """The step at ``index``."""
        places = np.arange(index * WARMUP_BATCH, (index + 1) * WARMUP_BATCH)
        return Step(index, 0, tuple(Part(task, rows.take(places, mode="wrap")) for task, rows in self.rows.items()))


def _warm_heads(parts: Parts, model: MultiTaskModel, stage: Stage, rows: Mapping[str, Indices], count: int) -> None:
    """Trains the heads for ``count`` steps while all else is as it is."""
    changes = {"name": "warm-up", "freeze": _FROZEN, "optimizer": AdamWOptions(lr=WARMUP_RATE), "accumulation": 1}
    recipe = parts.recipe.with_changes(stages=[stage.model_copy(update=changes)])
    plan = plan_stages(replace(parts, recipe=recipe), model)[0]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in plan.trainable)
    for _ in steps(plan.learner, _InTurn(rows, count), lambda _: 1.0, start=0, stop=count):
        pass


def _products(vectors: Tensor) -> NDArray[np.float64]:
    """Inner products (N, N) of ``vectors`` (N, F), summed in double precision."""
    found = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    for block in vectors.split(4096, dim=1):
        double = block.double()
        found += double @ double.t()
    return found.numpy()


class _Telling(Observer):
    """Passes on what happens while data is read."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def event(self, text: str) -> None:
        """Says it."""
        self._tell(text)
