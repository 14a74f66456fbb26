"""One gradient a task, in memory that stays where it is, and surgery on them without a look at any number on the host.

Axes: K tasks, P numbers of shared parameters, T tokens.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

PIECE = 4096
"""Numbers whose products are summed at once, in fp32."""


def pcgrad_weights(gramian: Tensor, orders: Tensor, *, always: bool = False) -> Tensor:
    """`balancing.pcgrad.pcgrad_weights` of ``gramian`` (K, K) and ``orders`` (K, K) on their device, float64.

    All tasks' projections off the first of their others are made together, then those off the second, and so on.
    """
    products = gramian.double()
    size = len(products)
    shares = torch.eye(size, dtype=products.dtype, device=products.device)
    own = torch.arange(size, device=products.device)
    squares = products.diagonal()
    for others in orders.t():
        product = (shares * products.index_select(0, others)).sum(1)
        square = squares.index_select(0, others)
        projects = (others != own) & (square > 0)
        if not always:
            projects = projects & (product < 0)
        change = torch.where(projects, product / square, torch.zeros_like(product))
        shares.scatter_add_(1, others[:, None], -change[:, None])
    return shares.sum(0)


class DeviceRows:
    """As `Rows`, for one step after the other over the same parameters, which lie in a fixed place of two buffers.

    ``halves`` are matrices whose gradients have the type ``dtype`` of the encoder's products; those of all other
    ``parameters`` are fp32. ``words`` is the word embedding: of its gradients the rows of the step's tokens are kept.
    """

    def __init__(
        self,
        tasks: int,
        parameters: Sequence[nn.Parameter],
        halves: frozenset[Tensor],
        words: Tensor,
        dtype: torch.dtype,
    ) -> None:
        self.tasks: tuple[str, ...] = ()
        self._words = words
        device = words.device
        kept = [each for each in parameters if each is not words]
        self._half = _Flat(tasks, [each for each in kept if each in halves], dtype, device)
        self._full = _Flat(tasks, [each for each in kept if each not in halves], torch.float32, device)
        self._words_sum = torch.zeros_like(words, dtype=torch.float32)
        self._tokens: dict[str, tuple[Tensor, Tensor]] = {}
        self._known: set[Tensor] = set()

    def start(self, tasks: Sequence[str]) -> None:
        """Begins a step of ``tasks``; what was added before is forgotten."""
        self.tasks = tuple(tasks)
        self._tokens = {}
        self._known = set()
        self._full.rows.zero_()

    def add(self, parameter: Tensor, task: str, gradient: Tensor) -> None:
        """Adds a gradient, sparse where it is an embedding's."""
        if parameter is self._words:
            if task in self._tokens or not gradient.is_sparse:
                raise ValueError("the word embedding has other gradients than those of a task's tokens")
            self._tokens[task] = gradient._indices()[0], gradient._values().float()
            return
        row = self._full.of([parameter])[self.tasks.index(task)].view_as(parameter)
        self._known.add(parameter)
        if gradient.is_sparse:
            row.index_add_(0, gradient._indices()[0], gradient._values().float())
        else:
            row.add_(gradient)

    def add_stacked(self, parameters: Sequence[Tensor], gradients: Tensor) -> None:
        """Adds gradients (K, G, ...) of all tasks for ``parameters`` that lie one below the other."""
        self._known.update(parameters)
        self._full.of(parameters)[: len(self.tasks)].add_(gradients.flatten(1))

    def add_products(
        self, parameters: Sequence[Tensor], left: Tensor, right: Tensor, spans: Mapping[str, slice]
    ) -> None:
        """Adds the gradients of matrices (G, F) that lie one below the other: see `Rows.add_products`."""
        if spans.keys() != set(self.tasks):
            raise ValueError("a matrix is not used by all tasks")
        if self._half.holds(parameters[0]):
            if not self._known.isdisjoint(parameters):
                raise ValueError("a matrix is used twice")
            rows = self._half.of(parameters)
            for task, row in zip(self.tasks, rows, strict=False):
                torch.mm(left[spans[task]].t(), right[spans[task]], out=row.view(left.shape[1], right.shape[1]))
        else:
            rows = self._full.of(parameters)
            for task, row in zip(self.tasks, rows, strict=False):
                row.view(left.shape[1], right.shape[1]).add_(left[spans[task]].t() @ right[spans[task]])
        self._known.update(parameters)

    def gramian(self) -> Tensor:
        """Inner products (K, K) of the tasks' gradients, float64: sums of fp32 ones."""
        size = len(self.tasks)
        found = _inner(self._half.rows[:size]) + _inner(self._full.rows[:size])
        return found + _inner(self._word_rows()) if self._tokens else found

    def combine(self, weights: Tensor) -> None:
        """Leaves the sum of the gradients, each task's times its weight (K,), in the parameters' ``grad``.

        These are parts of memory that the next step uses again. What no task touched is left alone.
        """
        factors = weights.float()
        for flat in (self._half, self._full):
            flat.sum_up(factors)
            for parameter in flat.parameters:
                if parameter in self._known:
                    parameter.grad = flat.total[flat.span([parameter])].view_as(parameter)
        if self._tokens:
            self._words_sum.zero_()
            for place, task in enumerate(self.tasks):
                ids, values = self._tokens[task]
                self._words_sum.index_add_(0, ids, values * factors[place])
            self._words.grad = self._words_sum

    def _word_rows(self) -> Tensor:
        """The tasks' gradients (K, T D) at the words of the step, each word once and zeros behind."""
        ids = torch.cat([self._tokens[task][0] for task in self.tasks])
        ordered, order = ids.sort()
        is_next = torch.zeros_like(ordered)
        is_next[1:] = ordered[1:] != ordered[:-1]
        places = torch.empty_like(ids).scatter_(0, order, is_next.cumsum(0))
        width = self._words.shape[1]
        rows = self._words_sum.new_zeros(len(self.tasks), len(ids), width)
        sizes = [len(self._tokens[task][0]) for task in self.tasks]
        for row, task, own in zip(rows, self.tasks, places.split(sizes), strict=True):
            row.index_add_(0, own, self._tokens[task][1])
        return rows.flatten(1)


