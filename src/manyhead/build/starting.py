"""What a run begins with: which weights of its checkpoint it takes over, and what is new."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from manyhead.build.importing import NewHead, TakenHead, match_head, take_head
from manyhead.encoder.classifier import Classifier, brings_pooler, read_classifier
from manyhead.encoder.copied_encoder import CopiedEncoder
from manyhead.encoder.per_task import PerTask
from manyhead.encoder.sentence import SentenceModel
from manyhead.encoder.source import EncoderSource
from manyhead.errors import ManyheadError, Problem, UsageError
from manyhead.inference.model_folder import RECIPE, StoredModel, model_in
from manyhead.model import MultiTaskModel
from manyhead.recipe.schema import Recipe, Tables, Task
from manyhead.recipe.stored import load_stored_recipe

_KEY = "encoder.checkpoint"


@dataclass(frozen=True)
class Start:
    """Parts of the model whose first weights are the checkpoint's, each with how, and those that are new, with why.

    ``heads`` says how tasks take over ``classifier``. ``notes`` are lines for the user, ``problems`` keys without
    places.
    """

    kept: Mapping[str, str] = field(default_factory=dict)
    new: Mapping[str, str] = field(default_factory=dict)
    classifier: Classifier | None = None
    heads: Mapping[str, TakenHead] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """What state.json says of it."""
        return {"kept": dict(self.kept), "new": dict(self.new)}

    def take_heads(self, model: MultiTaskModel) -> None:
        """Gives ``model`` the heads that come from a checkpoint of others."""
        for name, taken in self.heads.items():
            assert self.classifier is not None
            take_head(model, name, self.classifier, taken)


def plan_start(recipe: Recipe, tables: Tables, source: EncoderSource) -> Start:
    """What a run of ``recipe`` takes over from ``source``. Raises `UsageError` for damaged files of others."""
    if source.kind != "manyhead":
        return _from_others(recipe, tables, source)
    try:
        stored = load_stored_recipe(model_in(source.folder) / RECIPE, plugins=recipe.plugins).recipe
    except ManyheadError:  # said where the model itself is read, which needs more than its recipe
        return Start()
    return _from_ours(recipe, stored)


def _from_others(recipe: Recipe, tables: Tables, source: EncoderSource) -> Start:
    options, classifier = recipe.encoder, read_classifier(source.folder)
    kept, new = {"encoder": "the checkpoint's"}, _other_parts(recipe)
    if options.pooling.kind == "pooler":
        if brings_pooler(source.folder):
            kept["pooling"] = "the checkpoint's pooler"
        else:
            new["pooling"] = "the checkpoint brings no pooler"
    found = {name: _head(recipe, tables, name, classifier) for name in recipe.tasks}
    taken = {name: each for name, each in found.items() if isinstance(each, TakenHead)}
    lost = {name: each for name, each in found.items() if isinstance(each, NewHead)}
    kept |= {f"heads.{name}": each.how for name, each in taken.items()}
    new |= {f"heads.{name}": each.why for name, each in lost.items()}
    notes = [f"{_KEY}: the head of {name} is the checkpoint's: {each.how}" for name, each in taken.items()]
    asked = {name for name in lost if recipe.tasks[name].head_from == "checkpoint"}
    if classifier is not None:
        notes += [_told(name, each) for name, each in lost.items() if name not in asked and (each.told or not taken)]
    if source.sentence is not None:
        notes += _sentence_notes(recipe, source.sentence)
    problems = [_asked(name, lost[name]) for name in lost if name in asked]
    return Start(kept, new, classifier, taken, tuple(notes), tuple(problems))


def _head(recipe: Recipe, tables: Tables, name: str, classifier: Classifier | None) -> TakenHead | NewHead:
    if classifier is not None:
        return match_head(recipe, tables, name, classifier)
    expected = "one whose config.json names a ...ForSequenceClassification among its architectures"
    return NewHead("the checkpoint has no classification head", expected)


def _told(name: str, lost: NewHead) -> str:
    return str(Problem(f"the head of {name} is new: {lost.why}", key=_KEY, expected=lost.expected))


def _asked(name: str, lost: NewHead) -> Problem:
    do = "use another checkpoint, or leave head_from out for a new head"
    problem = f"the checkpoint's head cannot be taken over: {lost.why}"
    return Problem(problem, key=f"tasks.{name}.head_from", expected=lost.expected, do=do)


def _other_parts(recipe: Recipe) -> dict[str, str]:
    """Parts that no checkpoint of others brings."""
    options, why = recipe.encoder, "the checkpoint brings none"
    new = {"pooling": why} if options.pooling.kind == "conv" else {}
    new |= {"projections": why} if options.projections else {}
    return new | ({"experts": why} if options.experts is not None and options.experts.kind != "copies" else {})


def _sentence_notes(recipe: Recipe, sentence: SentenceModel) -> list[str]:
    """How it pools beside how the recipe does, and what of it is left out, a line each."""
    own, notes = recipe.encoder.pooling.kind, list[str]()
    what = f"{_KEY}: a sentence-transformers model"
    if sentence.pools_by is not None and sentence.pooling is None:
        notes.append(f"{what} that pools by {sentence.pools_by}, which manyhead has not; the recipe pools by {own}")
    elif sentence.pooling is not None and sentence.pooling != own:
        do = f"write encoder.pooling: {sentence.pooling} to begin with its embeddings"
        notes.append(f"{what} that pools by {sentence.pools_by}, the recipe by {own}; {do}")
    elif sentence.pooling is not None:
        notes.append(f"{what} that pools by {sentence.pools_by}, as the recipe does")
    if sentence.left_out:
        notes.append(f"{what}; left out: {', '.join(sentence.left_out)}")
    return notes


def _from_ours(recipe: Recipe, stored: Recipe) -> Start:
    kept, new = {"encoder": "the checkpoint's"}, dict[str, str]()

    def add(part: str, *, same: bool, other: str) -> None:
        (kept if same else new)[part] = "the checkpoint's" if same else other

    before, now = stored.encoder, recipe.encoder
    add("pooling", same=before.pooling == now.pooling, other=f"the checkpoint pools by {before.pooling.kind}")
    if now.projections:
        add("projections", same=before.projections == now.projections, other="the checkpoint has others")
    problems: list[Problem] = []
    for name, task in recipe.tasks.items():
        if now.experts is not None and now.experts.kind != "copies":
            same = name in stored.tasks and before.experts == now.experts
            add(f"experts.{name}", same=same, other="the checkpoint has others")
        lost = _lost(recipe, stored, name)
        add(f"heads.{name}", same=lost is None, other=lost.why if lost else "")
        if lost is not None and task.head_from == "checkpoint":
            problems.append(_asked(name, lost))
    return Start(kept, new, problems=tuple(problems))


def _lost(recipe: Recipe, stored: Recipe, name: str) -> NewHead | None:
    """Why the head of a task is not that of the stored model."""
    task, before = recipe.tasks[name], stored.tasks.get(name)
    if task.head_from == "new":
        return NewHead("the recipe wants a new one")
    if before is None:
        return NewHead(f"the checkpoint has no task '{name}'", f"one of {', '.join(stored.tasks)}")
    if _same_head(before, task):
        return None
    if before.label_names != task.label_names:
        theirs, ours = ", ".join(before.label_names), ", ".join(task.label_names)
        return NewHead(f"the checkpoint's classes are {theirs or 'none'}, the task's {ours or 'none'}")
    return NewHead("the checkpoint's has another shape, loss or pairing, or other cells for its labels")


def take_weights(model: MultiTaskModel, recipe: Recipe, stored: StoredModel) -> None:
    """Gives ``model`` the weights of ``stored`` that fit its ``recipe``.

    The encoder's always; those of pooling and projections where both recipes have the same; of experts and heads task
    by task, where the task has the same. Copies start from a shared encoder, or each from the copy of its task.
    Raises `UsageError` where the stored model has copies that are not asked for, or none for a task.
    """
    _check_copies(model, stored)
    before, now = stored.recipe.encoder, recipe.encoder
    _take(_parts(model.encoder), _parts(stored.model.encoder))
    if before.pooling == now.pooling:
        _take(model.pooling, stored.model.pooling)
    if before.projections == now.projections:
        _take(model.projections, stored.model.projections)
    for name, task in recipe.tasks.items():
        if name not in stored.recipe.tasks:
            continue
        if before.experts == now.experts and name in model.experts.tasks:
            _take(model.experts.of(name), stored.model.experts.of(name))
        if task.head_from != "new" and _same_head(stored.recipe.tasks[name], task):
            _take(model.head(name), stored.model.head(name))
            threshold = stored.model.threshold(name)
            if threshold is not None:
                model.set_threshold(name, float(threshold))


def _check_copies(model: MultiTaskModel, stored: StoredModel) -> None:
    if not isinstance(stored.model.encoder, CopiedEncoder):
        return
    place = f"encoder.checkpoint: {stored.folder} has one encoder for each task"
    if not isinstance(model.encoder, CopiedEncoder):
        raise UsageError(f"{place}, and none for all; expected experts: copies; write it, or start from another one")
    known = stored.model.encoder.copies.tasks
    missing = [task for task in model.encoder.copies.tasks if task not in known]
    if missing:
        raise UsageError(
            f"{place}, and none for {', '.join(missing)}; expected tasks among {', '.join(known)}; "
            "rename the task, or start from another one"
        )


def _parts(encoder: nn.Module) -> nn.Module:
    return encoder.copies if isinstance(encoder, CopiedEncoder) else encoder


def _take(own: nn.Module, other: nn.Module) -> None:
    if not isinstance(own, PerTask):
        own.load_state_dict(other.state_dict())
        return
    for task in own.tasks:
        own.of(task).load_state_dict((other.of(task) if isinstance(other, PerTask) else other).state_dict())


def _same_head(before: Task, now: Task) -> bool:
    def shape(task: Task) -> tuple[object, ...]:
        # Labels as lists: two mappings in another order are equal, their classes are not.
        return task.kind, task.label_cells, task.label_names, task.head, task.loss, task.sequences_per_example

    return shape(before) == shape(now)
