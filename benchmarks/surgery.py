"""Gradient surgery against a plain step: the same parts, alternating in one process.

Whole updates of the embedded encoder with three tasks, dropout .1, clipping and AdamW: the plain sum of the losses, and
PCGrad three ways: rows out of one backward (what training does), rows by a backward for each task, and torchjd's
`mtl_backward`.

    python benchmarks/surgery.py [--data-dir DIR] [--batch-sizes 8 32] [--rounds 12] [--threads N] [--json FILE]

``--data-dir`` names the folder of the CS224N files (default: $MANYHEAD_CS224N); without one the packaged sample is
used. Times of shared machines mean little: read the ratios to the plain step taken just before or after on the same
examples, medians over the rounds with their quartiles. ``--clock cpu`` counts the process's own time, which other work
on the machine disturbs less; it takes ``--threads 1``, since waiting threads count as well.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchjd.aggregation import PCGrad
from torchjd.autojac import jac_to_grad, mtl_backward

from manyhead.balancing.base import Balancer, Signals
from manyhead.balancing.pcgrad import Pcgrad
from manyhead.data.cache import load_task_data
from manyhead.data.task_data import TaskData
from manyhead.device import choose_hardware
from manyhead.encoder.load import read_config
from manyhead.encoder.source import locate_encoder
from manyhead.encoder.tokenizer import load_tokenizer
from manyhead.model import MultiTaskModel, build_model, build_objective
from manyhead.recipe.load import LoadedRecipe, load_recipe
from manyhead.schedules.base import Part, Step
from manyhead.training.clipping import Clipping
from manyhead.training.gradients import Balanced, Forward, Gradients, JointGradients
from manyhead.training.losses import Lesson, TaskLosses
from manyhead.training.step import Learner, take_step
from manyhead.training.task_gradients import TaskGradients

PLAIN = "sum"
WARM_UP = 2


class TorchjdGradients:
    """torchjd's own way: the Jacobian of all losses over the shared parameters, and its PCGrad."""

    def __init__(self, model: MultiTaskModel) -> None:
        self.shared = [parameter for name, parameter in model.named_parameters() if model.task_of(name) is None]
        self.heads = {task: list(model.head(task).parameters()) for task in model.heads.tasks}
        self.vectors: list[Tensor] = []
        model.pooling.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: object, vectors: Tensor) -> None:
        del module, inputs
        self.vectors.append(vectors)

    def add(self, forward: Forward, parts: Sequence[Part], signals: Signals) -> Mapping[str, Tensor]:
        """Runs the parts forward, and backward as often as there are tasks."""
        del signals
        losses = forward(parts)
        mtl_backward(
            list(losses.values()),
            features=self.vectors.pop(),
            tasks_params=[self.heads[task] for task in losses],
            shared_params=self.shared,
            parallel_chunk_size=1,  # the packed attention has backwards of its own, which vmap cannot batch
        )
        return {task: loss.detach() for task, loss in losses.items()}

    def finish(self, signals: Signals, clipping: Clipping | None) -> Balanced:
        """Aggregates."""
        del signals, clipping
        jac_to_grad([parameter for parameter in self.shared if hasattr(parameter, "jac")], PCGrad())
        return Balanced()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default=os.environ.get("MANYHEAD_CS224N"))
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    hardware = choose_hardware("cpu", "auto", given.threads)
    loaded = load_recipe("cs224n-cpu" if given.data_dir else "quickstart", data_dir=given.data_dir)
    tokenizer = load_tokenizer(locate_encoder("embedded", None).folder)
    data = {name: load_task_data(name, "dev", loaded.recipe, tokenizer) for name in loaded.recipe.tasks}
    sides = {name: learner(loaded, data, make, hardware.autocast) for name, make in WAYS.items()}
    clock = time.perf_counter if given.clock == "wall" else time.process_time
    results = {
        "machine": {**hardware.describe(), "torch": torch.__version__},
        "source": "CS224N dev: SST, Quora, STS" if given.data_dir else "packaged sample, dev",
        "clock": given.clock,
        "batches": [compare(sides, steps(data, size, given.rounds + WARM_UP), clock) for size in given.batch_sizes],
    }
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print_table(results)


WAYS: dict[str, Callable[[MultiTaskModel], tuple[Balancer, Gradients]]] = {
    PLAIN: lambda _: ((plain := Balancer()), JointGradients(plain)),
    "pcgrad, one backward": lambda model: _surgery(model, together=True),
    "pcgrad, one backward a task": lambda model: _surgery(model, together=False),
    "pcgrad, torchjd's mtl_backward": lambda model: (Pcgrad({}), TorchjdGradients(model)),
}


