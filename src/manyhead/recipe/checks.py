"""What the keys of a recipe owe to each other: checks that no single key can fail alone."""

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping

from manyhead.balancing import WeightedBalancing
from manyhead.objectives import CLASSIFICATION, REGRESSION
from manyhead.recipe.faults import Fault, choice
from manyhead.recipe.keys import Keys, key_text
from manyhead.recipe.schema import METRICS, Recipe, Stage, Task, cell_text
from manyhead.schedules import SequentialSchedule

Check = Callable[[Keys, Task], Iterator[Fault]]


def check(recipe: Recipe) -> Iterator[Fault]:
    """Yield every fault of a recipe whose keys are valid one by one."""
    for name, task in recipe.tasks.items():
        for part in _TASK_CHECKS:
            yield from part(("tasks", name), task)
    yield from _trained(recipe)
    yield from _repeated((("stages", str(place), "name"), stage.name) for place, stage in enumerate(recipe.stages))
    for place, stage in enumerate(recipe.stages):
        yield from _check_stage(("stages", str(place)), stage, recipe)


def _columns(at: Keys, task: Task) -> Iterator[Fault]:
    if len(set(task.text)) < len(task.text):
        yield Fault((*at, "text"), f"the column '{task.text[0]}' is there twice", do="name the second text's column")
    if task.target in task.text:
        problem = f"the column '{task.target}' is a text too"
        yield Fault((*at, "target"), problem, do="name the column that is predicted", reads=((*at, "text"),))
    if task.pairing == "siamese" and not task.is_pair:
        problem, do = "a siamese task needs two texts", "name two columns in text, or leave pairing out"
        yield Fault((*at, "pairing"), problem, do=do, reads=((*at, "text"),))


def _files(at: Keys, task: Task) -> Iterator[Fault]:
    files = task.files
    if files.train is None and files.dev is None and files.test is None:
        yield Fault((*at, "files"), "names no file", "a train, dev or test file")
    if files.train is None and files.dev is not None and not isinstance(files.dev, str):
        problem, do = "there is no train file to cut a dev split from", "add files.train, or name a dev file"
        yield Fault((*at, "files", "dev"), problem, do=do, reads=((*at, "files", "train"),))


def _classes(at: Keys, task: Task) -> Iterator[Fault]:
    """A classification's labels; and that a regression has none of what belongs to classes."""
    kind = ((*at, "kind"),)
    if task.kind == "regression":
        for key, given in (
            ("labels", task.labels is not None),
            ("class_weights", task.class_weights is not None),
            ("label_smoothing", task.label_smoothing != 0),
        ):
            if given:
                do = "remove it, or set kind: classification"
                yield Fault((*at, key), "a regression has no classes", do=do, reads=kind)
        return
    if task.range is not None:
        do = "remove it, or set kind: regression"
        yield Fault((*at, "range"), "a classification has no range", do=do, reads=kind)
    if task.labels is None:
        do = "write labels: {0: NAME, 1: NAME, ...}, or a list of names when the cells hold the names"
        yield Fault((*at, "labels"), "is missing", "the cell values of the classes and their names", do, kind)
        return
    if len(task.labels) < 2:
        yield Fault((*at, "labels"), f"there are {len(task.labels)} labels", "two or more", reads=kind)
    keys = list(task.labels) if isinstance(task.labels, dict) else range(len(task.labels))
    at_labels = [(*at, "labels", key_text(key)) for key in keys]
    yield from _repeated(zip(at_labels, task.label_names, strict=True))
    for key, name in zip(at_labels, task.label_names, strict=True):
        if not name.strip() or name != name.strip() or not name.isprintable():
            expected = "text on one line with no space at its ends, since it becomes a column's header"
            yield Fault(key, f"the label {name!r} cannot be a name", expected)


def _weights(at: Keys, task: Task) -> Iterator[Fault]:
    if not isinstance(task.class_weights, dict) or task.labels is None:
        return
    reads = ((*at, "labels"), (*at, "kind"))
    for cell, weight in task.class_weights.items():
        key = (*at, "class_weights", cell_text(cell))
        if cell not in task.label_cells:
            expected, do = choice(cell_text(cell), map(cell_text, task.label_cells))
            yield Fault(key, f"{cell!r} is not among the labels", expected, do or "write it as labels has it", reads)
        if weight < 0:
            yield Fault(key, f"the weight is {weight}", "a number >= 0", reads=reads)


def _range(at: Keys, task: Task) -> Iterator[Fault]:
    if task.range is not None and task.range[0] >= task.range[1]:
        yield Fault((*at, "range"), f"the lowest, {task.range[0]}, is not below the highest, {task.range[1]}")


def _loss(at: Keys, task: Task) -> Iterator[Fault]:
    loss, kind = (*at, "loss", "kind"), ((*at, "kind"),)
    fitting = CLASSIFICATION if task.kind == "classification" else REGRESSION
    if task.loss.kind in {*CLASSIFICATION, *REGRESSION} - set(fitting):
        yield Fault(loss, f"'{task.loss.kind}' is no loss of a {task.kind}", f"one of {', '.join(fitting)}", reads=kind)
    elif task.loss.kind == "bce" and task.labels is not None and len(task.labels) != 2:
        problem, do = f"'bce' is for two classes, and there are {len(task.labels)}", "write loss: cross_entropy"
        yield Fault(loss, problem, do=do, reads=(*kind, (*at, "labels")))


