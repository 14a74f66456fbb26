"""Balancers that are one of torchjd's weightings of the tasks' Gramian."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torchjd.aggregation import (
    AlignedMTLWeighting,
    CAGradWeighting,
    DualProjWeighting,
    IMTLGWeighting,
    MGDAWeighting,
    UPGradWeighting,
    Weighting,
)

from manyhead.balancing import (
    AlignedMtlBalancing,
    CagradBalancing,
    DualprojBalancing,
    GradientOptions,
    ImtlGBalancing,
    MgdaBalancing,
    UpgradBalancing,
)
from manyhead.balancing.base import Balancer, Signals
from manyhead.errors import UsageError
from manyhead.recipe.schema import Task


class GramianWeights(Balancer):
    """Weights by a torchjd weighting that takes the Gramian and keeps nothing.

    The Gramian is given divided by its trace. None of the weightings built here depends on the gradients' common
    length, but torchjd's guards against division by zero do, and would end the surgery of short gradients.
    """

    needs_gramian = True
    weighs_heads = False

    def __init__(self, weighting: Weighting, constants: Mapping[str, float]) -> None:
        super().__init__(constants)
        self.weighting = weighting

    def weights(self, signals: Signals) -> Tensor:
        """See `Balancer.weights`. Gradients that are all 0 have weights of 1."""
        assert signals.gramian is not None
        trace = signals.gramian.trace()
        if not bool(trace > 0):
            return torch.ones(len(signals.tasks))
        return self.weighting(signals.gramian / trace)


def _build(make: Callable[[], Weighting], options: GradientOptions) -> Balancer:
    try:
        return GramianWeights(make(), options.weights)
    except ImportError as error:
        raise UsageError(f"balancing '{options.kind}': {error}; or use another kind, such as upgrad") from error


def build_upgrad(options: UpgradBalancing, tasks: Mapping[str, Task]) -> Balancer:
    """UPGrad (Quinton 2024, eq. 4), every task preferred alike."""
    del tasks
    return _build(UPGradWeighting, options)


def build_dualproj(options: DualprojBalancing, tasks: Mapping[str, Task]) -> Balancer:
    """DualProj (Lopez-Paz 2017, eq. 11), every task preferred alike."""
    del tasks
    return _build(DualProjWeighting, options)


def build_mgda(options: MgdaBalancing, tasks: Mapping[str, Task]) -> Balancer:
    """MGDA by Frank-Wolfe steps (Sener 2018, algorithm 2)."""
    del tasks
    return _build(lambda: MGDAWeighting(options.epsilon, options.max_iters), options)


def build_imtl_g(options: ImtlGBalancing, tasks: Mapping[str, Task]) -> Balancer:
    """IMTL-G (Liu 2021, eq. 6)."""
    del tasks
    return _build(IMTLGWeighting, options)


def build_aligned_mtl(options: AlignedMtlBalancing, tasks: Mapping[str, Task]) -> Balancer:
    """Aligned-MTL (Senushkin 2023, algorithm 1), every task preferred alike."""
    del tasks
    return _build(lambda: AlignedMTLWeighting(scale_mode=options.scale_mode), options)


def build_cagrad(options: CagradBalancing, tasks: Mapping[str, Task]) -> Balancer:
    """CAGrad (Liu 2021, algorithm 1). Raises `UsageError` where its solver is not installed."""
    del tasks
    return _build(lambda: CAGradWeighting(options.c), options)
