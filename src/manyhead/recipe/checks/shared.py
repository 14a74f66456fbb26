"""Checks that tasks and stages share."""

from collections.abc import Generator, Iterable, Iterator

from manyhead.recipe.faults import Fault, choice
from manyhead.recipe.keys import Keys
from manyhead.recipe.schema import METRICS, Recipe, Task


def fits(key: Keys, metric: str, task: Task, at: Keys) -> Iterator[Fault]:
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


def is_task(key: Keys, name: str, recipe: Recipe) -> Generator[Fault, None, bool]:
    """Yield a fault for a name that is no task's; return whether it is one's."""
    if name in recipe.tasks:
        return True
    expected, do = choice(name, recipe.tasks)
    yield Fault(key, f"there is no task '{name}'", expected, do, reads=(("tasks", name),))
    return False


def repeated(names: Iterable[tuple[Keys, str]]) -> Iterator[Fault]:
    """Faults at the second and later places of each name."""
    seen: set[str] = set()
    for key, name in names:
        if name in seen:
            yield Fault(key, f"'{name}' is there twice", do="remove it or give it another name")
        seen.add(name)
