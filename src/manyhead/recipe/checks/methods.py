"""Methods of a stage that contradict each other, or the tasks and schedule they meet."""

from collections.abc import Iterator, Sequence

from manyhead.balancing import BalancingOptions
from manyhead.encoder import CopiesExperts
from manyhead.pretraining import MaskedLanguageModel, PairSimCSE, SimCSE
from manyhead.recipe.checks.shared import repeated
from manyhead.recipe.faults import Fault, choice
from manyhead.recipe.keys import Keys
from manyhead.recipe.schema import Recipe, Stage, Task
from manyhead.regularisers import RDrop, TaskRegulariser
from manyhead.schedules import ScheduleOptions


def method_faults(at: Keys, stage: Stage, recipe: Recipe) -> Iterator[Fault]:
    """Yield the contradictions of the stage at ``at``."""
    yield from _several_tasks(at, stage, recipe)
    yield from _clipping(at, stage)
    yield from _pretraining(at, stage, recipe)
    yield from _regularisers(at, stage, recipe)
    yield from _freeze(at, stage)
    yield from _teachers(at, stage, recipe)


def _several_tasks(at: Keys, stage: Stage, recipe: Recipe) -> Iterator[Fault]:
    balancing, schedule = stage.balancing, stage.schedule
    if not (isinstance(balancing, BalancingOptions) and balancing.several_tasks):
        return
    key, problem = (*at, "balancing", "kind"), f"'{balancing.kind}' needs several tasks in a step"
    trained = recipe.trained_tasks(stage)
    if len(trained) == 1:
        reads = ((*at, "tasks"), *(("tasks", name, "files", "train") for name in recipe.tasks))
        yield Fault(key, f"{problem}, and this stage trains {trained[0]} alone", do="write sum", reads=reads)
    elif isinstance(schedule, ScheduleOptions) and schedule.one_task_a_step:
        do = "write sum, or a schedule with several, such as interleaved or parallel"
        problem = f"{problem}, and the schedule '{schedule.kind}' has one"
        yield Fault(key, problem, do=do, reads=((*at, "schedule"),))


def _clipping(at: Keys, stage: Stage) -> Iterator[Fault]:
    if stage.clip_norm is not None:
        return
    for key, given in (("clip_by", stage.clip_by == "task"), ("clip_always", stage.clip_always)):
        if given:
            do = "set clip_norm, or remove it"
            yield Fault((*at, key), "nothing is clipped where clip_norm is null", do=do, reads=((*at, "clip_norm"),))


def _pretraining(at: Keys, stage: Stage, recipe: Recipe) -> Iterator[Fault]:
    """Pretraining learns from texts: what acts on the tasks' targets and heads has no place beside it."""
    pretraining = stage.pretraining
    if pretraining is None:
        return
    key = (*at, "pretraining", "kind")
    do = "remove it, or give it a stage of its own"
    if stage.distillation is not None:
        problem = f"there is nothing to teach while '{pretraining.kind}' learns from texts alone"
        yield Fault((*at, "distillation"), problem, do=do, reads=(key,))
    if isinstance(stage.balancing, BalancingOptions) and stage.balancing.kind not in ("sum", "weighted"):
        problem = f"'{stage.balancing.kind}' balances the tasks, and '{pretraining.kind}' learns no task"
        yield Fault((*at, "balancing", "kind"), problem, "sum or weighted", "write sum", reads=(key,))
    if stage.clip_by == "task":
        problem = f"'{pretraining.kind}' learns no task whose gradient could be clipped"
        yield Fault((*at, "clip_by"), problem, do="write clip_by: all", reads=(key,))
    if stage.select_by != "overall":
        problem = f"dev is not scored while '{pretraining.kind}' learns, since no head is trained"
        yield Fault((*at, "select_by"), problem, do="remove it: the last weights are kept", reads=(key,))
    for place, regulariser in enumerate(stage.regularisers):
        if isinstance(regulariser, TaskRegulariser):
            problem = f"'{regulariser.kind}' acts on the tasks' outputs, and '{pretraining.kind}' learns no task"
            yield Fault((*at, "regularisers", str(place), "kind"), problem, do=do, reads=(key,))
    if stage.early_stopping is not None:
        problem = f"dev is not scored while '{pretraining.kind}' learns, since no head is trained"
        yield Fault((*at, "early_stopping"), problem, do="remove it, or set max_steps", reads=(key,))
    if isinstance(pretraining, MaskedLanguageModel) and isinstance(recipe.encoder.experts, CopiesExperts):
        problem, do = "'mlm' needs one encoder for all tasks, and copies are one for each", "use other experts"
        yield Fault(key, problem, do=do, reads=(("encoder", "experts"),))
    yield from _contrasts(key, stage, recipe)


