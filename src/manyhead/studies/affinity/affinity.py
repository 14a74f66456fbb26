"""How tasks' gradients stand to each other before training, and what that suggests: the function behind the verb."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyhead.recipe.load import LoadedRecipe
from manyhead.studies.affinity.estimates import LEVEL, RESAMPLES, Estimates, as_number, estimate
from manyhead.studies.affinity.gradients import Gradients, Sizes, measure_gradients
from manyhead.studies.affinity.grouping import Grouping, best_grouping

Array = NDArray[np.float64]

SURE = 0.8
"""Share of resamples that has to agree before a grouping is called likely."""


@dataclass(frozen=True)
class Affinity:
    """Gradients of the tasks of a recipe, what they are to each other, and how to group and weigh the tasks.

    ``constants`` (K,) of the losses have mean 1; NaN where a task's gradient is 0.
    """

    recipe: str
    sizes: Sizes
    gradients: Gradients
    estimates: Estimates
    grouping: Grouping
    constants: Array

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the K tasks."""
        return self.gradients.tasks

    @property
    def step_norms(self) -> Array:
        """Root mean square length (K,) of a step's gradient at the recipe's batch sizes.

        The squared length of the mean gradient, and the noise of a mini-batch divided by how many of them a step holds.
        """
        return step_norms(self.estimates, self.gradients)

    @property
    def undecided(self) -> list[str]:
        """Tasks that neither agree nor conflict with any other as far as the intervals tell."""
        places = range(len(self.tasks))
        directions = {one: {self.estimates.direction(one, other) for other in places if other != one} for one in places}
        return [task for place, task in enumerate(self.tasks) if directions[place] == {"undecided"}]

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON has it: null for what noise hides."""
        found, data = self.estimates, self.gradients
        noise = np.maximum(found.batch_squares - np.diagonal(found.products), 0)
        squares = np.diagonal(found.products)
        tasks = {
            task: {
                "loss": as_number(data.losses[data.owners == place].mean()),
                "batches": int((data.owners == place).sum()),
                "gradient_norm": _root(squares[place]),
                "gradient_norm_interval": [_root(max(found.low[place, place], 0)), _root(found.high[place, place])],
                "batch_norm": _root(found.batch_squares[place]),
                "signal_to_noise": _ratio(squares[place], noise[place]),
                "noise_scale_examples": _ratio(noise[place] * data.batch_size, squares[place]),
                "step_norm": as_number(self.step_norms[place]),
                "own_conflict_rate": as_number(found.conflicts[place, place]),
                "constant": as_number(self.constants[place]),
            }
            for place, task in enumerate(self.tasks)
        }
        return {
            "recipe": self.recipe,
            "examples": self.sizes.examples,
            "batch_size": self.sizes.batch_size,
            "warmup_steps": self.sizes.warmup_steps,
            "resamples": len(found.samples),
            "level": LEVEL,
            "layers": list(data.layers),
            "tasks": tasks,
            "pairs": [self._pair(*pair) for pair in combinations(range(len(self.tasks)), 2)],
            "suggestion": {
                "groups": [[self.tasks[place] for place in group] for group in self.grouping.groups],
                "mean_affinity": as_number(self.grouping.affinity),
                "agreement": as_number(self.grouping.agreement),
                "undecided": self.undecided,
                "constants": {task: as_number(value) for task, value in zip(self.tasks, self.constants, strict=True)},
                "text": suggestion(self),
            },
        }

    def _pair(self, one: int, other: int) -> dict[str, Any]:
        found = self.estimates
        return {
            "tasks": [self.tasks[one], self.tasks[other]],
            "cosine": as_number(found.cosines[one, other]),
            "interval": [as_number(found.cosines_low[one, other]), as_number(found.cosines_high[one, other])],
            "direction": found.direction(one, other),
            "conflict_rate": as_number(found.conflicts[one, other]),
            "layers": {
                name: {
                    "cosine": as_number(found.layer_cosines[place, one, other]),
                    "interval": [
                        as_number(found.layer_low[place, one, other]),
                        as_number(found.layer_high[place, one, other]),
                    ],
                }
                for place, name in enumerate(self.gradients.layers)
            },
        }


def task_affinity(
    loaded: LoadedRecipe, sizes: Sizes | None = None, *, tell: Callable[[str], None] = lambda _: None
) -> Affinity:
    """Measures the affinity of the recipe's tasks at its start checkpoint; trains nothing but new heads, for a while.

    Raises `UsageError`, `RecipeError` and `DataError` as `measure_gradients` does.
    """
    sizes = sizes or Sizes()
    gradients = measure_gradients(loaded, sizes, tell=tell)
    return affinity_of(loaded.recipe.name, sizes, gradients, seed=loaded.recipe.seed)


def affinity_of(
    recipe: str, sizes: Sizes, gradients: Gradients, *, resamples: int = RESAMPLES, seed: int = 0
) -> Affinity:
    """What follows from the inner products of gradients."""
    found = estimate(gradients.products, gradients.owners, resamples=resamples, seed=seed)
    grouping = best_grouping(found.cosines, found.samples)
    return Affinity(recipe, sizes, gradients, found, grouping, loss_constants(step_norms(found, gradients)))


def step_norms(found: Estimates, gradients: Gradients) -> Array:
    """See `Affinity.step_norms`."""
    batches = np.array([gradients.step_sizes[task] / gradients.batch_size for task in gradients.tasks])
    signal = np.clip(np.diagonal(found.products), 0, found.batch_squares)
    return np.sqrt(signal + (found.batch_squares - signal) / batches)


def loss_constants(norms: Array) -> Array:
    """Constants (K,) under which all tasks pull the shared parameters equally hard: 1 / norm, divided by their mean."""
    with np.errstate(divide="ignore"):
        inverse = np.where(norms > 0, 1 / norms, np.nan)
    return inverse / np.nanmean(inverse) if np.isfinite(inverse).any() else inverse


def suggestion(affinity: Affinity) -> list[str]:
    """What to do, and how sure that is, in sentences."""
    groups = [[affinity.tasks[place] for place in group] for group in affinity.grouping.groups]
    share = f"{affinity.grouping.agreement:.0%} of the resamples"
    sure = "likely" if affinity.grouping.agreement >= SURE else "not sure"
    together = [" + ".join(group) for group in groups if len(group) > 1]
    alone = [group[0] for group in groups if len(group) == 1 and group[0] not in affinity.undecided]
    if len(affinity.undecided) == len(affinity.tasks):
        said = ["Nothing can be said of which tasks to train together."]
    elif not together:
        sure = "not sure" if affinity.undecided else sure
        said = [f"Train each task apart: no group of tasks has gradients that agree ({sure}: so say {share})."]
    else:
        said = [f"Train together: {', '.join(together)} ({sure}: so say {share})."]
        if alone:
            said.append(f"Train apart: {_listed(alone)}.")
    if affinity.undecided:
        said.append(
            f"Undecided: {_listed(affinity.undecided)}, whose gradients neither agree nor conflict with any other "
            "task's as far as these examples tell; more of them (--examples) may."
        )
    constants = [
        f"{task} {value:.2g}" for task, value in zip(affinity.tasks, affinity.constants, strict=True) if value > 0
    ]
    if constants:
        said.append(
            f"Loss constants: {', '.join(constants)}. With them the gradients of all tasks are equally long in a step "
            "of the recipe's batch sizes; without them, a long one drowns the others in the sum."
        )
    else:
        said.append("Loss constants: none, as no task has a gradient; look at its losses and what is frozen.")
    return said


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _root(square: float) -> float | None:
    return float(np.sqrt(square)) if square >= 0 else None


def _ratio(one: float, other: float) -> float | None:
    return float(one / other) if other > 0 else None
