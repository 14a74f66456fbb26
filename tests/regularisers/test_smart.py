"""SMART against the paper, example by example in double precision; what it touches, and what it keeps."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from passes import TASKS, World, gradients, new_regulariser, new_world
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from manyhead.model import MultiTaskModel, load_weights, save_weights
from manyhead.packed import PackedBatch
from manyhead.regularisers.base import TrainingPass
from manyhead.regularisers.smart import SmartPenalty, ascend

LARGE: dict[str, Any] = {"epsilon": 0.02, "sigma": 0.02, "step_size": 0.1}
"""Sizes at which fp32 is as good as exact."""


def probabilities(task: str, output: Tensor) -> Tensor:
    if task == "questions":
        positive = output[0].sigmoid()
        return torch.stack([1 - positive, positive])
    return output.softmax(0)


def literal_distance(task: str, one: Tensor, other: Tensor) -> Tensor:
    """l_s of two outputs (O,) of an example, in the paper's words."""
    if task == "sentences":
        return (5 * one[0] - 5 * other[0]) ** 2
    p, q = probabilities(task, one), probabilities(task, other)
    return (p * (p / q).log()).sum() + (q * (q / p).log()).sum()


class Literal:
    """The model in double precision, one text at a time, by transformers' own attention."""

    def __init__(self, world: World) -> None:
        self.model = copy.deepcopy(world.model).double()
        encoder = cast("Any", self.model.encoder)
        encoder.use_packed(False)
        self.bert: Any = encoder.model

    def embedded(self, batch: PackedBatch, sequence: int) -> Tensor:
        tokens = batch.input_ids.split(list(batch.lengths))[sequence]
        segments = batch.segment_ids.split(list(batch.lengths))[sequence]
        return self.bert.embeddings(input_ids=tokens[None], token_type_ids=segments[None])[0]

    def output(self, task: str, states: Sequence[Tensor]) -> Tensor:
        vectors = [self.bert.encoder(each[None]).last_hidden_state[0].mean(0) for each in states]
        return self.model.head(task)(torch.stack(vectors)[None])[0]

    def penalties(self, done: TrainingPass, start: Tensor, options: Any) -> dict[str, Tensor]:
        """lambda_s l_s(f(x~), f(x)) of each example, from the noise ``start`` of the whole batch."""
        noises = start.double().split(list(done.batch.lengths))
        found: dict[str, Tensor] = {}
        for part in done.batch.parts:
            one: list[Tensor] = []
            for sequences in part.sequences.tolist():
                x = [self.embedded(done.batch, each) for each in sequences]
                clean = self.output(part.task, x)
                noise = [noises[each] for each in sequences]
                for _ in range(options.steps):
                    moved = [(a.detach() + n).requires_grad_() for a, n in zip(x, noise, strict=True)]
                    distance = literal_distance(part.task, self.output(part.task, moved), clean.detach())
                    slopes = torch.autograd.grad(distance, moved)
                    largest = max(float(slope.abs().max()) for slope in slopes)
                    noise = [n + options.step_size * g / largest for n, g in zip(noise, slopes, strict=True)]
                    if not options.detach:
                        noise = [n.clamp(-options.epsilon, options.epsilon) for n in noise]
                rough = self.output(part.task, [a + n for a, n in zip(x, noise, strict=True)])
                other = clean.detach() if options.detach else clean
                one.append(options.weight * literal_distance(part.task, rough, other))
            found[part.task] = torch.stack(one)
        return found

    def distances(self, batch: PackedBatch, other: "Literal") -> dict[str, Tensor]:
        """l_s(f(x; theta), f(x; theta~)) of each example, without a gradient to ``other``."""
        found: dict[str, Tensor] = {}
        for part in batch.parts:
            outputs = [
                [
                    model.output(part.task, [model.embedded(batch, each) for each in sequences])
                    for model in (self, other)
                ]
                for sequences in part.sequences.tolist()
            ]
            found[part.task] = torch.stack([literal_distance(part.task, a, b.detach()) for a, b in outputs])
        return found

    def gradients(self, penalties: Mapping[str, Tensor]) -> dict[str, Tensor]:
        torch.cat(list(penalties.values())).sum().backward()
        return {name: each.grad for name, each in self.model.named_parameters() if each.grad is not None}


def close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float) -> None:
    assert set(found) == set(expected)
    top = max(float(each.abs().max()) for each in expected.values())
    for name, each in expected.items():
        assert float((found[name] - each).abs().max()) <= tolerance * top, name