class _Flat:
    """Rows (K, P) for ``parameters`` one after the other, and their weighted sum ``total`` (P,) in fp32."""

    def __init__(
        self, tasks: int, parameters: Sequence[nn.Parameter], dtype: torch.dtype, device: torch.device
    ) -> None:
        self.parameters = tuple(parameters)
        self._start: dict[Tensor, int] = {}
        size = 0
        for each in parameters:
            self._start[each] = size
            size += each.numel()
        self.rows = torch.zeros(tasks, -(-size // PIECE) * PIECE, dtype=dtype, device=device)
        self.total = torch.zeros(self.rows.shape[1], device=device)

    def holds(self, parameter: Tensor) -> bool:
        """Whether the parameter is here."""
        return parameter in self._start

    def span(self, parameters: Sequence[Tensor]) -> slice:
        """Where parameters are that lie one behind the other."""
        start = stop = self._start[parameters[0]]
        for each in parameters:
            if self._start[each] != stop:
                raise ValueError("parameters that run together do not lie together")
            stop += each.numel()
        return slice(start, stop)

    def of(self, parameters: Sequence[Tensor]) -> Tensor:
        """Their rows (K, G)."""
        return self.rows[:, self.span(parameters)]

    def sum_up(self, weights: Tensor) -> None:
        """The sum of the rows, each times its weight, into ``total``."""
        torch.mul(self.rows[0], weights[:1], out=self.total)
        for place in range(1, len(weights)):
            self.total.addcmul_(self.rows[place], weights[place : place + 1])


def _inner(rows: Tensor) -> Tensor:
    """Inner products (K, K) of rows (K, N), float64; sums of `PIECE` numbers are fp32."""
    size = -(-rows.shape[1] // PIECE) * PIECE
    if size != rows.shape[1]:
        rows = torch.cat([rows, rows.new_zeros(len(rows), size - rows.shape[1])], dim=1)
    pieces = rows.view(len(rows), -1, PIECE).transpose(0, 1)
    if rows.dtype == torch.float32:
        found = torch.bmm(pieces, pieces.transpose(1, 2))
    elif rows.is_cuda:
        found = torch.bmm(pieces, pieces.transpose(1, 2), out_dtype=torch.float32)
    else:
        found = torch.bmm(pieces.float(), pieces.float().transpose(1, 2))
    return found.double().sum(0)
