"""What the keys of a stage owe to each other, and to the tasks."""

from collections.abc import Collection, Iterable, Iterator, Mapping

from manyhead.balancing import ConstantOptions, FlsBalancing
from manyhead.recipe.checks.methods import method_faults
from manyhead.recipe.checks.shared import fits, is_task, repeated
from manyhead.recipe.faults import Fault, choice
from manyhead.recipe.keys import Keys
from manyhead.recipe.schema import METRICS, Recipe, Stage
from manyhead.regularisers import TaskRegulariser
from manyhead.schedules import SequentialSchedule


def stage_faults(at: Keys, stage: Stage, recipe: Recipe) -> Iterator[Fault]:
    """Yield every fault of the stage at ``at``."""
    yield from _stage_tasks((*at, "tasks"), stage.tasks, recipe)
    for below, name in _named_tasks(stage):
        key = (*at, *below)
        known = yield from is_task(key, name, recipe)
        if known and name not in recipe.trained_tasks(stage):
            reads = ((*at, "tasks"), ("tasks", name, "files", "train"))
            do = "remove it, or add the task to tasks"
            yield Fault(key, f"this stage does not train '{name}'", do=do, reads=reads)
    yield from _left_out(at, stage, recipe)
    yield from _subsample((*at, "subsample"), stage)
    yield from _scores(at, stage, recipe)
    yield from method_faults(at, stage, recipe)


def _stage_tasks(key: Keys, names: list[str] | None, recipe: Recipe) -> Iterator[Fault]:
    if names is None:
        return
    if not names:
        yield Fault(key, "names no task", "one or more tasks", "leave it out to train every task that has a train file")
    places = [((*key, str(place)), name) for place, name in enumerate(names)]
    yield from repeated(places)
    for place, name in places:
        known = yield from is_task(place, name, recipe)
        if known and recipe.tasks[name].files.train is None:
            train = ("tasks", name, "files", "train")
            do = f"add {'.'.join(train)}, or leave the task out"
            yield Fault(place, f"'{name}' has no train file", do=do, reads=(train,))


def _named_tasks(stage: Stage) -> Iterator[tuple[Keys, str]]:
    """The keys of a stage that name tasks it trains, below the stage."""
    mappings: dict[Keys, Mapping[str, object]] = {
        ("subsample",): stage.subsample,
        ("epoch_examples",): stage.epoch_examples,
    }
    if isinstance(stage.batch_size, dict):
        mappings[("batch_size",)] = stage.batch_size
    if isinstance(stage.balancing, ConstantOptions):
        mappings[("balancing", "weights")] = stage.balancing.weights
    yield from (((*key, name), name) for key, mapping in mappings.items() for name in mapping)
    yield from ((("balanced", str(place)), name) for place, name in enumerate(stage.balanced))
    yield from ((("schedule", "order", str(place)), name) for place, name in enumerate(_order(stage) or ()))
    listed: dict[Keys, Iterable[str]] = {}
    if isinstance(stage.balancing, FlsBalancing):
        listed[("balancing", "focus")] = stage.balancing.focus
    for place, regulariser in enumerate(stage.regularisers):
        if isinstance(regulariser, TaskRegulariser):
            listed[("regularisers", str(place), "tasks")] = regulariser.tasks or ()
    yield from (((*key, str(place)), name) for key, names in listed.items() for place, name in enumerate(names))


def _order(stage: Stage) -> list[str] | None:
    return stage.schedule.order if isinstance(stage.schedule, SequentialSchedule) else None


def _left_out(at: Keys, stage: Stage, recipe: Recipe) -> Iterator[Fault]:
    """Keys that have to name every task the stage trains, once."""
    trained = recipe.trained_tasks(stage)
    if isinstance(stage.batch_size, dict):
        yield from _covers((*at, "batch_size"), stage.batch_size, trained, at)
    order = _order(stage)
    if order is not None:
        key = (*at, "schedule", "order")
        yield from _covers(key, order, trained, at)
        yield from repeated(((*key, str(place)), name) for place, name in enumerate(order))
    yield from repeated(((*at, "balanced", str(place)), name) for place, name in enumerate(stage.balanced))


def _covers(key: Keys, names: Collection[str], trained: list[str], at: Keys) -> Iterator[Fault]:
    missing = [name for name in trained if name not in names]
    if missing:
        expected = "every task that the stage trains"
        yield Fault(key, f"leaves out {', '.join(missing)}", expected, reads=((*at, "tasks"),))


def _subsample(key: Keys, stage: Stage) -> Iterator[Fault]:
    for name, share in stage.subsample.items():
        if share == 1 or (share > 1 and not float(share).is_integer()):
            expected = "a share below 1, or a whole number of rows above 1"
            yield Fault((*key, name), f"cannot be {share:g}", expected, "leave the task out to use all its rows")


def _scores(at: Keys, stage: Stage, recipe: Recipe) -> Iterator[Fault]:
    """What picks the best checkpoint, and what stops early, needs a score."""
    key = (*at, "select_by")
    scored = {name: task for name, task in recipe.tasks.items() if task.files.dev is not None}
    if stage.early_stopping is not None and not scored:
        dev = tuple(("tasks", name, "files", "dev") for name in recipe.tasks)
        yield Fault((*at, "early_stopping"), "no task has a dev split", do="add files.dev to a task", reads=dev)
    if stage.select_by == "overall":
        trained = {name: task for name, task in scored.items() if name in recipe.trained_tasks(stage)}
        for name, task in (trained or scored).items():
            if task.metric in METRICS and not METRICS[task.metric].bounded:
                problem = f"'overall' is no score where a task's metric is {task.metric}, which has no bounds"
                do = f"write select_by: {name}.{task.metric}"
                yield Fault(key, problem, do=do, reads=(("tasks", name, "metric"),))
        return
    name, _, metric = stage.select_by.rpartition(".")
    if name not in recipe.tasks:
        _, do = choice(stage.select_by, ["overall", *(f"{name}.{task.metric}" for name, task in recipe.tasks.items())])
        yield Fault(key, f"'{stage.select_by}' is no score", "overall, or TASK.METRIC", do, (("tasks", name),))
    elif name not in scored:
        do = f"add tasks.{name}.files.dev, or write select_by: overall"
        yield Fault(key, f"'{name}' has no dev split", do=do, reads=(("tasks", name, "files", "dev"),))
    else:
        yield from fits(key, metric, recipe.tasks[name], ("tasks", name))
