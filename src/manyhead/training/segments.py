"""Weight gradients by task out of one backward over all tasks.

The tasks' tokens are consecutive in a packed batch, and so are their sequences. A layer's weight gradient is a sum over
them of what went in and what comes back: over the tokens of one task it is that task's own. All else of a backward is
common work.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from manyhead.encoder.packed_encoder import PackedEncoder
from manyhead.model import MultiTaskModel
from manyhead.packed import PackedBatch, PackedPart, offsets_of
from manyhead.training.rows import Rows

TOLERANCE = 1e-3
"""Largest difference from autograd's gradients, as a share of their largest number, that `split_of` accepts."""

Spans = Mapping[str, slice]
"""The rows of each task among those that a module was given."""


def _split_linear(module: nn.Linear, inputs: Tensor, grads: Tensor, spans: Spans, rows: Rows) -> None:
    for task, span in spans.items():
        rows.add_product(module.weight, task, grads[span], inputs[span])
        if module.bias is not None:
            rows.add(module.bias, task, grads[span].sum(0))


def _split_norm(module: nn.LayerNorm, inputs: Tensor, grads: Tensor, spans: Spans, rows: Rows) -> None:
    weight, bias, shape = module.weight, module.bias, module.normalized_shape
    inputs, grads = inputs.to(weight.dtype), grads.to(weight.dtype)
    _, means, scales = torch.native_layer_norm(inputs, shape, weight, bias, module.eps)
    wanted = [False, True, bias is not None]
    for task, span in spans.items():
        _, of_weight, of_bias = torch.ops.aten.native_layer_norm_backward(
            grads[span], inputs[span], shape, means[span], scales[span], weight, bias, wanted
        )
        rows.add(weight, task, of_weight)
        if bias is not None:
            rows.add(bias, task, of_bias)


def _split_embedding(module: nn.Embedding, inputs: Tensor, grads: Tensor, spans: Spans, rows: Rows) -> None:
    if module.padding_idx is not None:
        grads = grads.masked_fill(inputs == module.padding_idx, 0.0)
    for task, span in spans.items():
        ids, size = inputs[span].t(), module.weight.shape
        rows.add(module.weight, task, torch.sparse_coo_tensor(ids, grads[span], size, check_invariants=False))


SPLITS: Mapping[type[nn.Module], Callable[[Any, Tensor, Tensor, Spans, Rows], None]] = {
    nn.Linear: _split_linear,
    nn.LayerNorm: _split_norm,
    nn.Embedding: _split_embedding,
}
"""Modules whose gradients can be split: from inputs (N, F) and the gradients (N, G) of what they gave, to the rows."""


class Split:
    """Splits the gradients of the ``shared`` parameters of ``model``, which are those of ``modules``."""

    def __init__(self, model: MultiTaskModel, shared: frozenset[nn.Parameter], modules: Sequence[nn.Module]) -> None:
        self._encoder = model.encoder
        self._shared = shared
        self._modules = tuple(modules)
        self._spans: dict[int, dict[str, slice]] = {}
        self._last_cast: tuple[Tensor, Tensor] | None = None
        self._rows: Rows | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Notes what runs through the modules; shared parameters do not ask for gradients meanwhile."""
        hooks = [self._encoder.register_forward_pre_hook(self._enter, with_kwargs=True)]
        # Ahead of other hooks, which may change what a module gives.
        hooks += [module.register_forward_hook(self._note, prepend=True) for module in self._modules]
        for parameter in self._shared:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            self._last_cast = None
            for parameter in self._shared:
                parameter.requires_grad_(True)
            for hook in hooks:
                hook.remove()

    @contextmanager
    def into(self, rows: Rows) -> Iterator[None]:
        """Adds the gradients of backwards within to ``rows``; those of others, as regularisers run, do not count."""
        self._rows = rows
        try:
            yield
        finally:
            self._rows = None

    def _enter(self, encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Notes where the tasks' tokens and sequences are in the batch that is about to run."""
        del encoder
        offsets = offsets_of(args[2])
        tokens = {task: slice(start, stop) for task, start, stop in kwargs["routes"]}
        sequences = {task: slice(offsets.index(span.start), offsets.index(span.stop)) for task, span in tokens.items()}
        self._spans = {len(args[2]): sequences, offsets[-1]: tokens}

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
    split = Split(model, shared, modules)
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
        _near(rows.gradient(parameter, task), gradient)
        for task, gradients in zip(rows.tasks, expected, strict=True)
        for parameter, gradient in zip(shared, gradients, strict=True)
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


def _near(found: Tensor | None, expected: Tensor | None) -> bool:
    if found is None or expected is None:
        return found is expected
    expected = expected.to_dense()
    return float((found - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())