def seeded_penalties(smart: Any, done: TrainingPass, seed: int = 5) -> tuple[dict[str, Tensor], Tensor]:
    """The penalties, and the noise that their search began with."""
    torch.manual_seed(seed)
    start = torch.randn(done.batch.n_tokens, 16) * smart.options.sigma
    torch.manual_seed(seed)
    return smart.penalties(done), start


@pytest.mark.parametrize(
    "options",
    [
        LARGE,
        {**LARGE, "steps": 3, "weight": 2.5},
        {**LARGE, "detach": True},
        {**LARGE, "masks": "own"},
    ],
    ids=["one step", "three steps", "detached", "own masks"],
)
def test_it_is_the_papers_penalty_with_the_papers_gradient(world: World, options: dict[str, Any]) -> None:
    smart = cast("SmartPenalty", new_regulariser(world, "smart", **options))
    done = world.done()
    found, start = seeded_penalties(smart, done)
    literal = Literal(world)
    expected = literal.penalties(done, start, smart.options)
    assert all(bool((each > 0).all()) for each in expected.values())
    for task in TASKS:
        torch.testing.assert_close(found[task].double(), expected[task], rtol=2e-3, atol=1e-9)
    close(gradients(world, found), literal.gradients(expected), 2e-3)


def test_the_papers_own_sizes_are_met_in_fp32(world: World) -> None:
    smart = cast("SmartPenalty", new_regulariser(world, "smart"))
    done = world.done()
    found, start = seeded_penalties(smart, done)
    literal = Literal(world)
    expected = literal.penalties(done, start, smart.options)
    assert max(float(each.detach().max()) for each in expected.values()) < 1e-5
    total, right = (torch.cat(list(each.values())).detach().double() for each in (found, expected))
    # The median: where the start noise changes a score by less than fp32 resolves, there is no way up.
    assert float((total / right - 1).abs().median()) < 0.05


@dataclass(frozen=True)
class Seen:
    """A run of the encoder."""

    tasks: tuple[str, ...]
    noise: Tensor | None
    autocast: bool


