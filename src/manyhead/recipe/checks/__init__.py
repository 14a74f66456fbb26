"""What the keys of a recipe owe to each other: checks that no single key can fail alone."""

from collections.abc import Iterator

from manyhead.encoder import LowRankExperts, PalParallelExperts
from manyhead.recipe.checks.shared import repeated
from manyhead.recipe.checks.stages import stage_faults
from manyhead.recipe.checks.tasks import related_faults, task_faults
from manyhead.recipe.faults import Fault
from manyhead.recipe.schema import Recipe


def check(recipe: Recipe) -> Iterator[Fault]:
    """Yield every fault of a recipe whose keys are valid one by one."""
    for name, task in recipe.tasks.items():
        yield from task_faults(("tasks", name), task)
        yield from related_faults(("tasks", name), task, recipe)
    yield from _trained(recipe)
    yield from _experts(recipe)
    yield from repeated((("stages", str(place), "name"), stage.name) for place, stage in enumerate(recipe.stages))
    yield from _trackers(recipe)
    for place, stage in enumerate(recipe.stages):
        yield from stage_faults(("stages", str(place)), stage, recipe)


def _trained(recipe: Recipe) -> Iterator[Fault]:
    train = [("tasks", name, "files", "train") for name in recipe.tasks]
    if all(task.files.train is None for task in recipe.tasks.values()):
        yield Fault(train[0], "no task has a train file", do="add files.train to a task", reads=tuple(train))


def _trackers(recipe: Recipe) -> Iterator[Fault]:
    """Two of a kind would write the same folder."""
    kinds = [options.kind for options in recipe.trackers]
    for place, kind in enumerate(kinds):
        if kind in kinds[:place]:
            yield Fault(("trackers", str(place)), f"'{kind}' is there twice", "each kind once", "remove one of them")


def _experts(recipe: Recipe) -> Iterator[Fault]:
    """Experts beside layers learn nothing where the states below all layers are pooled."""
    encoder = recipe.encoder
    if encoder.layer == 0 and isinstance(encoder.experts, PalParallelExperts | LowRankExperts):
        problem = f"'{encoder.experts.kind}' acts in the layers, and layer 0 lies below them"
        reads = (("encoder", "layer"),)
        yield Fault(("encoder", "experts", "kind"), problem, do="set encoder.layer: -1, or remove it", reads=reads)
