"""Small tasks, files and tokenizers for the tests of the data layer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from manyhead.data.cache import load_task_data
from manyhead.data.task_data import TaskData
from manyhead.recipe.schema import Recipe, Task
from manyhead.recipe.tables import TABLES

WORDS = ["good", "bad", "film", "a", "the", "is", "what", "##s", "##ing", "watch", "why", "?", "!", "'", '"', ",", "."]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_task(**keys: Any) -> Task:
    """A task of two classes on one text, but for ``keys``."""
    usual = {
        "kind": "classification",
        "text": ["text"],
        "target": "label",
        "labels": {0: "bad", 1: "good"},
        "files": {"train": "train.csv"},
    }
    if keys.get("kind") == "regression":
        del usual["labels"]
    return Task.model_validate(usual | keys, context={"tables": TABLES})


def make_recipe(folder: Path, tasks: dict[str, Task], **keys: Any) -> Recipe:
    """A recipe of ``tasks`` whose files lie in ``folder``."""
    plain = {"manyhead": 1, "name": "test", "data_dir": str(folder), "tasks": tasks}
    return Recipe.model_validate(plain | keys, context={"tables": TABLES})


def write_lines(path: Path, *lines: str) -> Path:
    """A text file of ``lines``, each ended by one LF."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    return path


def write_jsonl(path: Path, rows: Sequence[object]) -> Path:
    """One JSON value a line; surrogates are escaped."""
    return write_lines(path, *map(json.dumps, rows))


def make_tokenizer() -> Tokenizer:
    """WordPiece over a few words, with BERT's normalisation, special tokens and type ids; and it pads and cuts."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*SPECIAL, *dict.fromkeys([*WORDS, *letters, *(f"##{letter}" for letter in letters)])]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    tokenizer.enable_padding(length=7)
    tokenizer.enable_truncation(5)
    return tokenizer


def load_in_process(folder: Path, cache_dir: Path) -> tuple[list[list[int]], list[str]]:
    """Tokens and ids of a task, for tests that load in several processes."""
    data = load_task_data("t", "train", make_recipe(folder, {"t": make_task()}), make_tokenizer(), cache_dir=cache_dir)
    return content(data), list(data.ids)


def content(data: TaskData) -> list[list[int]]:
    """All sequences as lists."""
    return [data.tokens.sequence(index).tolist() for index in range(len(data.tokens.lengths()))]
