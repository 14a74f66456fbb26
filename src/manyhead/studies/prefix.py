"""Stages that recipes begin with alike are trained once.

A run that others begin with is one of theirs, stopped where the common stages end: its folder then holds what each of
them would hold there. It is copied under each of their names and goes on as any run that was stopped does, so the bits
are those of a run that trained all its stages itself.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from manyhead.files import new_folder, read_json, writing
from manyhead.recipe.load import load_recipe, recipe_yaml
from manyhead.recipe.schema import Recipe
from manyhead.studies.runs import PlannedRun, prefix_digests
from manyhead.training.run_folder import CHECKPOINTS, RECIPE, STATE, RunFolder

_DIGITS = 12


def with_prefixes(runs: Sequence[PlannedRun], exists: Callable[[PlannedRun], bool]) -> list[PlannedRun]:
    """``runs``, which have not been started, and before them what several of them begin with, shortest first.

    ``exists`` says whether such a beginning is there already, which makes it worth it for a single run. Runs share a
    beginning where their later stages need the same checkpoints of it.
    """
    groups: dict[tuple[int, str], list[PlannedRun]] = {}
    for run in runs:
        for count, digest in enumerate(prefix_digests(run.recipe, run.data), start=1):
            key = json.dumps([digest, _needs(run.recipe, count)])
            groups.setdefault((count, hashlib.sha256(key.encode()).hexdigest()[:_DIGITS]), []).append(run)
    beginnings: dict[str, PlannedRun] = {}
    above: dict[str, str] = {}
    shared: set[frozenset[str]] = set()
    for (count, digest), members in sorted(groups.items(), key=lambda item: -item[0][0]):
        leader = next((run for run in members if len(run.recipe.stages) > count), None)
        own = frozenset(run.digest for run in members)
        if leader is None or own in shared:
            continue
        name = f"{leader.name.rpartition('-')[0]}-until-{leader.recipe.stages[count].name}-{digest}"
        beginning = PlannedRun(name, digest, leader.recipe, leader.data, until=count)
        if len(own) < 2 and not exists(beginning):
            continue
        shared.add(own)
        beginnings[digest] = beginning
        for run in members:
            top = run.digest
            while top in above:
                top = above[top]
            if top != digest:
                above[top] = digest
    return _linked(runs, beginnings, above)


def is_complete(path: Path, until: int) -> bool:
    """Whether the run at ``path`` has ended its stages before ``until`` and not begun that one."""
    newest = max((path / CHECKPOINTS).glob("step-*/manifest.json"), default=None)
    if newest is None:
        return False
    with suppress(KeyError, TypeError):
        progress = read_json(newest.with_name(STATE))["progress"]
        return bool(progress["stage"] == until - 1 and progress["stage_done"])
    return False


def begin_from(source: Path, target: Path, recipe: Recipe) -> None:
    """Makes ``target`` a run of ``recipe`` that was stopped where the run at ``source`` has stopped.

    Weights are linked where the file system can: nothing changes them in place.
    """
    with writing(str(target)), new_folder(target) as temporary:
        ignored = shutil.ignore_patterns(".lock", ".tmp-*")
        shutil.copytree(source, temporary, symlinks=True, ignore=ignored, copy_function=_link, dirs_exist_ok=True)
        pinned = load_recipe(source / RECIPE).recipe.with_changes(name=target.name, stages=recipe.stages)
        copied = RunFolder(temporary)
        copied.replace_recipe(recipe_yaml(pinned))
        copied.update_state(status="stopped")


def _needs(recipe: Recipe, count: int) -> list[object]:
    """Which checkpoints of the first ``count`` stages the later ones go back to."""
    before, later = recipe.stages[:count], recipe.stages[count:]
    teachers = {name for stage in later if stage.distillation for name in stage.distillation.teachers}
    return [any(stage.start == "encoder" for stage in later), [s.name for s in before if s.name in teachers]]


def _linked(runs: Sequence[PlannedRun], beginnings: dict[str, PlannedRun], above: dict[str, str]) -> list[PlannedRun]:
    """Runs and beginnings with what each begins with, every beginning before the first that needs it."""
    placed: dict[str, PlannedRun] = {}

    def place(run: PlannedRun) -> PlannedRun:
        if run.digest not in placed:
            before = place(beginnings[above[run.digest]]) if run.digest in above else None
            placed[run.digest] = replace(run, begins_with=before)
        return placed[run.digest]

    for run in runs:
        place(run)
    return list(placed.values())


def _link(source: str, target: str) -> None:
    if source.endswith(".safetensors"):
        with suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)
