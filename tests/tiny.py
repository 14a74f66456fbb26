"""A tiny real encoder, data and recipe, made of the packaged sample's words: what training tests run on."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, BertConfig

import manyhead.data

SAMPLE = Path(manyhead.data.__file__).parent / "sample"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def sample_texts() -> list[str]:
    """All texts of the packaged training files."""
    texts: list[str] = []
    for path in sorted(SAMPLE.glob("*.train.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            texts += [cell for row in list(csv.reader(file))[1:] for cell in row[1:] if " " in cell]
    return texts


def tiny_tokenizer(vocabulary: int = 400) -> Tokenizer:
    """A WordPiece tokenizer of the sample's characters and most frequent words, with BERT's special tokens.

    The library's own trainer gives other tokens in each process.
    """
    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words = Counter(
        word for text in sample_texts() for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    )
    characters = sorted({character for word in words for character in word})
    frequent = [word for word in sorted(words, key=lambda word: (-words[word], word)) if len(word) > 1]
    known = [*SPECIAL, *characters, *(f"##{character}" for character in characters), *frequent][:vocabulary]
    tokenizer = Tokenizer(models.WordPiece({token: id for id, token in enumerate(known)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def tiny_encoder(folder: Path, **changes: Any) -> Path:
    """Writes a random BERT of 2 layers and width 16 into ``folder``, as a checkpoint of the hub looks."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    sizes: dict[str, Any] = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
    }
    torch.manual_seed(3)
    AutoModel.from_config(BertConfig(**{**sizes, **changes})).save_pretrained(folder)
    return folder


def tiny_recipe(encoder: Path, **changes: Any) -> dict[str, Any]:
    """The three sample tasks, mixed encodings, few rows, two epochs; ``changes`` replace keys of the only stage."""
    limit = {"train": 24, "dev": 12}
    return {
        "manyhead": 1,
        "name": "tiny",
        "data_dir": str(SAMPLE),
        "precision": "fp32",
        "threads": 1,
        "encoder": {"checkpoint": str(encoder), "max_tokens": 40, "pooling": "mean"},
        "tasks": {
            "reviews": {
                "kind": "classification",
                "text": "text",
                "target": "grade",
                "labels": {0: "awful", 1: "poor", 2: "mixed", 3: "good", 4: "excellent"},
                "files": {"train": "reviews.train.csv", "dev": "reviews.dev.csv"},
                "limit": limit,
            },
            "questions": {
                "kind": "classification",
                "text": ["question1", "question2"],
                "target": "same",
                "labels": {0: "different", 1: "same"},
                "files": {"train": "questions.train.csv", "dev": "questions.dev.csv"},
                "loss": "bce",
                "head": "hidden",
                "limit": limit,
            },
            "sentences": {
                "kind": "regression",
                "text": ["sentence1", "sentence2"],
                "target": "similarity",
                "range": [0, 5],
                "pairing": "siamese",
                "files": {"train": "sentences.train.csv", "dev": "sentences.dev.csv"},
                "head": "cosine",
                "loss": "cosine_mse",
                "limit": limit,
            },
        },
        "stages": [
            {
                "epochs": 2,
                "batch_size": 8,
                "optimizer": {"kind": "adamw", "lr": 1e-3},
                "rate": {"kind": "linear", "warmup": 0.2},
                **changes,
            }
        ],
    }
