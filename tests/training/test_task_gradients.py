"""Gradients by task: their rows against torchjd and autograd, and what balancers, clipping and heads make of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torchjd import autojac
from transformers import AutoConfig

from manyhead.balancing.base import Balancer, Signals
from manyhead.balancing.pcgrad import pcgrad_weights
from manyhead.build import new_model, plan_stages, read_parts
from manyhead.data.task_data import TaskData
from manyhead.encoder.packed_encoder import PackedEncoder
from manyhead.errors import DivergedError
from manyhead.model import MultiTaskModel, build_model
from manyhead.recipe.load import load_recipe
from manyhead.regularisers.base import Regulariser, TrainingPass
from manyhead.schedules.base import Part, Step
from manyhead.schedules.draws import permutations
from manyhead.training.clipping import Clipping
from manyhead.training.gradients import JointGradients
from manyhead.training.observer import Observer
from manyhead.training.rows import Rows
from manyhead.training.segments import split_of
from manyhead.training.step import Learner, clear_gradients, take_step
from manyhead.training.task_gradients import TaskGradients
from tiny import tiny_encoder, tiny_recipe

Gradients = dict[str, Tensor | None]
TASKS = ("reviews", "questions", "sentences")


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


def learner_of(encoder: Path, *, dropout: float = 0.0, keys: Mapping[str, Any] | None = None, **stage: Any) -> Learner:
    """The learner of the tiny recipe's stage, as a run builds it; ``keys`` change its encoder."""
    recipe = tiny_recipe(encoder, **stage)
    recipe["encoder"] |= {"dropout": dropout, **(keys or {})}
    recipe["tasks"]["reviews"]["head"] = {"kind": "linear", "dropout": dropout}
    recipe["tasks"]["questions"]["head"] = {"kind": "hidden", "dropout": dropout}
    parts = read_parts(load_recipe(recipe), Observer())
    return plan_stages(parts, new_model(parts))[0].learner


def task_gradients(learner: Learner) -> TaskGradients:
    assert isinstance(learner.gradients, TaskGradients)
    return learner.gradients


def apart(learner: Learner, *, together: bool) -> Learner:
    """The same learner with rows out of one backward, or of one a task."""
    before = task_gradients(learner)
    return replace(learner, gradients=TaskGradients(before.balancer, before.model, before.clipping, together=together))


def step_of(learner: Learner, size: int = 5, tasks: Sequence[str] = TASKS) -> Step:
    rows = {task: torch.arange(n, n + size + n).numpy() for n, task in enumerate(tasks)}
    return Step(0, 0, tuple(Part(task, rows[task]) for task in tasks))


def collected(learner: Learner, step: Step) -> TaskGradients:
    """What has collected the rows of one step in one piece."""
    gradients = task_gradients(learner)
    learner.lesson.model.train()
    clear_gradients(learner.lesson.model)
    counts = {part.task: len(part.examples) for part in step.parts}
    tasks = tuple(part.task for part in step.parts)
    torch.manual_seed(1)
    gradients.add(
        lambda parts: learner.lesson.losses(parts, counts), step.parts, Signals(tasks, None, None, 0, (1, "s", 0))
    )
    return gradients


def shared(model: MultiTaskModel) -> dict[str, nn.Parameter]:
    return {name: each for name, each in model.named_parameters() if model.task_of(name) is None and each.requires_grad}


def rows_of(learner: Learner, step: Step) -> dict[str, Gradients]:
    """Each task's gradient over the shared parameters, as `TaskGradients` finds it."""
    rows = collected(learner, step).rows
    named = shared(learner.lesson.model)
    return {part.task: {name: rows.gradient(each, part.task) for name, each in named.items()} for part in step.parts}


def expected_rows(learner: Learner, step: Step) -> dict[str, Gradients]:
    """The same by one autograd call a task."""
    model = learner.lesson.model.train()
    named = shared(model)
    counts = {part.task: len(part.examples) for part in step.parts}
    found: dict[str, Gradients] = {}
    for part in step.parts:
        torch.manual_seed(1)
        loss = learner.lesson.losses([part], counts)[part.task]
        gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        found[part.task] = {
            name: None if gradient is None else gradient.to_dense()
            for name, gradient in zip(named, gradients, strict=True)
        }
    return found