def _contrasts(key: Keys, stage: Stage, recipe: Recipe) -> Iterator[Fault]:
    assert stage.pretraining is not None
    trained = {name: recipe.tasks[name] for name in recipe.trained_tasks(stage)}
    if isinstance(stage.pretraining, SimCSE) and not _drops(recipe, ()):
        problem = "without dropout both passes of a text are the same"
        do = "set encoder.dropout above 0, or use simcse_pairs"
        yield Fault(key, problem, do=do, reads=(("encoder",),))
    if not isinstance(stage.pretraining, PairSimCSE):
        return
    pairs = {name: task for name, task in trained.items() if task.is_pair}
    scores = {name: task for name, task in pairs.items() if task.kind == "regression"}
    if not scores and not any(len(task.labels or ()) == 2 for task in pairs.values()):
        problem, expected = (
            "this stage trains no task with like pairs",
            "a task of two texts with two classes or a score",
        )
        reads = ((*key[:2], "tasks"), *(("tasks", name) for name in recipe.tasks))
        yield Fault(key, problem, expected, "add one to tasks, or use simcse", reads)
    for name, task in scores.items():
        if task.range is None:
            expected = "the lowest and highest score, such as [0, 5]"
            yield Fault(("tasks", name, "range"), "is missing, and simcse_pairs needs it", expected, reads=(key,))


def _regularisers(at: Keys, stage: Stage, recipe: Recipe) -> Iterator[Fault]:
    for place, each in enumerate(stage.regularisers):
        tasks = (each.tasks or recipe.trained_tasks(stage)) if isinstance(each, RDrop) else []
        same = [name for name in tasks if not _drops(recipe, [name])]
        if same:
            problem = f"without dropout both passes of a text of {', '.join(same)} are the same"
            reads = (("encoder",), *(("tasks", name, "head") for name in same))
            key = (*at, "regularisers", str(place), "kind")
            yield Fault(key, problem, do="set encoder.dropout above 0", reads=reads)
        for name in tasks:
            if name in recipe.tasks and "cosine_triplet" in _losses(recipe.tasks[name]):
                problem = f"'{name}' has cosine_triplet, which needs the piece before, and r_drop runs each piece twice"
                reads = (("tasks", name, "loss"), ("tasks", name, "auxiliary"))
                key = (*at, "regularisers", str(place), "kind")
                yield Fault(key, problem, do=f"leave {name} out of its tasks", reads=reads)


def _freeze(at: Keys, stage: Stage) -> Iterator[Fault]:
    for place, pattern in enumerate(stage.freeze):
        key = (*at, "freeze", str(place))
        if not pattern.strip():
            yield Fault(key, "is empty", "a pattern of parameter names, such as encoder.*", "remove it")
        elif not pattern.strip("*"):
            yield Fault(key, f"'{pattern}' freezes everything", "a pattern that leaves something to train")


def _teachers(at: Keys, stage: Stage, recipe: Recipe) -> Iterator[Fault]:
    """A bare name is that of an earlier stage; a run or model has a slash in it."""
    if stage.distillation is None:
        return
    names = [each.name for each in recipe.stages]
    own = int(at[-1])
    key = (*at, "distillation", "teachers")
    places = [((*key, str(place)), name) for place, name in enumerate(stage.distillation.teachers)]
    yield from repeated(places)
    for place, name in places:
        reads = tuple(("stages", str(number), "name") for number in range(len(names)))
        if name in names[:own]:
            yield from _untaught(place, recipe.stages[names.index(name)], stage, recipe)
        elif name in names:
            when = "this stage itself" if name == names[own] else "a later stage"
            yield Fault(place, f"'{name}' is {when}", "an earlier stage, or a run or model", reads=reads)
        elif "/" not in name and "\\" not in name:
            _, near = choice(name, names[:own])
            expected = "the name of an earlier stage, or a run or model of ours: ./FOLDER or OWNER/NAME"
            do = near or f"write ./{name} for a folder"
            yield Fault(place, f"there is no earlier stage '{name}'", expected, do, reads)


def _untaught(key: Keys, teacher: Stage, stage: Stage, recipe: Recipe) -> Iterator[Fault]:
    """Whether a stage has learned any task of the one that it is to teach."""
    trained = recipe.trained_tasks(stage)
    if not set(recipe.learned_tasks(teacher)) & set(trained):
        problem = f"the stage '{teacher.name}' has learned none of {', '.join(trained)}"
        yield Fault(key, problem, "a stage that trained a task of this one", reads=(("stages",),))


def _losses(task: Task) -> set[str]:
    return {task.loss.kind, *(each.kind for each in task.auxiliary)}


def _drops(recipe: Recipe, tasks: Sequence[str]) -> bool:
    """Whether two passes of a text differ by dropout: in the encoder, the projections, or the heads of ``tasks``."""
    encoder = recipe.encoder
    parts = [*encoder.projections, *(recipe.tasks[name].head for name in tasks if name in recipe.tasks)]
    rates = (float(getattr(part, "dropout", 0.0)) for part in parts)
    return bool(encoder.dropout or encoder.attention_dropout or any(rates))
