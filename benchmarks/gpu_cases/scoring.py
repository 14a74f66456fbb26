"""Scoring of many pairs end to end: tokenised beforehand, and with tokenising."""

import string
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from gpu_cases.answers import Answer
from gpu_cases.checks import check, difference
from gpu_cases.work import Bench, learner_of, parts_of, random_store
from manyhead.batching import length_batches, pack
from manyhead.data.tokens import TokenStore, tokenize_texts
from manyhead.encoder.varlen_attention import KERNELS, Sequences, VarlenAttention
from manyhead.inference.outputs import predict_store
from manyhead.model import MultiTaskModel, build_objective
from manyhead.objectives.base import Objective
from manyhead.schedules.base import Part

BATCH_TOKENS = 32_768
BLOCK = 32_768


def by_offsets(bench: Bench) -> Iterator[Answer]:
    """The pairs through a task's head in large batches by offsets, checked against the model as it runs by itself."""
    model, _ = scorer(bench)
    count, vocabulary = bench.sizes.pairs, bench.sizes.config["vocab_size"]
    store = random_store(count, 30, vocabulary, 7, pairs=True)
    some = store.take(np.arange(min(count, 200)))
    batch = pack([Part("quora", np.arange(some.n_examples))], {"quora": some}).to(bench.device)
    with torch.inference_mode():
        exact = model(batch)["quora"]
    yield check("outputs by offsets = packed, bf16", difference(predict_by_offsets(model, bench, some), exact), 0.1)
    taken = seconds(bench, partial(predict_by_offsets, model, bench, store))
    note = f"{count / taken:,.0f} pairs/s, {BATCH_TOKENS} tokens a batch"
    yield Answer(f"{count:,} pairs, tokenised, by offsets", f"{taken:.2f} s", "<= 8 s", note)
    tokenizer, texts = some_tokenizer(vocabulary), some_texts(count, vocabulary)
    reading, tokens = 0.0, 0
    began = time.perf_counter()
    for start in range(0, count, BLOCK):  # the device scores a block while the host reads the next one
        before = time.perf_counter()
        block = tokenize_texts(tokenizer, texts[start : start + BLOCK], max_tokens=64, siamese=False)
        reading += time.perf_counter() - before
        tokens += len(block.ids)
        predict_by_offsets(model, bench, block)
    bench.wait()
    taken = time.perf_counter() - began
    note = f"tokenising {reading:.2f} s of it; {tokens / count:.1f} tokens a pair"
    yield Answer(f"{count:,} pairs from texts, by offsets", f"{taken:.2f} s", "<= 8 s", note)


def usual(bench: Bench) -> Iterator[Answer]:
    """The same pairs as `manyhead predict` scores them."""
    model, objective = scorer(bench)
    count = bench.sizes.pairs
    store = random_store(count, 30, bench.sizes.config["vocab_size"], 7, pairs=True)
    taken = seconds(bench, partial(predict_store, model, "quora", store, objective))
    yield Answer(f"{count:,} pairs, tokenised, usual", f"{taken:.2f} s", "<= 8 s", f"{count / taken:,.0f} pairs/s")


def scorer(bench: Bench) -> tuple[MultiTaskModel, Objective]:
    """A model with random weights, and what its outputs mean."""
    parts = parts_of(bench)
    return learner_of(bench).lesson.model.eval(), build_objective(parts.recipe.tasks["quora"], parts.tables)


def seconds(bench: Bench, run: Callable[[], object]) -> float:
    """One run's time."""
    bench.wait()
    began = time.perf_counter()
    run()
    bench.wait()
    return time.perf_counter() - began


@torch.inference_mode()
def predict_by_offsets(model: MultiTaskModel, bench: Bench, store: TokenStore) -> Tensor:
    """The outputs (E, O) of all pairs on the device; nothing is waited for."""
    encoder: Any = model.encoder
    orders: list[np.ndarray] = []
    outputs: list[Tensor] = []
    for batch in length_batches(store, BATCH_TOKENS):
        lengths = store.offsets[batch + 1] - store.offsets[batch]
        offsets = np.concatenate([[0], lengths.cumsum()])
        positions = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        segments = positions >= np.repeat(store.segment_starts[batch], lengths)
        ids = store.joined(batch).astype(np.int64)
        sent = [torch.from_numpy(np.stack([ids, segments.astype(np.int64), positions])), torch.from_numpy(offsets)]
        if bench.is_cuda:
            sent = [each.pin_memory() for each in sent]
        tokens, starts = (each.to(bench.device, non_blocking=True) for each in sent)
        sequences = Sequences(starts.int(), 64)
        attention_of = partial(VarlenAttention, sequences, kernel=KERNELS[bench.kernel])
        with torch.autocast(bench.device.type, dtype=model.autocast, enabled=model.autocast is not None):
            states = encoder.run_with(attention_of, *tokens.unbind(), ())
        vectors = model.projections(states.float().index_select(0, starts[:-1]))
        outputs.append(model.head("quora")(vectors[:, None]))
        orders.append(batch)
    order = torch.from_numpy(np.concatenate(orders)).to(bench.device)
    found = torch.cat(outputs)
    return torch.empty_like(found).index_copy_(0, order, found)


WORDS = 8000


def some_words(vocabulary: int) -> list[str]:
    """Random words, the same each time, as many as the vocabulary takes."""
    draws = np.random.default_rng(3)
    letters = np.array(list(string.ascii_lowercase))
    return sorted({"".join(draws.choice(letters, size)) for size in draws.integers(3, 10, min(WORDS, vocabulary - 60))})


def some_tokenizer(vocabulary: int) -> Tokenizer:
    """A WordPiece tokenizer of some of the random words and all letters."""
    letters = [*string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase)]
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *some_words(vocabulary)]
    tokenizer = Tokenizer(models.WordPiece({word: id for id, word in enumerate(known)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def some_texts(count: int, vocabulary: int) -> list[tuple[str, str]]:
    """Pairs of texts of about 13 words each."""
    words = np.array(some_words(vocabulary), dtype=object)
    draws = np.random.default_rng(4)
    drawn = words[draws.integers(0, len(words), (count, 26))]
    return [(" ".join(row[:13]), " ".join(row[13:])) for row in drawn.tolist()]