def assert_rows(found: Mapping[str, Gradients], expected: Mapping[str, Gradients], share: float = 3e-4) -> None:
    """Equal up to ``share`` of each gradient's largest number; a key's bias has none but rounding."""
    for task, gradients in expected.items():
        largest = max(float(each.abs().max()) for each in gradients.values() if each is not None)
        for name, gradient in gradients.items():
            other = found[task][name]
            if gradient is None or other is None:
                assert gradient is other, (task, name)
                continue
            close = share * max(float(gradient.abs().max()), 1e-2 * largest)
            torch.testing.assert_close(other, gradient, rtol=0, atol=close, msg=f"{task}, {name}")


def flat(gradients: Gradients, like: Mapping[str, nn.Parameter]) -> Tensor:
    parts = [torch.zeros(like[name].numel()) if each is None else each.flatten() for name, each in gradients.items()]
    return torch.cat(parts).double()


def gradients_of(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: None if each.grad is None else each.grad.clone() for name, each in model.named_parameters()}


ENCODERS: dict[str, dict[str, Any]] = {
    "mean": {},
    "pooler": {"pooling": "pooler"},
    "attention": {"pooling": "attention"},
    "conv": {"pooling": {"kind": "conv", "kernels": [1, 3]}},
    "first layer": {"layer": 1},
    "projections": {"projections": ["dense", "mlp"]},
    "sandwich": {"sandwich_norm": True},
    "low rank": {"experts": {"kind": "low_rank", "rank": 4, "freeze": False}},
    "beside": {"experts": {"kind": "pal_parallel", "width": 8, "heads": 2}},
    "on top": {"experts": {"kind": "pal_top", "width": 8, "heads": 2}},
}


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("kind", list(ENCODERS))
def test_rows_are_the_tasks_own_gradients(encoder: Path, kind: str, together: bool) -> None:
    learner = learner_of(encoder, keys=ENCODERS[kind], balancing="pcgrad")
    learner = apart(learner, together=together)
    step = step_of(learner)
    found = rows_of(learner, step)
    assert (task_gradients(learner).split is not None) == together
    assert_rows(found, expected_rows(learner, step))


@pytest.mark.parametrize("frozen", [("embeddings",), ("embeddings", "layer.0"), ("layer.1",), ("query",)])
def test_rows_are_split_where_some_parameters_are_frozen(encoder: Path, frozen: tuple[str, ...]) -> None:
    learner = learner_of(encoder, balancing="pcgrad")
    for name, parameter in learner.lesson.model.named_parameters():
        parameter.requires_grad_(not any(part in name for part in frozen))
    assert take_step(learner, step_of(learner)).cosines is not None
    split = task_gradients(learner).split
    assert split is not None
    assert all(
        (parameter.grad is None) == any(part in name for part in frozen)
        for name, parameter in learner.lesson.model.encoder.named_parameters()
        if "word_embeddings" not in name
    )


@pytest.mark.parametrize("family", ["roberta", "electra", "distilbert", "albert", "modernbert", "mpnet"])
def test_every_family_that_runs_packed_is_split(encoder: Path, family: str) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    kept = {"embedding_size": 8} if family in ("electra", "albert") else {}
    if family == "distilbert":
        sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
    tokens = {f"{name}_token_id": number for number, name in enumerate(("pad", "bos", "eos", "cls", "sep"), start=1)}
    config = AutoConfig.for_model(family, vocab_size=99, max_position_embeddings=64, **sizes, **kept, **tokens)
    loaded = load_recipe(tiny_recipe(encoder))
    model = build_model(loaded.recipe, loaded.tables, config, None)
    split = split_of(model, frozenset(shared(model).values()))
    assert isinstance(model.encoder, PackedEncoder)
    assert model.encoder.packed == (split is not None) == (family != "mpnet")


