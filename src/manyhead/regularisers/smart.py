"""SMART: smoothness around each input, and small steps away from averaged weights (Jiang 2020)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from manyhead.objectives.divergence import divergence
from manyhead.packed import PackedBatch, PackedModel
from manyhead.regularisers import Smart
from manyhead.regularisers.average import AveragedWeights
from manyhead.regularisers.base import Regulariser, TrainingPass, chosen


class SmartPenalty(Regulariser):
    """lambda_s * max l_s(f(x~; theta), f(x; theta)) + mu * l_s(f(x; theta), f(x; theta~)) for each example.

    Jiang 2020, section 3 and algorithm 1: x are the states that enter the encoder's first layer, x~ those within
    epsilon of them in each component, found by `ascend`; l_s is `divergence`; theta~ an average of the weights, which
    starts as those of the stage's start and follows each update with decay beta, beta_late behind the first tenth of
    ``total_steps``. Gradients reach both sides of the first term (with ``detach`` only x~'s), and theta in the second.

    With ``masks: shared`` all sides have the same dropout masks, so that f is one function, and run in fp32: rounding
    states to bf16 changes predictions more than 1e-5 does. So none can be the step's own pass, and the first term costs
    three passes forward, two whole backward and one to the noise alone, the second one more forward. With ``own`` the
    clean side is the step's own pass, and the others draw their masks, in its precision, as public code does: cheaper,
    but at an epsilon of 1e-5 nearly all of the distance is the masks', as in R-Drop.
    """

    def __init__(self, options: Smart, tasks: Sequence[str], model: nn.Module, total_steps: int) -> None:
        super().__init__()
        self.options = options
        self.tasks = tuple(tasks)
        self.total_steps = total_steps
        self.average = None if options.bregman is None else AveragedWeights(model)

    def started(self, model: nn.Module) -> None:
        """The average starts from these weights."""
        if self.average is not None:
            self.average.start(model)

    def updated(self, model: nn.Module) -> None:
        """The average follows."""
        if self.average is not None:
            early = 10 * (self.average.updates + 1) <= self.total_steps
            self.average.follow(model, self.options.beta if early else self.options.beta_late)

    def penalties(self, done: TrainingPass) -> Mapping[str, Tensor]:
        """See `Regulariser.penalties`."""
        options = self.options
        tasks = [task for task in done.objectives if task in self.tasks]
        if not tasks or not (options.weight or options.bregman):
            return {}
        batch = done.batch.only(tasks)
        start = torch.randn(batch.n_tokens, done.model.width, device=batch.input_ids.device) * options.sigma
        shared = options.masks == "shared"
        run = _runs(done.model, batch, shared_masks=shared)

        def distances(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {task: divergence(done.objectives[task], one[task], other[task]) for task in tasks}

        with _in_fp32(done.model) if shared else nullcontext():
            clean = run() if shared else {task: done.passed.outputs[task] for task in tasks}
            fixed = {task: outputs.detach() for task, outputs in clean.items()}
            found = {task: outputs.new_zeros(len(outputs)) for task, outputs in fixed.items()}
            if options.weight:
                noise = ascend(
                    lambda noise: torch.cat(list(distances(run(noise), fixed).values())).sum(),
                    start,
                    batch.examples_of_tokens(),
                    cast("nn.Module", done.model),
                    step_size=options.step_size,
                    steps=options.steps,
                    radius=None if options.detach else options.epsilon,
                )
                rough = distances(run(noise), fixed if options.detach else clean)
                found = {task: found[task] + options.weight * distance for task, distance in rough.items()}
            if self.average is not None and options.bregman:
                with torch.no_grad():
                    before = run(weights=self.average.weights())
                found = {task: found[task] + options.bregman * d for task, d in distances(clean, before).items()}
        return found


def ascend(
    distance: Callable[[Tensor], Tensor],
    noise: Tensor,
    examples: Tensor,
    model: nn.Module,
    *,
    step_size: float,
    steps: int,
    radius: float | None,
) -> Tensor:
    """Moves ``noise`` (T, D) uphill ``distance``, a scalar: the inner loop of Jiang 2020, algorithm 1.

    Each step is ``step_size`` along the gradient over its largest component in the example (``examples`` (T,) says
    whose a token is, a pair's texts being one example), so that examples do not depend on each other; then each
    component is cut to ``radius``, if there is one. Where the gradient is 0, noise stays as it is. No gradient of the
    parameters of ``model``, which ``distance`` runs, is computed.
    """
    for _ in range(steps):
        noise = noise.detach().requires_grad_()
        with _fixed(model):
            (gradient,) = torch.autograd.grad(distance(noise), noise)
        largest = torch.zeros_like(gradient[:, 0]).scatter_reduce(0, examples, gradient.abs().amax(1), "amax")
        scale = largest.clamp_min(torch.finfo(gradient.dtype).tiny)[examples]
        noise = noise.detach() + step_size * gradient / scale[:, None]
        if radius is not None:
            noise = noise.clamp(-radius, radius)
    return noise


def build(options: Smart, tasks: Sequence[str], model: nn.Module, total_steps: int) -> Regulariser:
    """See `SmartPenalty`."""
    return SmartPenalty(options, chosen(options, tasks), model, total_steps)


def _runs(model: PackedModel, batch: PackedBatch, *, shared_masks: bool) -> Callable[..., Mapping[str, Tensor]]:
    """Runs ``batch``, with noise or other weights if asked; with ``shared_masks`` dropout draws the same each time."""
    seed = int(torch.randint(1 << 62, ()))

    def run(noise: Tensor | None = None, weights: Mapping[str, Tensor] | None = None) -> Mapping[str, Tensor]:
        if shared_masks:
            torch.manual_seed(seed)
        if weights is None:
            return model.run(batch, noise).outputs
        return torch.func.functional_call(cast("nn.Module", model), dict(weights), (batch,))

    return run


@contextmanager
def _fixed(model: nn.Module) -> Iterator[None]:
    """No parameter of ``model`` asks for a gradient meanwhile."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def _in_fp32(model: PackedModel) -> Iterator[None]:
    autocast, model.autocast = model.autocast, None
    try:
        yield
    finally:
        model.autocast = autocast