@contextmanager
def watching(model: MultiTaskModel) -> Iterator[list[Seen]]:
    """Tells what the encoder is run on."""
    seen: list[Seen] = []

    def see(_: nn.Module, __: object, given: dict[str, Any]) -> None:
        tasks = tuple(route.task for route in given["routes"])
        seen.append(Seen(tasks, given["noise"], torch.is_autocast_enabled("cpu")))

    hook = model.encoder.register_forward_pre_hook(see, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def test_noise_stays_within_epsilon_and_reaches_it(dropping: World) -> None:
    smart = new_regulariser(dropping, "smart", epsilon=2e-5, sigma=1e-4, steps=2)
    done = dropping.done()
    with watching(dropping.model) as seen:
        smart.penalties(done)
    clean, first, *others = (run.noise for run in seen)
    assert clean is None
    assert first is not None
    assert float(first.detach().abs().max()) > 1e-4  # the start is cut behind a step alone
    assert len(others) == 2
    for noise in others:
        assert noise is not None
        assert float(noise.detach().abs().max()) == pytest.approx(2e-5)
        assert float((noise.abs() > 1.9e-5).float().mean()) > 0.5


@pytest.mark.parametrize("masks", ["shared", "own"])
def test_only_the_named_tasks_are_run_and_penalised(dropping: World, masks: str) -> None:
    smart = new_regulariser(dropping, "smart", only=["questions"], masks=masks, bregman=1.0)
    done, without = dropping.done(), dropping.done(tasks=("reviews",))
    with watching(dropping.model) as seen:
        penalties = smart.penalties(done)
    assert list(penalties) == ["questions"]
    assert penalties["questions"].shape == (5,)
    assert [run.tasks for run in seen] == [("questions",)] * (4 if masks == "shared" else 3)
    with watching(dropping.model) as seen:
        assert smart.penalties(without) == {}
    assert not seen
    assert list(new_regulariser(dropping, "smart", tasks=("sentences",)).penalties(done)) == ["sentences"]


def test_without_weights_there_are_no_penalties(dropping: World) -> None:
    done = dropping.done()
    with watching(dropping.model) as seen:
        assert new_regulariser(dropping, "smart", weight=0.0).penalties(done) == {}
        assert new_regulariser(dropping, "smart", weight=0.0, bregman=0.0).penalties(done) == {}
    assert not seen


def test_an_example_alone_is_moved_as_in_a_batch(world: World) -> None:
    done = world.done()
    batch = done.batch
    start = torch.randn(batch.n_tokens, 16, generator=torch.Generator().manual_seed(1)) * 0.02
    together, rows = search(world, batch, start), start.split(list(batch.lengths))
    for part in batch.parts:
        for example in range(5):
            alone = world.done(tasks=(part.task,), rows=[example]).batch
            sequences = part.sequences[example].tolist()
            # A pair's texts may stand in another order when they are alone.
            order = sorted(range(len(sequences)), key=lambda which: alone.parts[0].sequences[0, which].item())
            given = torch.cat([rows[sequences[which]] for which in order])
            expected = torch.cat([together.split(list(batch.lengths))[sequences[which]] for which in order])
            torch.testing.assert_close(search(world, alone, given), expected, atol=2e-5, rtol=1e-3)


def search(world: World, batch: PackedBatch, start: Tensor) -> Tensor:
    """One step without a radius, uphill the squares of the change of the outputs."""
    clean = {task: each.detach() for task, each in world.model(batch).items()}

    def distance(noise: Tensor) -> Tensor:
        outputs = world.model.run(batch, noise).outputs
        return torch.cat([(outputs[task] - clean[task]).square().flatten() for task in outputs]).sum()

    return ascend(distance, start, batch.examples_of_tokens(), world.model, step_size=0.1, steps=1, radius=None)


def test_a_flat_distance_leaves_noise_where_it_is() -> None:
    start = torch.randn(6, 4)
    examples = torch.tensor([0, 0, 1, 1, 1, 2])
    half = ascend(lambda noise: noise[:2].sum(), start, examples, nn.Identity(), step_size=0.5, steps=1, radius=None)
    assert torch.equal(half[2:], start[2:])
    torch.testing.assert_close(half[:2], start[:2] + 0.5)
    assert torch.equal(
        ascend(lambda noise: (noise * 0).sum(), start, examples, nn.Identity(), step_size=0.5, steps=2, radius=0.1),
        start.clamp(-0.1, 0.1),
    )


def test_shared_masks_leave_the_input_as_the_only_difference(dropping: World) -> None:
    done = dropping.done()
    torch.manual_seed(0)
    shared = torch.cat(list(new_regulariser(dropping, "smart").penalties(done).values()))
    assert 0 < float(shared.detach().max()) < 1e-5
    own = torch.cat(list(new_regulariser(dropping, "smart", masks="own").penalties(done).values()))
    assert float(own.detach().mean()) > 1e-3
    again = new_regulariser(dropping, "smart", weight=0.0, bregman=1.0)
    assert all(bool((each == 0).all()) for each in again.penalties(done).values())


def test_each_piece_draws_masks_of_its_own(dropping: World) -> None:
    smart = new_regulariser(dropping, "smart", **LARGE)
    done = dropping.done()
    torch.manual_seed(1)
    first, second = smart.penalties(done), smart.penalties(done)
    torch.manual_seed(1)
    again = smart.penalties(done)
    for task in TASKS:
        assert torch.equal(first[task], again[task])
        assert not torch.equal(first[task], second[task])


def test_under_bf16_the_penalty_is_that_of_fp32(dropping: World) -> None:
    smart = new_regulariser(dropping, "smart")
    done = dropping.done()
    expected, _ = seeded_penalties(smart, done)
    dropping.model.autocast = torch.bfloat16
    done = dropping.done()
    with watching(dropping.model) as seen:
        found, _ = seeded_penalties(smart, done)
    assert [run.autocast for run in seen] == [False] * 3
    assert dropping.model.autocast == torch.bfloat16
    for task in TASKS:
        assert torch.equal(found[task], expected[task])
    own = new_regulariser(dropping, "smart", masks="own")
    with watching(dropping.model) as seen:
        own.penalties(done)
    assert [run.autocast for run in seen] == [True] * 2


def test_precision_comes_back_after_an_error(dropping: World) -> None:
    done = dropping.done()
    dropping.model.autocast = torch.bfloat16
    del dropping.model.pooling
    with pytest.raises(AttributeError):
        new_regulariser(dropping, "smart").penalties(done)
    assert dropping.model.autocast == torch.bfloat16


def test_it_leaves_weights_and_gradients_alone(dropping: World) -> None:
    smart = new_regulariser(dropping, "smart", bregman=1.0)
    smart.started(dropping.model)
    before = {name: tensor.clone() for name, tensor in dropping.model.state_dict().items()}
    penalties = smart.penalties(dropping.done())
    assert all(parameter.grad is None for parameter in dropping.model.parameters())
    torch.cat(list(penalties.values())).sum().backward()
    smart.updated(dropping.model)
    for name, tensor in dropping.model.state_dict().items():
        assert torch.equal(tensor, before[name])


class Products(TorchDispatchMode):
    """Counts matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ in ("mm", "addmm", "bmm", "baddbmm")
        return func(*args, **(kwargs or {}))


def test_the_search_computes_no_gradient_of_weights(world: World) -> None:
    batch = world.done().batch
    start = torch.randn(batch.n_tokens, 16)
    counts: list[int] = []
    for trains in (True, False):
        world.model.requires_grad_(trains)
        clean = {task: each.detach() for task, each in world.model(batch).items()}

        def distance(noise: Tensor, clean: Mapping[str, Tensor] = clean) -> Tensor:
            outputs = world.model.run(batch, noise).outputs
            return torch.cat([(outputs[task] - clean[task]).square().flatten() for task in outputs]).sum()

        with Products() as products:
            ascend(distance, start, batch.examples_of_tokens(), world.model, step_size=0.1, steps=1, radius=None)
        counts.append(products.count)
    assert counts[0] == counts[1] > 20


def nudge(model: nn.Module, seed: int) -> None:
    """Stands for an update: moves what trains."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)


def test_the_proximal_term_is_the_papers(world: World) -> None:
    options: dict[str, Any] = {"weight": 0.0, "bregman": 1.5, "beta": 0.5, "beta_late": 0.75}
    smart = cast("SmartPenalty", new_regulariser(world, "smart", total_steps=25, **options))
    nudge(world.model, 0)  # an earlier stage
    smart.started(world.model)
    average = {name: each.detach().double().clone() for name, each in world.model.named_parameters()}
    for update in range(1, 5):
        done = world.done()
        found = smart.penalties(done)
        literal, before = Literal(world), Literal(world)
        with torch.no_grad():
            for name, parameter in before.model.named_parameters():
                parameter.copy_(average[name])
        expected = literal.distances(done.batch, before)
        for task in TASKS:
            assert bool((expected[task] > 0).all()) == (update > 1)
            torch.testing.assert_close(found[task].double(), 1.5 * expected[task], rtol=1e-3, atol=1e-8)
        if update > 1:
            scaled = {task: 1.5 * each for task, each in expected.items()}
            close(gradients(world, found), literal.gradients(scaled), 1e-3)
        nudge(world.model, update)
        smart.updated(world.model)
        beta = 0.5 if update <= 2.5 else 0.75
        for name, parameter in world.model.named_parameters():
            average[name] = (1 - beta) * parameter.detach().double() + beta * average[name]
    assert smart.average is not None
    for name, each in smart.average.weights().items():
        torch.testing.assert_close(each.double(), average[name], rtol=1e-5, atol=1e-6)


def test_what_does_not_train_keeps_its_weights_in_the_average(world: World) -> None:
    smart = cast("SmartPenalty", new_regulariser(world, "smart", bregman=1.0))
    smart.started(world.model)
    before = {name: each.detach().clone() for name, each in world.model.named_parameters()}
    world.model.encoder.requires_grad_(False)
    nudge(world.model, 3)
    smart.updated(world.model)
    assert smart.average is not None
    for name, each in smart.average.weights().items():
        assert torch.equal(each, before[name]) == name.startswith("encoder."), name


def test_the_average_goes_through_a_file_and_on_with_the_same_bits(folder: Path, tmp_path: Path) -> None:
    def life(world: World, smart: SmartPenalty, updates: range) -> list[Tensor]:
        found: list[Tensor] = []
        for update in updates:
            torch.manual_seed(update)
            found.append(torch.cat(list(smart.penalties(world.done()).values())).detach())
            nudge(world.model, update)
            smart.updated(world.model)
        return found

    def born() -> tuple[World, SmartPenalty]:
        world = new_world(folder, dropout=0.3)
        world.model.train()
        return world, cast("SmartPenalty", new_regulariser(world, "smart", total_steps=40, bregman=1.0, **LARGE))

    world, smart = born()
    smart.started(world.model)
    whole = life(world, smart, range(6))
    world, smart = born()
    smart.started(world.model)
    life(world, smart, range(3))
    save_weights(world.model, tmp_path / "weights.safetensors")
    save_weights(smart, tmp_path / "smart.safetensors")
    world, smart = born()
    load_weights(world.model, tmp_path / "weights.safetensors")
    load_weights(smart, tmp_path / "smart.safetensors")
    for found, expected in zip(life(world, smart, range(3, 6)), whole[3:], strict=True):
        assert torch.equal(found, expected)
    assert len(load_file(tmp_path / "smart.safetensors")) == len(list(world.model.parameters())) + 1
    assert not new_regulariser(world, "smart").state_dict()