@pytest.mark.parametrize("together", [True, False])
def test_rows_are_torchjds_jacobian(encoder: Path, together: bool) -> None:
    learner = learner_of(encoder, balancing="pcgrad")
    learner = apart(learner, together=together)
    step = step_of(learner)
    found = rows_of(learner, step)
    model = learner.lesson.model
    model.encoder.sparse_embedding_gradients(False)
    losses = learner.lesson.losses(step.parts, {part.task: len(part.examples) for part in step.parts})
    named = shared(model)
    autojac.backward(list(losses.values()), inputs=list(named.values()), parallel_chunk_size=1)
    jacobian = {
        task: {name: cast("Any", each).jac[row] for name, each in named.items()} for row, task in enumerate(losses)
    }
    assert_rows(
        {task: {name: torch.zeros_like(named[name]) if each is None else each for name, each in row.items()}
         for task, row in found.items()},
        jacobian,
    )  # fmt: skip


@pytest.mark.parametrize(
    "regulariser", ["r_drop", {"kind": "smart", "tasks": ["questions"]}, {"kind": "smart", "bregman": 1.0}]
)
def test_passes_of_regularisers_count_for_their_tasks(encoder: Path, regulariser: Any) -> None:
    """Also those that see some tasks only; searches for noise do not count."""
    # R-Drop asks for dropout, and gets one that rounds to none.
    learner = learner_of(encoder, dropout=1e-6, balancing="pcgrad", regularisers=[regulariser])
    step = step_of(learner)
    found = rows_of(learner, step)
    assert task_gradients(learner).split is not None
    # SMART draws its noise for all tasks at once, so the noise of a task alone is another.
    share = 1e-5 if regulariser == "r_drop" else 1e-2
    assert_rows(found, expected_rows(learner, step), share)


class Searching(Regulariser):
    """Asks for the gradient of some noise on the way, as searches for the worst noise do."""

    def penalties(self, done: TrainingPass) -> Mapping[str, Tensor]:
        noise = torch.zeros(done.batch.n_tokens, done.model.width, requires_grad=True)
        outputs = done.model.run(done.batch, noise).outputs
        (found,) = torch.autograd.grad(torch.cat([each.flatten() for each in outputs.values()]).sum(), noise)
        assert found.any()
        return {}


def test_backwards_of_regularisers_do_not_count(encoder: Path) -> None:
    learner = learner_of(encoder, balancing="pcgrad")
    step = step_of(learner)
    expected = expected_rows(learner, step)
    learner = replace(learner, lesson=replace(learner.lesson, regularisers=[Searching()]))
    assert_rows(rows_of(learner, step), expected)


def test_both_ways_agree_in_half_precision(encoder: Path) -> None:
    learner = learner_of(encoder, balancing="pcgrad")
    learner.lesson.model.autocast = torch.bfloat16
    with torch.no_grad():
        for parameter in learner.lesson.model.encoder.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)  # or all layers would be given nearly the same
    step = step_of(learner)
    found = rows_of(learner, step)
    assert task_gradients(learner).split is not None
    assert_rows(found, expected_rows(learner, step), 0.02)


def test_an_encoder_that_does_not_run_packed_has_its_tasks_run_apart(encoder: Path) -> None:
    learner = learner_of(encoder, balancing="pcgrad")
    fallback = learner.lesson.model.encoder
    assert isinstance(fallback, PackedEncoder)
    fallback.use_packed(False)
    step = step_of(learner)
    found = rows_of(learner, step)
    assert task_gradients(learner).split is None
    assert_rows(found, expected_rows(learner, step))


def test_weights_that_are_used_otherwise_have_their_tasks_run_apart(encoder: Path) -> None:
    learner = learner_of(encoder, keys={"pooling": "pooler"}, balancing="pcgrad")
    model = learner.lesson.model
    dense = model.pooling.get_submodule("dense")
    assert isinstance(dense, nn.Linear)

    def add(module: nn.Module, inputs: object, vectors: Tensor) -> Tensor:
        return vectors + dense.weight.sum()

    model.pooling.register_forward_hook(add)
    step = step_of(learner)
    found = rows_of(learner, step)
    assert task_gradients(learner).split is None
    assert_rows(found, expected_rows(learner, step))


