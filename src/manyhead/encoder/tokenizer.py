"""The encoder's tokenizer, as the fast `tokenizers.Tokenizer` that data and inference share."""

import shutil
from pathlib import Path
from typing import Any, cast

from tokenizers import Tokenizer

from manyhead.errors import UsageError

_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in ``folder``, without padding or truncation.

    Read from tokenizer.json where there is one, which needs no transformers; otherwise converted by transformers.
    Raises `UsageError` where there is none.
    """
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path)) if path.is_file() else _converted(folder)
    except Exception as error:  # the library raises bare Exception for a damaged file
        raise UsageError(
            f"{folder}: the tokenizer cannot be read: {error}; expected tokenizer.json or the vocabulary files of a "
            "tokenizer that transformers knows"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def save_tokenizer(source: Path, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes the tokenizer, and the files beside it that other libraries read, into ``folder``."""
    for name in _FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    tokenizer.save(str(folder / "tokenizer.json"))


def check_vocabulary(tokenizer: Tokenizer, vocabulary: int, folder: Path) -> None:
    """Raises `UsageError` where the tokenizer gives ids that the encoder has no embedding for."""
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    if size > vocabulary:
        raise UsageError(
            f"{folder}: the tokenizer has {size} tokens, the encoder embeds {vocabulary}; expected the tokenizer the "
            "encoder was trained with"
        )


def _converted(folder: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    tokenizer = cast("Any", AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False))
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(f"{type(tokenizer).__name__} has no fast version")
    return cast("Tokenizer", backend)
