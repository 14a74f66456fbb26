"""What both sides train: a random encoder of two layers on 64 reviews of the packaged sample, 16 updates."""

import csv
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModel, BertConfig

import manyhead.data

SAMPLE = Path(manyhead.data.__file__).parent / "sample"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LABELS = ("awful", "poor", "mixed", "good", "excellent")

ROWS = 64
BATCH_SIZE = 8
EPOCHS = 2
STEPS = EPOCHS * ROWS // BATCH_SIZE
SAVE_EVERY = 4
KEPT = 2
MAX_TOKENS = 40
LR = 1e-3
SEED = 13


def reviews() -> tuple[list[str], list[int]]:
    """The texts and grades that are trained on."""
    with (SAMPLE / "reviews.train.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:ROWS]
    return [row["text"] for row in rows], [int(row["grade"]) for row in rows]


def write_encoder(folder: Path) -> None:
    """Writes a random BERT of width 32 with a tokenizer of the reviews' words, as a checkpoint of the hub looks."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(reviews()[0], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(SEED)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    AutoModel.from_config(config).save_pretrained(folder)