def test_partly_frozen_modules_have_their_tasks_run_apart(encoder: Path) -> None:
    model = learner_of(encoder, balancing="pcgrad").lesson.model
    named = shared(model)
    assert split_of(model, frozenset(named.values())) is not None
    kept = frozenset(each for name, each in named.items() if not name.endswith("layer.0.output.dense.bias"))
    assert split_of(model, kept) is None


def test_looking_for_the_split_leaves_no_trace(encoder: Path) -> None:
    model = learner_of(encoder, dropout=0.3, balancing="pcgrad").lesson.model.train()
    model.autocast = torch.bfloat16
    before = gradients_of(model)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert split_of(model, frozenset(shared(model).values())) is not None
    assert torch.equal(torch.get_rng_state(), state)
    assert model.autocast == torch.bfloat16
    assert all(module.training for module in model.modules())
    assert gradients_of(model) == before
    assert all(parameter.requires_grad for parameter in shared(model).values())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_padding_has_no_gradient(encoder: Path) -> None:
    """A text may spell the padding token, whose embedding does not learn."""
    learner = learner_of(encoder, balancing="pcgrad")
    tokens = learner.lesson.data["reviews"].tokens
    ids = tokens.ids.copy()
    ids[tokens.offsets[0] + 1] = 0
    data = cast("dict[str, TaskData]", learner.lesson.data)
    data["reviews"] = replace(data["reviews"], tokens=replace(tokens, ids=ids))
    step = step_of(learner)
    found = rows_of(learner, step)
    words = next(name for name in found["reviews"] if name.endswith("word_embeddings.weight"))
    row = found["reviews"][words]
    assert row is not None
    assert not row[0].any()
    assert_rows(found, expected_rows(learner, step))


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("together", [True, False])
def test_pcgrad_is_written_back_and_heads_are_left_alone(encoder: Path, together: bool, sparse: bool) -> None:
    learner = learner_of(encoder, balancing={"kind": "pcgrad", "weights": {"questions": 3.0}}, clip_norm=None)
    learner = apart(learner, together=together)
    model = learner.lesson.model
    model.encoder.sparse_embedding_gradients(sparse)
    step = step_of(learner)
    rows = expected_rows(learner, step)
    named = shared(model)
    jacobian = torch.stack([flat(rows[task], named) for task in TASKS])
    jacobian[1] *= 3.0
    orders = permutations(3, (learner.seed, learner.stage, 0, "pcgrad"), count=3).tolist()
    gramian = jacobian @ jacobian.t()
    expected = pcgrad_weights(gramian, orders) @ jacobian
    reference = learner_of(encoder, balancing={"kind": "weighted", "weights": {"questions": 3.0}}, clip_norm=None)
    plain = updated(reference, step)
    found = updated(learner, step)
    torch.testing.assert_close(
        flat({name: found[name] for name in named}, named), expected, rtol=0, atol=1e-5 * float(expected.abs().max())
    )
    heads = [name for name in found if name not in named]
    assert heads
    assert [found[name] is None for name in found] == [plain[name] is None for name in found]
    for name in heads:
        if (gradient := plain[name]) is not None:
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def updated(learner: Learner, step: Step) -> dict[str, Tensor | None]:
    """The gradients of an update."""
    take_step(learner, step)
    return gradients_of(learner.lesson.model)


class Fixed(Balancer):
    """Gives the weights it was given, and remembers what it saw."""

    def __init__(self, weights: Mapping[str, float], *, heads: bool = True) -> None:
        super().__init__()
        self.given = dict(weights)
        self.weighs_heads = heads
        self.seen: Signals | None = None

    def weights(self, signals: Signals) -> Tensor:
        self.seen = signals
        return torch.tensor([self.given[task] for task in signals.tasks])


def with_balancer(learner: Learner, balancer: Balancer, clipping: Clipping, *, together: bool) -> Learner:
    gradients = TaskGradients(balancer, learner.lesson.model, clipping, together=together)
    return replace(learner, balancer=balancer, gradients=gradients)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("tasks", [TASKS, ("reviews",), ("sentences", "questions")])
