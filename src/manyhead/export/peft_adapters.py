"""Low-rank experts as PEFT's LoRA adapters, one a task, beside the encoder they share.

    base = AutoModel.from_pretrained("FOLDER/base")
    model = PeftModel.from_pretrained(base, "FOLDER/TASK")

gives the states that the task's pooling and head read.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from manyhead.batching import pack
from manyhead.data.tokens import tokenize_texts
from manyhead.encoder import LowRankExperts
from manyhead.encoder.experts.low_rank import MATRICES
from manyhead.encoder.packed_encoder import PackedEncoder
from manyhead.encoder.pooling import Mean
from manyhead.errors import UsageError
from manyhead.export.encoders import low_rank_matrices, plain_encoder, save_base_model, save_plain_tokenizer
from manyhead.export.source import Export, NoCounterpartError, Source, Texts, Written, require
from manyhead.inference.outputs import Floats
from manyhead.model import save_tensors
from manyhead.schedules.base import Part

BASE = "base"
_READER = "peft_adapters.py"
_PREFIX = "base_model.model."
_NOTE = "poolings and heads are not in the adapters; --to transformers and --to onnx export them"


def write(source: Source, folder: Path) -> Export:
    """The encoder in ``base``, and a folder with an adapter for each task."""
    require("peft", "peft", "--to peft")
    options = source.model.recipe.encoder.experts
    if options is None:
        raise UsageError(
            "encoder.experts: null: this model has no adapters; expected encoder.experts: low_rank; --to transformers "
            "or --to onnx exports the model"
        )
    if not isinstance(options, LowRankExperts):
        raise NoCounterpartError(f"encoder.experts: {options.kind}", "PEFT has low-rank adapters, and not these")
    if BASE in source.tasks:
        raise UsageError(f"the task '{BASE}' would take the folder of the encoder; leave it out by --task")
    encoder = plain_encoder(source, None)
    save_base_model(encoder, folder / BASE)
    save_plain_tokenizer(source, folder / BASE)
    written: list[Written] = []
    for task in source.tasks:
        _save_adapter(source, options, task, folder / task, frozenset(encoder.state))
        texts = _as_read(source, task)
        written.append(
            Written(task, task, _READER, texts, mean_states(source, task, texts), options={"base": f"../{BASE}"})
        )
    return Export(written, notes=[_NOTE])


def mean_states(source: Source, task: str, texts: Texts) -> Floats:
    """The mean over the tokens of the states that the task's pooling reads, (E, D)."""
    recipe = source.model.recipe
    store = tokenize_texts(source.model.tokenizer, texts, max_tokens=recipe.encoder.max_tokens, siamese=False)
    part = Part(task, np.arange(len(texts)))
    batch = pack([part], {task: store}, segment_ids=recipe.encoder.segment_ids)
    with torch.inference_mode():
        means = Mean()(source.network.pooled_states(batch), batch.lengths)
    return means[batch.parts[0].sequences[:, 0]].numpy()


def _as_read(source: Source, task: str) -> Texts:
    """The sequences of a task's texts: the texts of a siamese pair are one each."""
    texts = source.texts[task]
    if source.model.tasks[task].sequences_per_example == 1:
        return texts
    return [(text,) for row in texts for text in row]


def _save_adapter(source: Source, options: LowRankExperts, task: str, folder: Path, kept: frozenset[str]) -> None:
    encoder = source.network.encoder
    assert isinstance(encoder, PackedEncoder)
    tensors: dict[str, Tensor] = {}
    for name, (down, up) in low_rank_matrices(source, encoder, task).items():
        if f"{name}.weight" in kept:
            tensors |= {f"{_PREFIX}{name}.lora_A.weight": down, f"{_PREFIX}{name}.lora_B.weight": up}
    config = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": None,
        "r": options.rank,
        "lora_alpha": options.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(MATRICES.values()),
        "inference_mode": True,
    }
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_tensors(tensors, folder / "adapter_model.safetensors")
