"""What the losses of a task owe to what it predicts, and to its texts."""

from collections.abc import Iterator

from manyhead.objectives import CLASSIFICATION, REGRESSION, TWO_CLASSES, VECTOR_LOSSES
from manyhead.recipe.faults import Fault
from manyhead.recipe.keys import Keys
from manyhead.recipe.schema import Task


def loss_faults(at: Keys, task: Task) -> Iterator[Fault]:
    """Yield the faults of the losses of the task at ``at``, but for those of cosines and heads."""
    yield from _fits((*at, "loss", "kind"), task.loss.kind, at, task)
    yield from _whole_numbers(at, task)
    yield from _idle(at, task)
    for place, each in enumerate(task.auxiliary):
        key = (*at, "auxiliary", str(place), "kind")
        if each.kind in {*CLASSIFICATION, *REGRESSION} - {*VECTOR_LOSSES}:
            problem = f"'{each.kind}' reads the head's outputs, which are those of the task's loss"
            yield Fault(key, problem, f"one of {', '.join(VECTOR_LOSSES)}", "remove it")
            continue
        yield from _fits(key, each.kind, at, task)
        if each.kind in VECTOR_LOSSES and task.kind == "classification" and task.sequences_per_example != 2:
            do, reads = "name two text columns and set pairing: siamese", ((*at, "pairing"), (*at, "text"))
            yield Fault(key, f"{each.kind} needs a siamese pair", do=do, reads=reads)


def _fits(key: Keys, loss: str, at: Keys, task: Task) -> Iterator[Fault]:
    """Whether a loss is one of the task's kind and number of classes."""
    kind = ((*at, "kind"),)
    fitting = CLASSIFICATION if task.kind == "classification" else REGRESSION
    if loss in {*CLASSIFICATION, *REGRESSION} - set(fitting):
        is_main = key[-2] == "loss"
        expected = f"one of {', '.join(fitting)}" if is_main else None
        yield Fault(key, f"'{loss}' is no loss of a {task.kind}", expected, None if is_main else "remove it", kind)
    elif loss in TWO_CLASSES and task.labels is not None and len(task.labels) != 2:
        problem, do = f"'{loss}' is for two classes, and there are {len(task.labels)}", "write loss: cross_entropy"
        yield Fault(key, problem, do=do if key[-2] == "loss" else "remove it", reads=(*kind, (*at, "labels")))


def _whole_numbers(at: Keys, task: Task) -> Iterator[Fault]:
    """The classes of score_cross_entropy are the whole numbers of the range."""
    if task.kind != "regression" or task.loss.kind != "score_cross_entropy":
        return
    if task.range is None or not all(end.is_integer() for end in task.range):
        problem = "is missing, and score_cross_entropy needs it" if task.range is None else "has an end in between"
        expected = "two whole numbers, such as [0, 5]: each one between them is a class"
        yield Fault((*at, "range"), problem, expected, reads=((*at, "loss", "kind"), (*at, "kind")))


def _idle(at: Keys, task: Task) -> Iterator[Fault]:
    """Keys that a loss of vectors would not heed."""
    if task.kind != "classification" or task.loss.kind not in VECTOR_LOSSES:
        return
    loss, head = (*at, "loss", "kind"), (*at, "head", "kind")
    if getattr(task.loss, "weight", 1.0) != 1.0:
        problem, do = "only an auxiliary loss has a weight", "remove it, or weigh the task by balancing"
        yield Fault((*at, "loss", "weight"), problem, do=do, reads=(loss,))
    for key, given in (("class_weights", task.class_weights is not None), ("label_smoothing", task.label_smoothing)):
        if given:
            yield Fault((*at, key), f"'{task.loss.kind}' has no use for it", do="remove it", reads=(loss,))
    for key in ("dropout", "mlp"):
        if task.head.kind == "cosine" and getattr(task.head, key, None):
            problem, do = f"'{task.loss.kind}' learns from the vectors before the head", "remove it"
            yield Fault((*at, "head", key), problem, do=do, reads=(loss, head))