def test_without_surgery_the_update_is_that_of_the_joint_loss(
    encoder: Path, tasks: tuple[str, ...], together: bool
) -> None:
    """Also what no task of the step touches has no gradient in both."""
    fixed = Fixed({"reviews": 0.5, "questions": 2.0, "sentences": -1.0})
    joint = learner_of(encoder, clip_norm=None)
    joint = replace(joint, balancer=fixed, gradients=JointGradients(fixed))
    step = step_of(joint, tasks=tasks)
    expected = updated(joint, step)
    apart = with_balancer(learner_of(encoder, clip_norm=None), fixed, Clipping(None), together=together)
    found = updated(apart, step)
    assert any(gradient is None for gradient in expected.values()) == (tasks != TASKS)
    for name, gradient in expected.items():
        if gradient is None:
            assert found[name] is None
        else:
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("balancing", ["sum", "gls", "pcgrad", {"kind": "weighted", "weights": {"reviews": 2.0}}])
def test_a_step_in_pieces_is_the_whole_step(encoder: Path, balancing: Any, together: bool) -> None:
    changes = {"balancing": balancing, "clip_by": "task", "clip_norm": 0.5}
    results: list[dict[str, Tensor | None]] = []
    cosines: list[Tensor] = []
    for accumulation in (1, 4):
        learner = learner_of(encoder, accumulation=accumulation, **changes)
        learner = apart(learner, together=together)
        result = take_step(learner, step_of(learner))
        results.append(gradients_of(learner.lesson.model))
        cosines.append(torch.tensor(result.cosines))
    torch.testing.assert_close(cosines[0], cosines[1], rtol=1e-4, atol=1e-5)
    for name, gradient in results[0].items():
        torch.testing.assert_close(results[1][name], gradient, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_pieces_in_half_precision_add_up_in_full(encoder: Path, dtype: torch.dtype | None) -> None:
    learner = learner_of(encoder, balancing="pcgrad", accumulation=2)
    learner.lesson.model.autocast = dtype
    first = take_step(learner, step_of(learner))
    assert math.isfinite(first.grad_norm)
    assert {each.dtype for by_task in task_gradients(learner).rows._whole.values() for each in by_task.values()} == {
        torch.float32
    }


def test_cosines_are_those_of_the_rows(encoder: Path) -> None:
    learner = learner_of(encoder, balancing="pcgrad")
    step = step_of(learner)
    named = shared(learner.lesson.model)
    rows = {task: flat(gradients, named) for task, gradients in expected_rows(learner, step).items()}
    result = take_step(learner, step)
    assert result.grad_norms == pytest.approx({task: float(row.norm()) for task, row in rows.items()}, rel=1e-5)
    found = result.cosines
    expected = [
        [float(torch.nn.functional.cosine_similarity(one, other, dim=0)) for other in rows.values()]
        for one in rows.values()
    ]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=0, atol=1e-5)


def test_a_gradient_of_length_0_has_cosines_of_0_and_changes_nothing(encoder: Path) -> None:
    learner = learner_of(encoder, balancing={"kind": "pcgrad", "weights": {"questions": 0.0}}, clip_norm=None)
    step = step_of(learner)
    result = take_step(learner, step)
    assert result.cosines is not None
    assert result.cosines[1] == [0.0, 0.0, 0.0]
    assert [row[1] for row in result.cosines] == [0.0, 0.0, 0.0]
    two = learner_of(encoder, balancing="pcgrad", tasks=["reviews", "sentences"], clip_norm=None)
    step = Step(0, 0, tuple(part for part in step.parts if part.task != "questions"))
    expected, found = updated(two, step), gradients_of(learner.lesson.model)
    for name in shared(two.lesson.model):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("always", [False, True])
