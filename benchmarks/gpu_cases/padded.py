"""transformers' own model on padded batches, as its documentation's loop trains it."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification

from gpu_cases.answers import Answer
from gpu_cases.work import Bench, lengths_of


def padded_steps(bench: Bench) -> Iterator[Answer]:
    """A step of one task at several batch sizes: bf16 autocast, SDPA, fused AdamW, clipping; and the same forward."""
    model: Any = BertForSequenceClassification(BertConfig(**bench.sizes.config))
    model.to(bench.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=True)
    for size in bench.sizes.small_batches:
        ids, mask, targets = _batch(bench, size)

        def step(ids: Tensor = ids, mask: Tensor = mask, targets: Tensor = targets) -> None:
            optimizer.zero_grad()
            with torch.autocast(bench.device.type, dtype=torch.bfloat16):
                loss = model(input_ids=ids, attention_mask=mask, labels=targets).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

        model.train()
        taken = bench.milliseconds(step)
        note = f"{size / taken * 1e3:,.0f} examples/s; three tasks take three of them"
        yield Answer(f"transformers, padded, step of {size}", f"{taken:.2f} ms", note=note)
        model.eval()
        with torch.inference_mode(), torch.autocast(bench.device.type, dtype=torch.bfloat16):
            taken = bench.milliseconds(lambda ids=ids, mask=mask: model(input_ids=ids, attention_mask=mask))
        yield Answer(
            f"transformers, padded, scoring {size}", f"{taken:.2f} ms", note=f"{size / taken * 1e3:,.0f} pairs/s"
        )


def _batch(bench: Bench, size: int) -> tuple[Tensor, Tensor, Tensor]:
    lengths = torch.from_numpy(lengths_of(size, 30, 5)).to(bench.device)
    mask = (torch.arange(int(lengths.max()), device=bench.device) < lengths[:, None]).long()
    ids = torch.randint(5, bench.sizes.config["vocab_size"], mask.shape, device=bench.device) * mask
    return ids, mask, torch.randint(2, (size,), device=bench.device)