def _cosine(at: Keys, task: Task) -> Iterator[Fault]:
    """The cosine head and the cosine loss need each other, a siamese pair, and a range that a cosine can reach."""
    head, loss = (*at, "head", "kind"), (*at, "loss", "kind")
    siamese = ((*at, "pairing"), (*at, "text"))
    has_head, has_loss = task.head.kind == "cosine", task.loss.kind == "cosine_mse" and task.kind == "regression"
    needs_pair = [(head, "the cosine head")] if has_head else [(loss, "cosine_mse")] if has_loss else []
    for key, what in needs_pair:
        if task.sequences_per_example != 2:
            do = "name two text columns and set pairing: siamese"
            yield Fault(key, f"{what} needs a siamese pair", do=do, reads=siamese)
    if has_loss and not has_head:
        yield Fault(loss, "cosine_mse needs the cosine head", do="set head: cosine", reads=(head,))
    if has_head and task.loss.kind in {*CLASSIFICATION, *REGRESSION} - {"cosine_mse"}:
        problem, do = f"the cosine head does not fit '{task.loss.kind}'", "set loss: cosine_mse, or another head"
        yield Fault(head, problem, do=do, reads=(loss, (*at, "kind")))
    if has_loss and (task.range is None or task.range[0] < 0):
        expected = "a range whose lowest is at least 0, such as [0, 5]: the cosine times the highest is the score"
        problem = "is missing, and cosine_mse needs it" if task.range is None else f"begins below 0, at {task.range[0]}"
        yield Fault((*at, "range"), problem, expected, reads=(loss, (*at, "kind")))


def _metric(at: Keys, task: Task) -> Iterator[Fault]:
    yield from _fit((*at, "metric"), task.metric, task, at)


def _fit(key: Keys, metric: str, task: Task, at: Keys) -> Iterator[Fault]:
    """Whether ``metric`` can score ``task``."""
    facts = METRICS.get(metric)
    fitting = [name for name, each in METRICS.items() if each.kind == task.kind]
    reads = ((*at, "kind"), (*at, "labels"))
    if facts is None:
        expected, do = choice(metric, fitting)
        yield Fault(key, f"unknown metric '{metric}'", expected, do, reads)
    elif facts.kind != task.kind:
        yield Fault(key, f"'{metric}' is no metric of a {task.kind}", f"one of {', '.join(fitting)}", reads=reads)
    elif facts.n_classes is not None and task.labels is not None and len(task.labels) != facts.n_classes:
        problem = f"'{metric}' is for {facts.n_classes} classes, and there are {len(task.labels)}"
        yield Fault(key, problem, do="write macro_f1" if metric == "f1" else None, reads=reads)


_TASK_CHECKS: tuple[Check, ...] = (_columns, _files, _classes, _weights, _range, _loss, _cosine, _metric)


def _trained(recipe: Recipe) -> Iterator[Fault]:
    train = [("tasks", name, "files", "train") for name in recipe.tasks]
    if all(task.files.train is None for task in recipe.tasks.values()):
        yield Fault(train[0], "no task has a train file", do="add files.train to a task", reads=tuple(train))


def _check_stage(at: Keys, stage: Stage, recipe: Recipe) -> Iterator[Fault]:
    yield from _stage_tasks((*at, "tasks"), stage.tasks, recipe)
    for below, name in _named_tasks(stage):
        key = (*at, *below)
        known = yield from _is_task(key, name, recipe)
        if known and name not in recipe.trained_tasks(stage):
            reads = ((*at, "tasks"), ("tasks", name, "files", "train"))
            do = "remove it, or add the task to tasks"
            yield Fault(key, f"this stage does not train '{name}'", do=do, reads=reads)
    yield from _left_out(at, stage, recipe)
    yield from _subsample((*at, "subsample"), stage)
    yield from _scores(at, stage, recipe)


def _stage_tasks(key: Keys, names: list[str] | None, recipe: Recipe) -> Iterator[Fault]:
    if names is None:
        return
    if not names:
        yield Fault(key, "names no task", "one or more tasks", "leave it out to train every task that has a train file")
    places = [((*key, str(place)), name) for place, name in enumerate(names)]
    yield from _repeated(places)
    for place, name in places:
        known = yield from _is_task(place, name, recipe)
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
    if isinstance(stage.balancing, WeightedBalancing):
        mappings[("balancing", "weights")] = stage.balancing.weights
    yield from (((*key, name), name) for key, mapping in mappings.items() for name in mapping)
    yield from ((("balanced", str(place)), name) for place, name in enumerate(stage.balanced))
    yield from ((("schedule", "order", str(place)), name) for place, name in enumerate(_order(stage) or ()))


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
        yield from _repeated(((*key, str(place)), name) for place, name in enumerate(order))
    yield from _repeated(((*at, "balanced", str(place)), name) for place, name in enumerate(stage.balanced))


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
        for name, task in scored.items():
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
        yield from _fit(key, metric, recipe.tasks[name], ("tasks", name))


def _is_task(key: Keys, name: str, recipe: Recipe) -> Generator[Fault, None, bool]:
    """Yield a fault for a name that is no task's; return whether it is one's."""
    if name in recipe.tasks:
        return True
    expected, do = choice(name, recipe.tasks)
    yield Fault(key, f"there is no task '{name}'", expected, do, reads=(("tasks", name),))
    return False


def _repeated(names: Iterable[tuple[Keys, str]]) -> Iterator[Fault]:
    """Faults at the second and later places of each name."""
    seen: set[str] = set()
    for key, name in names:
        if name in seen:
            yield Fault(key, f"'{name}' is there twice", do="remove it or give it another name")
        seen.add(name)