def test_each_tasks_whole_gradient_is_clipped(encoder: Path, always: bool) -> None:
    """Rows and the task's own parameters together, before the tasks are added up."""
    norm = 2.5
    balancer = Fixed(dict.fromkeys(TASKS, 1.0))
    learner = with_balancer(learner_of(encoder, clip_norm=None), balancer, Clipping(norm, always), together=True)
    step = step_of(learner)
    expected: dict[str, Tensor] = {}
    scales: list[float] = []
    squares: list[float] = []
    for part in step.parts:
        alone = learner_of(encoder, clip_norm=None)
        gradients = {name: each for name, each in updated(alone, Step(0, 0, (part,))).items() if each is not None}
        length = math.sqrt(sum(float(each.double().square().sum()) for each in gradients.values()))
        scales.append(norm / length if always else min(1.0, norm / length))
        for name, gradient in gradients.items():
            expected[name] = expected.get(name, 0) + gradient * scales[-1]
        kept = [gradients[name] * scales[-1] for name in shared(alone.lesson.model) if name in gradients]
        squares.append(sum(float(each.double().square().sum()) for each in kept))
    assert any(scale < 0.95 for scale in scales)
    assert any(scale > 1.05 if always else scale == 1.0 for scale in scales)
    found = updated(learner, step)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6, msg=name)
    assert balancer.seen is not None
    assert balancer.seen.gramian is not None
    assert balancer.seen.gramian.diagonal().tolist() == pytest.approx(squares, rel=1e-4)


def test_a_gradient_that_is_not_finite_ends_the_run_before_the_update(encoder: Path) -> None:
    learner = learner_of(encoder, balancing="upgrad")
    model = learner.lesson.model
    before = {name: each.clone() for name, each in model.state_dict().items()}
    model.head("questions").register_full_backward_hook(lambda *_: (torch.full((5 + 1, 1, 16), math.inf),))
    with pytest.raises(DivergedError, match="gradient"):
        take_step(learner, step_of(learner))
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())


@pytest.mark.parametrize("loss", [0.0, 1e30])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_gls_bears_a_loss_of_zero_and_a_huge_one(encoder: Path, loss: float, accumulation: int) -> None:
    learner = learner_of(encoder, balancing="gls", accumulation=accumulation)
    task: Any = learner.lesson.tasks["reviews"].main
    real: Callable[..., Tensor] = task.losses
    task.losses = lambda piece: real(piece) * 0 + loss
    result = take_step(learner, step_of(learner))
    assert result.losses["reviews"] == pytest.approx(loss)
    assert math.isfinite(result.grad_norm)
    for gradient in gradients_of(learner.lesson.model).values():
        assert gradient is None or bool(gradient.isfinite().all())


@pytest.mark.parametrize("heads", [True, False])
def test_weights_hold_for_heads_where_the_balancer_says_so(encoder: Path, heads: bool) -> None:
    fixed = Fixed({"reviews": 0.5, "questions": 2.0, "sentences": 3.0}, heads=heads)
    learner = with_balancer(learner_of(encoder, clip_norm=None), fixed, Clipping(None), together=True)
    step = step_of(learner)
    plain = updated(learner_of(encoder, clip_norm=None), step)
    found = updated(learner, step)
    for name, gradient in plain.items():
        task = learner.lesson.model.task_of(name)
        if task is not None and gradient is not None:
            torch.testing.assert_close(found[name], gradient * (fixed.given[task] if heads else 1.0))


def test_rows_add_whole_and_sparse_gradients_of_one_matrix() -> None:
    """As a matrix has that embeds words in one task and scores them in another."""
    generator = torch.Generator().manual_seed(0)
    matrix = nn.Parameter(torch.randn(7, 3, generator=generator))
    untouched = nn.Parameter(torch.ones(2))
    values = torch.randn(4, 3, generator=generator)
    sparse = torch.sparse_coo_tensor(torch.tensor([[1, 5, 1, 0]]), values, (7, 3), check_invariants=True)
    whole = torch.randn(7, 3, generator=generator)
    rows = Rows()
    rows.start(["a", "b", "c"])
    rows.add(matrix, "a", sparse)
    rows.add(matrix, "b", whole.clone())
    rows.add(matrix, "a", sparse)
    expected = torch.stack([2 * sparse.to_dense(), whole, torch.zeros(7, 3)]).flatten(1).double()
    torch.testing.assert_close(rows.gramian(), expected @ expected.t(), rtol=1e-5, atol=1e-6)
    rows.combine(torch.tensor([2.0, -1.0, 5.0]))
    assert matrix.grad is not None
    torch.testing.assert_close(matrix.grad, 4 * sparse.to_dense() - whole)
    assert untouched.grad is None


