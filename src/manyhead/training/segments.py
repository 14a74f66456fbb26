"""Weight gradients by task out of one backward over all tasks.

The tasks' tokens are consecutive in a packed batch, and so are their sequences. A layer's weight gradient is a sum over
them of what went in and what comes back: over the tokens of one task it is that task's own. All else of a backward is
common work.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from manyhead.encoder.packed_encoder import PackedEncoder
from manyhead.model import MultiTaskModel
from manyhead.packed import PackedBatch, PackedPart, Route, offsets_of
from manyhead.training.rows import Rows, TaskRows

TOLERANCE = 1e-3
"""Largest difference from autograd's gradients, as a share of their largest number, that `split_of` accepts."""


class Spans(dict[str, slice]):
    """The rows of each task among those that a module was given."""

    def sums(self, rows: Tensor) -> Tensor:
        """Each task's sum (K, F) of its ``rows`` (N, F), in their type."""
        return self._indicator(rows) @ rows

    def _indicator(self, rows: Tensor) -> Tensor:
        """(K, N): 1 where a row is of the task."""
        known = self._indicators.get(rows.dtype)
        if known is None:
            known = self._indicators[rows.dtype] = rows.new_zeros(len(self), len(rows))
            for row, span in zip(known, self.values(), strict=True):
                row[span] = 1
        return known

    @cached_property
    def _indicators(self) -> dict[torch.dtype, Tensor]:
        return {}


def split_dense(modules: Sequence[nn.Linear], inputs: Tensor, grads: Tensor, spans: Spans, rows: TaskRows) -> None:
    """Dense layers side by side: ``inputs`` (N, F) of all, ``grads`` (N, G) of what they gave one beside the other."""
    rows.add_products([module.weight for module in modules], grads, inputs, spans)
    biases = [module.bias for module in modules if module.bias is not None]
    if biases:
        _add(rows, biases, dict(zip(spans, spans.sums(grads), strict=True)))


def split_norm(
    module: nn.LayerNorm, inputs: Tensor, grads: Tensor, spans: Spans, rows: TaskRows, *, stats: tuple[Tensor, Tensor]
) -> None:
    """A norm of ``inputs`` (N, D) with the means and scales ``stats`` (N, 1)."""
    weight, bias, shape = module.weight, module.bias, module.normalized_shape
    means, scales = stats
    wanted = [False, True, bias is not None]
    found = {
        task: torch.ops.aten.native_layer_norm_backward(
            grads[span], inputs[span], shape, means[span], scales[span], weight, bias, wanted
        )
        for task, span in spans.items()
    }
    _add(rows, [weight], {task: of_weight for task, (_, of_weight, _) in found.items()})
    if bias is not None:
        _add(rows, [bias], {task: of_bias for task, (_, _, of_bias) in found.items()})


def _add(rows: TaskRows, parameters: Sequence[Tensor], found: Mapping[str, Tensor]) -> None:
    """Adds the gradients (G, ...) of each task, of parameters one below the other."""
    if found.keys() == set(rows.tasks):
        rows.add_stacked(parameters, torch.stack([found[task] for task in rows.tasks]))
        return
    for task, gradient in found.items():
        for parameter, part in zip(parameters, gradient.split([len(each) for each in parameters]), strict=True):
            rows.add(parameter, task, part)


def _split_linear(module: nn.Linear, inputs: Tensor, grads: Tensor, spans: Spans, rows: TaskRows) -> None:
    split_dense([module], inputs, grads, spans, rows)


def _split_layer_norm(module: nn.LayerNorm, inputs: Tensor, grads: Tensor, spans: Spans, rows: TaskRows) -> None:
    weight, shape = module.weight, module.normalized_shape
    inputs, grads = inputs.to(weight.dtype), grads.to(weight.dtype)
    _, means, scales = torch.native_layer_norm(inputs, shape, weight, module.bias, module.eps)
    split_norm(module, inputs, grads, spans, rows, stats=(means, scales))


def _split_embedding(module: nn.Embedding, inputs: Tensor, grads: Tensor, spans: Spans, rows: TaskRows) -> None:
    if module.padding_idx is not None:
        grads = grads.masked_fill(inputs == module.padding_idx, 0.0)
    for task, span in spans.items():
        ids, size = inputs[span].t(), module.weight.shape
        rows.add(module.weight, task, torch.sparse_coo_tensor(ids, grads[span], size, check_invariants=False))


