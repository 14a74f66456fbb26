"""The loop one writes by hand: transformers' encoder shared by the tasks, a padded batch of each, bf16 autocast."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn

from training_sides.examples import Block, Examples, Taken, Work

LEARNING_RATE = 5e-5


class PlainModel(nn.Module):
    """BERT with its pooler, and dropout and a linear layer for each task, as `BertForSequenceClassification` has."""

    def __init__(self, encoder: str, labels: Mapping[str, int]) -> None:
        super().__init__()
        self.encoder = transformers.AutoModel.from_pretrained(encoder)
        config = self.encoder.config
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.heads = nn.ModuleDict({task: nn.Linear(config.hidden_size, count) for task, count in labels.items()})

    def forward(self, task: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits (E, C)."""
        return self.heads[task](self.dropout(self.encoder(**inputs).pooler_output))


def side(work: Work, settings: Mapping[str, Any], *, in_turn: bool) -> Block:
    """An update over a batch of each task; the tasks share the model, so nothing can be ``in_turn``."""
    del settings, in_turn
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(work.settings.threads)
    model = PlainModel(work.settings.encoder, work.settings.labels).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)

    def step(rows: NDArray[np.integer]) -> None:
        optimizer.zero_grad()
        for task, examples in work.examples.items():
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(task, padded(examples, rows))
            targets = torch.from_numpy(examples.targets[rows])
            is_score = work.settings.labels[task] == 1
            loss = F.mse_loss(logits[:, 0].float(), targets) if is_score else F.cross_entropy(logits.float(), targets)
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    def block(number: int) -> Taken:
        batches = work.batches(number, grouped=False)
        step(batches[0])
        began = time.perf_counter()
        for rows in batches:
            step(rows)
        seconds = time.perf_counter() - began
        return Taken(seconds, sum(each.tokens(batches.ravel()) for each in work.examples.values()))

    return block


def padded(examples: Examples, rows: NDArray[np.integer]) -> dict[str, Tensor]:
    """The model's inputs, each (E, longest)."""
    sequences = [examples.sequence(int(row)) for row in rows]
    lengths = np.array([len(sequence) for sequence in sequences])
    columns = np.arange(lengths.max())
    ids = np.zeros((len(rows), len(columns)), np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
    mask = columns < lengths[:, None]
    types = mask & (columns >= examples.segment_starts[rows][:, None])
    inputs = {"input_ids": ids, "attention_mask": mask.astype(np.int64), "token_type_ids": types.astype(np.int64)}
    return {name: torch.from_numpy(values) for name, values in inputs.items()}