def _surgery(model: MultiTaskModel, *, together: bool) -> tuple[Balancer, Gradients]:
    balancer = Pcgrad({})
    return balancer, TaskGradients(balancer, model, Clipping(None), together=together)


def learner(
    loaded: LoadedRecipe,
    data: Mapping[str, TaskData],
    make: Callable[[MultiTaskModel], tuple[Balancer, Gradients]],
    autocast: torch.dtype | None,
) -> Learner:
    """A learner of the recipe's tasks with a model of its own."""
    folder = locate_encoder("embedded", None).folder
    config = read_config(folder, dropout=0.1, attention_dropout=None)
    model = build_model(loaded.recipe, loaded.tables, config, folder)
    balancer, gradients = make(model)
    # torchjd knows no sparse gradients.
    model.encoder.sparse_embedding_gradients(not isinstance(gradients, TorchjdGradients))
    model.autocast = autocast
    losses = {name: TaskLosses(build_objective(task, loaded.tables)) for name, task in loaded.recipe.tasks.items()}
    return Learner(
        lesson=Lesson(model, data, losses, None, (), None, True),
        balancer=balancer,
        gradients=gradients,
        gradients_for=lambda _: gradients,
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True),
        clipping=Clipping(1.0),
        accumulation=1,
        extras=nn.ModuleDict(),
        lr=1e-6,
        seed=13,
        stage="benchmark",
        skips=False,
    )


def steps(data: Mapping[str, TaskData], size: int, count: int) -> list[Step]:
    """``count`` steps of ``size`` random examples of each task, the same in each run."""
    rng = np.random.default_rng(0)
    return [
        Step(number, 0, tuple(Part(name, rng.permutation(each.n_examples)[:size]) for name, each in data.items()))
        for number in range(count)
    ]


def compare(sides: Mapping[str, Learner], given: Sequence[Step], clock: Callable[[], float]) -> dict[str, Any]:
    """Sets each side's steps against the plain ones, next to which they run: first the one, then the other."""
    plain = sides[PLAIN]
    tokens = [take_step(plain, step).tokens for step in given[:WARM_UP]]
    ways: dict[str, dict[str, Any]] = {}
    for name, side in sides.items():
        if side is not plain:
            pairs = [_pair((plain, side), step, clock, turned=bool(number % 2)) for number, step in enumerate(given)]
            ways[name] = _row(pairs[WARM_UP:])
    return {
        "batch_size": len(given[0].parts[0].examples),
        "tokens": statistics.mean(tokens),
        "rounds": len(given) - WARM_UP,
        "ways": ways,
    }


def _pair(
    sides: tuple[Learner, Learner], step: Step, clock: Callable[[], float], *, turned: bool
) -> tuple[float, float]:
    """Seconds of both sides' step; the second side's is taken first if ``turned``."""
    seconds = [0.0, 0.0]
    for place in (1, 0) if turned else (0, 1):
        began = clock()
        take_step(sides[place], step)
        seconds[place] = clock() - began
    return seconds[0], seconds[1]


def _row(pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    low, middle, high = statistics.quantiles([own / plain for plain, own in pairs], n=4)
    return {
        "plain_milliseconds": 1000 * statistics.median(plain for plain, _ in pairs),
        "milliseconds": 1000 * statistics.median(own for _, own in pairs),
        "ratio": middle,
        "ratio_quartiles": [low, high],
    }


def print_table(results: dict[str, Any]) -> None:
    """The results as Markdown."""
    machine = results["machine"]
    print(f"{machine['device_name']}, {machine['threads']} threads, {machine['precision']}, torch {machine['torch']}; "
          f"{results['source']}; {results['clock']} time")  # fmt: skip
    for batch in results["batches"]:
        print(
            f"\n{batch['batch_size']} examples a task, {batch['tokens']:.0f} tokens a step, {batch['rounds']} rounds\n"
        )
        print("| step | ms | the plain one beside it, ms | ratio (quartiles) |\n|---|---|---|---|")
        for name, row in batch["ways"].items():
            low, high = row["ratio_quartiles"]
            times = f"{row['milliseconds']:.0f} | {row['plain_milliseconds']:.0f}"
            print(f"| {name} | {times} | {row['ratio']:.2f} ({low:.2f} to {high:.2f}) |")


if __name__ == "__main__":
    main()
