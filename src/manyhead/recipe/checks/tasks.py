"""What the keys of a task owe to each other."""

from collections.abc import Callable, Iterator

from manyhead.heads import COSINE_LOSSES, HEADS, PAIR_HEADS, RelatedHead
from manyhead.objectives import CLASSIFICATION, REGRESSION
from manyhead.recipe.checks.losses import loss_faults
from manyhead.recipe.checks.shared import fits, is_task, repeated
from manyhead.recipe.faults import Fault, choice
from manyhead.recipe.keys import Keys, key_text
from manyhead.recipe.schema import Recipe, Task, cell_text

Check = Callable[[Keys, Task], Iterator[Fault]]


def task_faults(at: Keys, task: Task) -> Iterator[Fault]:
    """Yield every fault of the task at ``at``."""
    for part in _CHECKS:
        yield from part(at, task)


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
    if task.target_cast != "none":
        do = "remove it, or set kind: regression"
        yield Fault((*at, "target_cast"), "a classification has no score to cut", do=do, reads=kind)
    if task.labels is None:
        do = "write labels: {0: NAME, 1: NAME, ...}, or a list of names when the cells hold the names"
        yield Fault((*at, "labels"), "is missing", "the cell values of the classes and their names", do, kind)
        return
    if len(task.labels) < 2:
        yield Fault((*at, "labels"), f"there are {len(task.labels)} labels", "two or more", reads=kind)
    keys = list(task.labels) if isinstance(task.labels, dict) else range(len(task.labels))
    at_labels = [(*at, "labels", key_text(key)) for key in keys]
    yield from repeated(zip(at_labels, task.label_names, strict=True))
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


def _cosine(at: Keys, task: Task) -> Iterator[Fault]:
    """Heads of siamese pairs, and losses of cosines: what they need of each other, of the texts and of the range."""
    head, loss = (*at, "head", "kind"), (*at, "loss", "kind")
    fitting = CLASSIFICATION if task.kind == "classification" else REGRESSION
    has_head, has_loss = task.head.kind in PAIR_HEADS, task.loss.kind in {*COSINE_LOSSES} & {*fitting}
    if (has_head or has_loss) and task.sequences_per_example != 2:
        what = f"the {task.head.kind} head" if has_head else task.loss.kind
        do, reads = "name two text columns and set pairing: siamese", ((*at, "pairing"), (*at, "text"))
        yield Fault(head if has_head else loss, f"{what} needs a siamese pair", do=do, reads=reads)
    if has_loss and task.head.kind in {*HEADS} - {"cosine"}:
        yield Fault(loss, f"{task.loss.kind} needs the cosine head", do="set head: cosine", reads=(head,))
    elif has_head and task.loss.kind in {*CLASSIFICATION, *REGRESSION} - {*PAIR_HEADS[task.head.kind]}:
        losses = " or ".join(each for each in PAIR_HEADS[task.head.kind] if each in fitting)
        problem, do = (
            f"the {task.head.kind} head does not fit '{task.loss.kind}'",
            f"set loss: {losses}, or another head",
        )
        yield Fault(head, problem, do=do, reads=(loss, (*at, "kind")))
    if task.loss.kind == "cosine_mse" and has_loss and (task.range is None or task.range[0] < 0):
        expected = "a range whose lowest is at least 0, such as [0, 5]: the cosine times the highest is the score"
        problem = "is missing, and cosine_mse needs it" if task.range is None else f"begins below 0, at {task.range[0]}"
        yield Fault((*at, "range"), problem, expected, reads=(loss, (*at, "kind")))


def related_faults(at: Keys, task: Task, recipe: Recipe) -> Iterator[Fault]:
    """Yield what keeps the related head of the task at ``at`` from reading the task that it names."""
    if not isinstance(task.head, RelatedHead):
        return
    key = (*at, "head", "to")
    known = yield from is_task(key, task.head.to, recipe)
    if not known:
        return
    other, there = recipe.tasks[task.head.to], ("tasks", task.head.to)
    if isinstance(other.head, RelatedHead):
        problem = f"'{task.head.to}' has a related head itself"
        yield Fault(key, problem, "a task with another head", reads=((*there, "head"),))
    if other.kind != "classification":
        yield Fault(key, f"'{task.head.to}' has no classes", "a classification", reads=((*there, "kind"),))
    if other.sequences_per_example != task.sequences_per_example:
        problem = f"'{task.head.to}' reads other vectors: {other.sequences_per_example} an example"
        expected = f"a task with {task.sequences_per_example}"
        yield Fault(key, problem, expected, reads=((*there, "pairing"), (*at, "pairing")))


def _metric(at: Keys, task: Task) -> Iterator[Fault]:
    yield from fits((*at, "metric"), task.metric, task, at)


_CHECKS: tuple[Check, ...] = (_columns, _files, _classes, _weights, _range, loss_faults, _cosine, _metric)
