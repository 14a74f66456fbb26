"""Times of whole training steps: at the published batch, at token budgets, and what they make of epochs."""

from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from gpu_cases.answers import Answer, needs_cuda
from gpu_cases.work import GOAL_FLOPS, INTERLEAVED_EXAMPLES, MEAN_TOKENS, Bench, learner_of, steps_of
from manyhead.schedules.base import Step
from manyhead.training.device_step import DeviceOptions, DeviceStep
from manyhead.training.step import take_step

READ_EVERY = 1200
EPOCHS = 10
BALANCING = {"sum": "plain sum", "pcgrad": "PCGrad"}


def small_steps(bench: Bench) -> Iterator[Answer]:
    """8 examples of each of three tasks: the usual step, the device's, and captured ones."""
    steps = steps_of(bench, 8, 4 if bench.quick else 24)
    for balancing, name in BALANCING.items():
        learner = learner_of(bench, balancing)
        usual = iter_over(steps, lambda step, learner=learner: take_step(learner, step))
        yield Answer(f"step, 3 x 8, {name}, usual", f"{bench.milliseconds(usual):.2f} ms")
    for (kernel, capture), (balancing, name) in product(ways(bench), BALANCING.items()):
        taken, note = device_milliseconds(bench, steps, balancing, kernel, capture=capture)
        way = f"{kernel}, {'captured' if capture else 'eager'}"
        goal = "<= 4.5 ms" if balancing == "pcgrad" and capture else ""
        yield Answer(f"step, 3 x 8, {name}, {way}", f"{taken:.2f} ms", goal, note)
        if capture:
            yield epochs(f"batch 8, {name}", taken, 8, "<= 27 min" if balancing == "pcgrad" else "")


def large_steps(bench: Bench) -> Iterator[Answer]:
    """Batches of about 16,384 tokens: the share of the products' rate, and epochs."""
    size = int(bench.sizes.big_batch / sum(MEAN_TOKENS.values()))
    steps = steps_of(bench, size, 2 if bench.quick else 6)
    tokens = mean_tokens(bench, steps)
    for balancing, name in BALANCING.items():
        learner = learner_of(bench, balancing)
        usual = bench.milliseconds(iter_over(steps, lambda step, learner=learner: take_step(learner, step)))
        yield Answer(f"step, {tokens / 1e3:.1f}k tokens, {name}, usual", *rate(bench, usual, tokens))
    for (kernel, capture), (balancing, name) in product(ways(bench), BALANCING.items()):
        taken, _ = device_milliseconds(bench, steps, balancing, kernel, capture=capture)
        label = f"step, {tokens / 1e3:.1f}k tokens, {name}, {kernel}, {'captured' if capture else 'eager'}"
        yield Answer(label, *rate(bench, taken, tokens))
        if capture:
            yield epochs(f"16k tokens, {name}", taken, size, "<= 8 min" if balancing == "pcgrad" else "")


def flash_steps(bench: Bench) -> Iterator[Answer]:
    """Captured PCGrad steps with the other kernel."""
    needs_cuda(bench)
    size = int(bench.sizes.big_batch / sum(MEAN_TOKENS.values()))
    small, large = steps_of(bench, 8, 24), steps_of(bench, size, 6)
    taken, note = device_milliseconds(bench, small, "pcgrad", "flash", capture=True)
    yield Answer("step, 3 x 8, PCGrad, flash, captured", f"{taken:.2f} ms", "<= 4.5 ms", note)
    tokens = mean_tokens(bench, large)
    taken, _ = device_milliseconds(bench, large, "pcgrad", "flash", capture=True)
    yield Answer(f"step, {tokens / 1e3:.1f}k tokens, PCGrad, flash, captured", *rate(bench, taken, tokens))


def kernel_counts(bench: Bench) -> Iterator[Answer]:
    """Kernels that one step of 3 x 8 examples launches, and which take longest."""
    needs_cuda(bench)
    steps = steps_of(bench, 8, 4)
    for balancing, name in BALANCING.items():
        learner = learner_of(bench, balancing)
        usual = iter_over(steps, lambda step, learner=learner: take_step(learner, step))
        yield count_kernels(f"kernels, {name}, usual step", usual)
        on_device = device_run(bench, steps[:1], balancing, "efficient", capture=False)
        yield count_kernels(f"kernels, {name}, device step", on_device)


def count_kernels(name: str, run: Any) -> Answer:
    """The kernels of one run, after others."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        run()
        torch.cuda.synchronize()
    counts: Counter[str] = Counter()
    micros: Counter[str] = Counter()
    for event in seen.events() or ():
        if event.device_type.name == "CUDA":
            counts[event.name] += 1
            micros[event.name] += round(event.time_range.elapsed_us())
    print(f"    {name}: kernels by time")
    for kernel, time in micros.most_common(14):
        print(f"      {time:7d} us {counts[kernel]:5d} x {kernel[:110]}")
    return Answer(name, f"{counts.total()}", note=f"{sum(micros.values()) / 1e3:.2f} ms in kernels")


def memory(bench: Bench) -> Iterator[Answer]:
    """The most that steps have taken on the device since the start."""
    needs_cuda(bench)
    yield Answer("peak memory of all questions", f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def ways(bench: Bench) -> list[tuple[str, bool]]:
    """Kernels, and captured or not."""
    if not bench.is_cuda:
        return [("reference", False)]
    return [("efficient", False), ("efficient", True)]


def device_milliseconds(
    bench: Bench, steps: list[Step] | Any, balancing: str, kernel: str, *, capture: bool
) -> tuple[float, str]:
    """A step's time when all shapes have been seen, packing on the host included; and the host's part."""
    run = device_run(bench, steps, balancing, kernel, capture=capture)
    taken = bench.milliseconds(run, warm_up=len(steps))
    return taken, f"of it on the host {bench.milliseconds_of_host(run):.2f} ms"


def device_run(bench: Bench, steps: Any, balancing: str, kernel: str, *, capture: bool) -> Any:
    """Takes the next of the steps, and reads where it has to."""
    options = DeviceOptions(kernel, capture=capture, read_every=READ_EVERY)
    on_device = DeviceStep(learner_of(bench, balancing), 64, options)

    def take(step: Step) -> None:
        if on_device.is_full:
            on_device.read()
        on_device.take(step)

    return iter_over(steps, take)


def iter_over(steps: Any, take: Any) -> Any:
    """Takes the next step each time it is called, the first behind the last."""
    place = 0

    def run() -> None:
        nonlocal place
        take(steps[place % len(steps)])
        place += 1

    return run


def mean_tokens(bench: Bench, steps: Any) -> float:
    """Tokens of a step."""
    lesson = learner_of(bench).lesson
    return sum(lesson.tokens(step.parts) for step in steps) / len(steps)


def rate(bench: Bench, milliseconds: float, tokens: float) -> tuple[str, str, str]:
    """The share of the products' rate, beside the time."""
    flops = bench.flops_of_products(int(tokens)) / milliseconds * 1e3
    share = 100 * flops / GOAL_FLOPS
    return (
        f"{share:.1f} % of 790 TFLOP/s",
        ">= 45 %",
        f"{milliseconds:.2f} ms, {1e3 * tokens / milliseconds / 1e6:.2f} M tokens/s",
    )


def epochs(name: str, milliseconds: float, size: int, goal: str) -> Answer:
    """Ten interleaved epochs, extrapolated."""
    minutes = EPOCHS * INTERLEAVED_EXAMPLES / size * milliseconds / 60e3
    return Answer(f"ten interleaved epochs, extrapolated, {name}", f"{minutes:.1f} min", goal)