SPLITS: Mapping[type[nn.Module], Callable[[Any, Tensor, Tensor, Spans, TaskRows], None]] = {
    nn.Linear: _split_linear,
    nn.LayerNorm: _split_layer_norm,
    nn.Embedding: _split_embedding,
}
"""Modules whose gradients can be split: from inputs (N, F) and the gradients (N, G) of what they gave, to the rows."""


class Split:
    """Splits the gradients of ``shared`` parameters, those of ``modules``, of a model with this ``encoder``.

    Layers that run as one node of the graph hand over theirs; hooks get those of all other modules.
    """

    def __init__(self, encoder: PackedEncoder, shared: frozenset[nn.Parameter], modules: Sequence[nn.Module]) -> None:
        self._encoder = encoder
        self._shared = shared
        self._modules = tuple(modules)
        self._owned = frozenset(modules)
        self._spans: dict[int, Spans] = {}
        self._last_spans: tuple[Sequence[Route], Spans] = ((), Spans())
        self._last_cast: tuple[Tensor, Tensor] | None = None
        self._rows: TaskRows | None = None

    @contextmanager
    def watching(self, spans: Mapping[int, Spans] | None = None) -> Iterator[None]:
        """Notes what runs through the modules; shared parameters do not ask for gradients meanwhile.

        ``spans`` of the rows of each task, by the number of rows; without them each forward says its own.
        """
        hooks = [self._encoder.register_forward_pre_hook(self._enter, with_kwargs=True)]
        self._spans = dict(spans or {})
        fused = self._encoder.fused_modules()
        self._encoder.sink = self
        # Ahead of other hooks, which may change what a module gives.
        hooks += [
            module.register_forward_hook(self._note, prepend=True) for module in self._modules if module not in fused
        ]
        for parameter in self._shared:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            self._last_cast = None
            self._encoder.sink = None
            for parameter in self._shared:
                parameter.requires_grad_(True)
            for hook in hooks:
                hook.remove()

    @contextmanager
    def into(self, rows: TaskRows) -> Iterator[None]:
        """Adds the gradients of backwards within to ``rows``; those of others, as regularisers run, do not count."""
        self._rows = rows
        try:
            yield
        finally:
            self._rows = None

    @property
    def is_open(self) -> bool:
        """See `GradientSink`."""
        return self._rows is not None

    def add_dense(self, modules: Sequence[nn.Linear], routes: Sequence[Route], inputs: Tensor, grads: Tensor) -> None:
        """See `GradientSink`."""
        if self._rows is None:
            return
        if self._owned.issuperset(modules):
            split_dense(modules, inputs, grads, self._spans_of(routes), self._rows)
            return
        for module, part in zip(modules, grads.split([each.out_features for each in modules], dim=1), strict=True):
            if module in self._owned:
                split_dense([module], inputs, part, self._spans_of(routes), self._rows)

    def add_norm(
        self,
        module: nn.LayerNorm,
        routes: Sequence[Route],
        inputs: Tensor,
        grads: Tensor,
        *,
        stats: tuple[Tensor, Tensor],
    ) -> None:
        """See `GradientSink`."""
        if self._rows is not None and module in self._owned:
            split_norm(module, inputs, grads, self._spans_of(routes), self._rows, stats=stats)

    def _spans_of(self, routes: Sequence[Route]) -> Spans:
        """Those of the tokens of ``routes``, which many calls one after the other are about."""
        if self._last_spans[0] is not routes:
            self._last_spans = (routes, Spans({task: slice(start, stop) for task, start, stop in routes}))
        return self._last_spans[1]

    def _enter(self, encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Notes where the tasks' tokens and sequences are in the batch that is about to run."""
        del encoder
        offsets = offsets_of(args[2])
        tokens = self._spans_of(kwargs["routes"])
        sequences = {task: slice(offsets.index(span.start), offsets.index(span.stop)) for task, span in tokens.items()}
        self._spans = {len(args[2]): Spans(sequences), offsets[-1]: tokens}

    def _note(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        if not torch.is_grad_enabled():
            return
        count = output.numel() // output.shape[-1]
        if count not in self._spans:
            raise ValueError(f"{count} rows are neither the tokens nor the sequences of a batch")
        inputs = args[0].detach()
        if inputs.is_floating_point() and inputs.dtype != output.dtype:
            inputs = self._cast(args[0], output.dtype)
        inputs = inputs.reshape(count, -1)
        if not output.requires_grad:
            output.requires_grad_()
        output.register_hook(partial(self._split, module, inputs, self._spans[count]))

    def _cast(self, inputs: Tensor, dtype: torch.dtype) -> Tensor:
        """The inputs as autocast gives them to a module; several modules one after the other may have the same."""
        if self._last_cast is None or self._last_cast[0] is not inputs:
            self._last_cast = (inputs, inputs.detach().to(dtype))
        return self._last_cast[1]

    def _split(self, module: nn.Module, inputs: Tensor, spans: Spans, grads: Tensor) -> None:
        if self._rows is not None:
            SPLITS[type(module)](module, inputs, grads.reshape(len(inputs), -1), spans, self._rows)


def split_of(model: MultiTaskModel, shared: frozenset[nn.Parameter]) -> Split | None:
    """The split of the ``shared`` parameters' gradients; None where it cannot be made.

    It can where they are all there is in dense layers, norms and embeddings, and the encoder runs packed. A short batch
    shows whether it is that of autograd: parameters may be used in other ways than by running their module.
    """
    modules = [module for module in model.modules() if not shared.isdisjoint(module.parameters(recurse=False))]
    usual = all(type(module) in SPLITS and shared.issuperset(module.parameters(recurse=False)) for module in modules)
    if not (usual and isinstance(model.encoder, PackedEncoder) and model.encoder.packed):
        return None
    split = Split(model.encoder, shared, modules)
    return split if _is_right(split, model, list(shared)) else None


def _is_right(split: Split, model: MultiTaskModel, shared: Sequence[nn.Parameter]) -> bool:
    """Whether the split gives autograd's gradients for two short parts, in evaluation mode and fp32."""
    batch = _short_batch(model)
    parameters = list(model.parameters())
    kept = [parameter.grad for parameter in parameters]
    autocast, training = model.autocast, model.training
    model.autocast = None
    model.eval()
    rows = Rows()
    rows.start([part.task for part in batch.parts])
    try:
        expected = [
            torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True) for loss in _losses(model, batch)
        ]
        with split.watching():
            total = torch.stack(_losses(model, batch)).sum()
            if not total.requires_grad:
                return False
            with split.into(rows):
                total.backward()
    except ValueError:
        return False
    finally:
        model.autocast = autocast
        model.train(training)
        for parameter, gradient in zip(parameters, kept, strict=True):
            parameter.grad = gradient
    return all(
        _near([rows.gradient(parameter, task) for parameter in shared], gradients)
        for task, gradients in zip(rows.tasks, expected, strict=True)
    )


def _short_batch(model: MultiTaskModel) -> PackedBatch:
    lengths = (3, 5, 2, 4)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(len(model.word_embeddings()), (sum(lengths),), generator=generator)
    tasks = model.heads.tasks[:2]
    parts = [
        PackedPart(task, 2 * n, 2 * n + 2, torch.arange(2 * n, 2 * n + 2)[:, None]) for n, task in enumerate(tasks)
    ]
    tokens = sum(lengths[: 2 * len(tasks)])
    batch = PackedBatch(ids[:tokens], torch.zeros(tokens, dtype=torch.int64), lengths[: 2 * len(tasks)], tuple(parts))
    return batch.to(next(model.parameters()).device)


def _losses(model: MultiTaskModel, batch: PackedBatch) -> list[Tensor]:
    """A number for each part that every component of its vectors counts in."""
    vectors = model.embed(batch)
    slopes = torch.sin(torch.arange(vectors.numel(), device=vectors.device)).view_as(vectors)
    return [(vectors * slopes)[part.start : part.stop].sum() for part in batch.parts]


def _near(found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> bool:
    """Whether all are close. Some gradients, as that of a key's bias, are 0 but for rounding: they count as others."""
    largest = max((float(each.to_dense().abs().max()) for each in expected if each is not None), default=0.0)
    for one, other in zip(found, expected, strict=True):
        if one is None or other is None:
            if one is not other:
                return False
            continue
        dense = other.to_dense()
        if float((one - dense).abs().max()) > TOLERANCE * max(float(dense.abs().max()), 1e-3 * largest):
            return False
    return True
