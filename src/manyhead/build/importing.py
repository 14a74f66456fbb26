"""Starting from a checkpoint of others: whether a task takes over its classification head, and how classes map."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from manyhead.encoder.classifier import Classifier, Layout, head_text
from manyhead.heads import LinearHead, MlpHead
from manyhead.model import MultiTaskModel, build_objective
from manyhead.recipe.schema import Encoder, Recipe, Tables, Task, cell_text

_SAME_ENCODER = ("copies", "low_rank")
"""Experts that leave what the encoder computes as it is until they have learned."""


@dataclass(frozen=True)
class TakenHead:
    """How a task takes over a checkpoint's head: row i of ours is row ``order[i]`` of theirs, less ``minus`` if any.

    ``how`` says which class became which, and by what they were matched.
    """

    order: tuple[int, ...]
    minus: int | None
    how: str


@dataclass(frozen=True)
class NewHead:
    """Why a task's head is new. ``told``: the checkpoint's would have fitted its classes, so it is worth a line."""

    why: str
    expected: str | None = None
    told: bool = False


class _NotTakenError(Exception):
    """Ends the matching of a head with why it is new."""

    def __init__(self, why: str, expected: str | None = None, *, told: bool = False) -> None:
        super().__init__(why)
        self.found = NewHead(why, expected, told)


def match_head(recipe: Recipe, tables: Tables, name: str, classifier: Classifier) -> TakenHead | NewHead:
    """What becomes of the head of task ``name``.

    Where the recipe leaves it open (``head_from: auto``), names have to say which class is which; where it asks for the
    checkpoint's head, numbers may: classes LABEL_0 and so on in the order of whole-numbered cells, or of the labels.
    """
    task = recipe.tasks[name]
    if task.head_from == "new":
        return NewHead("the recipe wants a new one")
    try:
        taken = _rows(task, build_objective(task, tables).outputs, classifier)
        if classifier.layout is None:
            raise _NotTakenError(f"no head of manyhead computes what {classifier.architecture} does", told=True)
        if wanted := list(_wanted(recipe.encoder, task, classifier.layout, classifier)):
            raise _NotTakenError("the recipe computes it otherwise", ", ".join(wanted), told=True)
    except _NotTakenError as error:
        return error.found
    return taken


def take_head(model: MultiTaskModel, name: str, classifier: Classifier, taken: TakenHead) -> None:
    """Gives the head of task ``name`` the checkpoint's weights."""
    tensors = classifier.tensors()
    for kind in ("weight", "bias"):
        tensors[f"{classifier.last}.{kind}"] = _picked(tensors[f"{classifier.last}.{kind}"], taken)
    model.head(name).load_state_dict(tensors)


def _picked(rows: Tensor, taken: TakenHead) -> Tensor:
    picked = rows[list(taken.order)]
    return picked if taken.minus is None else picked - rows[taken.minus : taken.minus + 1]


def _rows(task: Task, outputs: int, classifier: Classifier) -> TakenHead:
    """Which output of the checkpoint each of ours is."""
    theirs, ours = (", ".join(labels) for labels in (classifier.labels, task.label_names))
    if classifier.several:
        raise _NotTakenError(f"the checkpoint answers each of {theirs} with yes or no", "one class of several")
    if classifier.outputs == 1:
        return _only_row(task, outputs)
    if task.kind == "regression":
        raise _NotTakenError(f"the checkpoint gives {classifier.outputs} classes ({theirs}), not a score")
    if len(task.label_names) != classifier.outputs:
        counts = f"{classifier.outputs} classes ({theirs}), the task {len(task.label_names)} ({ours})"
        raise _NotTakenError(f"the checkpoint has {counts}")
    order, by = _order(task, classifier)
    pairs = zip(task.label_names, order, strict=True)
    how = ", ".join(f"{name} from {classifier.labels[row]}" for name, row in pairs) + f", {by}"
    if outputs == len(order):
        return TakenHead(order, None, how)
    if outputs == 1:  # one logit of the second class: the difference of the two
        return TakenHead(order[1:], order[0], how)
    raise _NotTakenError(f"the loss {task.loss.kind} reads {outputs} outputs, the checkpoint gives {len(order)}")


def _only_row(task: Task, outputs: int) -> TakenHead:
    """A single output: a score, or the logit of the second of two classes. No name says of what."""
    if outputs != 1:
        raise _NotTakenError(f"the checkpoint gives one number, the loss {task.loss.kind} reads {outputs}")
    what = "the score" if task.kind == "regression" else f"the logit of {task.label_names[1]}"
    if task.head_from != "checkpoint":
        expected = f"head_from: checkpoint, to take it for {what}"
        raise _NotTakenError("the checkpoint gives one number and says not of what", expected, told=True)
    return TakenHead((0,), None, f"its one output as {what}")


def _order(task: Task, classifier: Classifier) -> tuple[tuple[int, ...], str]:
    """The checkpoint's class for each of ours, by names, else by cells; by numbers only where that was asked for."""
    theirs = [label.strip().casefold() for label in classifier.labels]
    cells = [cell_text(cell) for cell in task.label_cells]
    for ours, by in ((task.label_names, "by name"), (cells, "by cell value")):
        wanted = [each.strip().casefold() for each in ours]
        if sorted(wanted) == sorted(theirs) and len(set(theirs)) == len(theirs):
            return tuple(theirs.index(each) for each in wanted), by
    why = f"the checkpoint's classes are {', '.join(classifier.labels)}, the task's {', '.join(task.label_names)}"
    if classifier.named:
        raise _NotTakenError(why, "the same names, in any order")
    if task.head_from != "checkpoint":
        raise _NotTakenError(why, "names, or head_from: checkpoint to go by numbers", told=True)
    if sorted(cells) == sorted(map(str, range(classifier.outputs))):
        return tuple(int(cell) for cell in cells), "by the cells' numbers, since the checkpoint has no names"
    return tuple(range(classifier.outputs)), "in the order of labels, since the checkpoint has no names"


def _wanted(options: Encoder, task: Task, layout: Layout, classifier: Classifier) -> Iterator[str]:
    """What the recipe has to say otherwise to compute what the checkpoint's head does."""
    if options.pooling.kind != layout.pooling:
        yield f"encoder.pooling: {layout.pooling}"
    if task.head.kind != layout.head or not _same_options(task, layout, classifier):
        yield f"head: {head_text(layout, classifier.width)}"
    if task.sequences_per_example == 2:
        yield "pairing: concat"
    if options.projections:
        yield "no encoder.projections"
    if options.layer != -1:
        yield "encoder.layer: -1"
    if options.sandwich_norm:
        yield "encoder.sandwich_norm: false"
    if options.experts is not None and options.experts.kind not in _SAME_ENCODER:
        yield f"no encoder.experts but {' or '.join(_SAME_ENCODER)}"


def _same_options(task: Task, layout: Layout, classifier: Classifier) -> bool:
    head = task.head
    if isinstance(head, MlpHead):
        return (head.width, head.depth, head.activation) == (classifier.width, 1, layout.activation)
    return isinstance(head, LinearHead)