def test_rows_fill_the_buffer_that_an_embedding_keeps() -> None:
    """Whole gradients as well: the memory they are combined in is another parameter's in the next step."""
    matrix, other = nn.Parameter(torch.zeros(4, 2)), nn.Parameter(torch.zeros(4, 2))
    buffer = matrix.grad = torch.zeros(4, 2)
    rows = Rows()
    for step in range(2):
        buffer.zero_()
        other.grad = None
        rows.start(["a"])
        rows.add(other, "a", torch.full((4, 2), 7.0))
        if step:
            rows.add(matrix, "a", torch.tensor([[0.0, 0.0], [3.0, 3.0], [0.0, 0.0], [0.0, 0.0]]).to_sparse(1))
        else:
            rows.add(matrix, "a", torch.ones(4, 2))
        rows.combine(torch.tensor([2.0]))
        assert matrix.grad is buffer
        torch.testing.assert_close(other.grad, torch.full((4, 2), 14.0))
    assert buffer.tolist() == [[0.0, 0.0], [6.0, 6.0], [0.0, 0.0], [0.0, 0.0]]


def test_rows_forget_the_step_before() -> None:
    weight = nn.Parameter(torch.zeros(2, 3))
    rows = Rows()
    left, right = torch.ones(4, 2), torch.ones(4, 3)
    for _ in range(2):
        weight.grad = None
        rows.start(["a"])
        rows.add_products([weight], left, right, {"a": slice(0, 4)})
        rows.add_products([weight], left, right, {"a": slice(0, 4)})
        assert rows.gramian().item() == pytest.approx(6 * 8.0**2)
        rows.combine(torch.tensor([1.0]))
        torch.testing.assert_close(weight.grad, torch.full((2, 3), 8.0))
    rows.start(["a"])
    assert rows.gradient(weight, "a") is None
    assert rows.gramian().tolist() == [[0.0]]


@pytest.mark.parametrize("chunk", [4, 1 << 18])
@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_side_by_side_are_those_of_each(
    monkeypatch: pytest.MonkeyPatch, chunk: int, pieces: int, dtype: torch.dtype
) -> None:
    monkeypatch.setattr("manyhead.training.rows.CHUNK", chunk)
    monkeypatch.setattr("manyhead.training.rows._PIECE", 8)
    generator = torch.Generator().manual_seed(0)
    upper, lower = nn.Parameter(torch.zeros(3, 5)), nn.Parameter(torch.zeros(4, 5))
    rows = Rows()
    rows.start("ab")
    spans = {"a": slice(0, 6), "b": slice(6, 9)}
    expected = torch.zeros(2, 7, 5)
    for _ in range(pieces):
        left = torch.randn(9, 7, generator=generator).to(dtype)
        right = torch.randn(9, 5, generator=generator).to(dtype)
        rows.add_products([upper, lower], left, right, spans)
        expected += torch.stack([(left[span].t() @ right[span]).float() for span in spans.values()])
    flat = expected.flatten(1).double()
    torch.testing.assert_close(rows.gramian(), flat @ flat.t(), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(rows.gradient(lower, "b"), expected[1, 3:])
    rows.combine(torch.tensor([2.0, -1.0]))
    assert upper.grad is not None
    assert lower.grad is not None
    torch.testing.assert_close(torch.cat([upper.grad, lower.grad]), 2 * expected[0] - expected[1])


@pytest.mark.parametrize("chunk", [1, 100, 1 << 20])
def test_rows_may_be_worked_on_in_chunks(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("manyhead.training.rows.CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.zeros(size, 3)) for size in (7, 30, 2, 60)]
    gradients = torch.randn(4, sum(each.numel() for each in parameters), generator=generator)
    rows = Rows()
    rows.start("abcd")
    for task, row in zip("abcd", gradients, strict=True):
        for parameter, part in zip(parameters, row.split([each.numel() for each in parameters]), strict=True):
            rows.add(parameter, task, part.view_as(parameter).clone())
    expected = gradients.double() @ gradients.double().t()
    torch.testing.assert_close(rows.gramian(), expected, rtol=1e-5, atol=1e-5)
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0])
    rows.combine(weights)
    found = torch.cat([each.grad.flatten() for each in parameters if each.grad is not None])
    torch.testing.assert_close(found, weights @ gradients)
