"""The encoder's tokenizer, as the fast `tokenizers.Tokenizer` that data and inference share."""

import json
import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import transformers
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from manyhead.encoder.foreign import CONFIG, TOKENIZER_CONFIG, read_object, read_without_code
from manyhead.encoder.packed_encoder import POSITIONS_AFTER_PADDING
from manyhead.errors import UsageError

log = logging.getLogger(__name__)

_FILE = "tokenizer.json"
_VOCABULARIES = ("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model", "spm.model")
TOKENIZER_FILES = (_FILE, TOKENIZER_CONFIG, "special_tokens_map.json", *_VOCABULARIES)
"""What `save_tokenizer` writes; all but the first where the source has them."""

_BESIDE = ("special_tokens_map.json", "added_tokens.json")
_SPECIAL_TOKENS = (TOKENIZER_CONFIG, "special_tokens_map.json")
_DISAGREEING = 0.01
"""The part of two files' tokens that may differ: some files are written with odd line ends or double tokens."""
_FEWER_TOKENS = 0.97
"""The part of the embeddings that tokens use at least; tables are often padded to the next multiple of 64 or 128."""
_PROBES = 200


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in ``folder``, without padding or truncation.

    Read from tokenizer.json where there is one, which needs no transformers; otherwise converted by transformers.
    Raises `UsageError` where there is none, and where tokenizer.json and the vocabulary beside it differ.
    """
    path = folder / _FILE
    try:
        tokenizer = Tokenizer.from_file(str(path)) if path.is_file() else _converted(folder)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        _check_same_vocabulary(tokenizer, folder)
    except UsageError:
        raise
    except Exception as error:  # the library raises bare Exception for a damaged file
        raise UsageError(
            f"{folder}: the tokenizer cannot be read: {error}; expected tokenizer.json or the vocabulary files of a "
            "tokenizer that transformers knows"
        ) from error
    return tokenizer


def save_tokenizer(source: Path, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes the tokenizer, and the files beside it that other libraries read, into ``folder``."""
    for name in (*_VOCABULARIES, "special_tokens_map.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    if (source / TOKENIZER_CONFIG).is_file():
        _write_object(folder / TOKENIZER_CONFIG, read_without_code(source / TOKENIZER_CONFIG)[0])
    (folder / _FILE).write_text(tokenizer.to_str(pretty=True), encoding="utf-8")


def check_tokenizer(tokenizer: Tokenizer, config: PretrainedConfig, folder: Path) -> None:
    """Raises `UsageError` where the tokenizer of ``folder`` cannot be that of the encoder; warns where it hardly is.

    An error: ids without an embedding, special tokens with ids of others, a vocabulary that no text of its own is split
    into. A warning: far fewer tokens than embeddings, and another id of the padding token where positions follow it.
    """
    expected = "expected the tokenizer the encoder was trained with"
    size, rows = tokenizer.get_vocab_size(with_added_tokens=True), int(config.vocab_size)
    if problem := _id_problem(tokenizer, rows) or _text_problem(tokenizer):
        raise UsageError(f"{folder}: {problem}; {expected}")
    if size < _FEWER_TOKENS * rows:
        log.warning("%s: the tokenizer has %d tokens, the encoder embeds %d; %s", folder, size, rows, expected)
    padding = _special_token(folder, "pad_token")
    if config.model_type in POSITIONS_AFTER_PADDING and padding is not None:
        found = tokenizer.token_to_id(padding)
        if found != config.pad_token_id:
            problem = f"the padding token {padding} has id {found}, in {CONFIG} it is {config.pad_token_id}"
            log.warning("%s: %s; %s", folder, problem, expected)


def _id_problem(tokenizer: Tokenizer, rows: int) -> str | None:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    highest = max(vocabulary.values(), default=-1)
    if highest >= rows:
        return f"the tokenizer has {len(vocabulary)} tokens with ids up to {highest}, the encoder embeds {rows}"
    unknown = getattr(tokenizer.model, "unk_token", None)
    if unknown is not None and unknown not in vocabulary:
        return f"the tokenizer's unknown token {unknown} is not in its vocabulary"
    for empty in (tokenizer.encode(""), tokenizer.encode("", "")):
        if not empty.ids:
            return "the tokenizer adds no special tokens such as [CLS], so an empty text would have none at all"
        for token, number in zip(empty.tokens, empty.ids, strict=True):
            if vocabulary.get(token) != number:
                return f"the tokenizer adds {token} with id {number}, in its vocabulary it has {vocabulary.get(token)}"
    return None


def _text_problem(tokenizer: Tokenizer) -> str | None:
    """Whether not one of the vocabulary's own words is known once it has been normalised and split."""
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    words = [word for word in tokenizer.get_vocab(with_added_tokens=False) if word not in special]
    unknown = getattr(tokenizer.model, "unk_token", None)
    if not words:
        return "the tokenizer's vocabulary has special tokens alone, so every word would be unknown"
    if unknown is None:
        return None
    probes = words[:: max(1, len(words) // _PROBES)]
    found = (set(each.tokens) for each in tokenizer.encode_batch(probes, add_special_tokens=False))
    if any(tokens - {unknown} for tokens in found):
        return None
    return f"the tokenizer takes every word of its own vocabulary for {unknown}"


def _special_token(folder: Path, role: str) -> str | None:
    for path in (folder / name for name in _SPECIAL_TOKENS):
        token = read_object(path).get(role) if path.is_file() else None
        content = cast("dict[str, Any]", token).get("content") if isinstance(token, dict) else token
        if isinstance(content, str):
            return content
    return None


def _check_same_vocabulary(tokenizer: Tokenizer, folder: Path) -> None:
    """Raises `UsageError` where the vocabulary file of the tokenizer's kind gives its tokens other ids."""
    listed = _listed_tokens(folder, type(tokenizer.model).__name__)
    if listed is None:
        return
    name, tokens = listed
    others = sum(tokenizer.token_to_id(token) != number for token, number in tokens.items())
    if others > _DISAGREEING * len(tokens):
        raise UsageError(
            f"{folder}: {others} of the {len(tokens)} tokens in {name} have other ids in the tokenizer ({_FILE} where "
            "there is one); expected two files of one tokenizer; remove the one that is not the encoder's"
        )
    # transformers gives special tokens that a vocab.txt lacks the next free ids, whatever their embeddings are.
    if name == "vocab.txt" and not (folder / _FILE).is_file():
        missing = sorted(set(tokenizer.encode("").tokens) - tokens.keys())
        if missing:
            raise UsageError(
                f"{folder}: {name} lacks {', '.join(missing)}; expected the vocabulary the encoder was trained with"
            )


def _listed_tokens(folder: Path, kind: str) -> tuple[str, Mapping[str, int]] | None:
    """The vocabulary file of a WordPiece or BPE tokenizer, its name and its ids by token."""
    if kind == "WordPiece" and (folder / "vocab.txt").is_file():
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
        return "vocab.txt", {token.rstrip("\r"): number for number, token in enumerate(lines)}
    if kind == "BPE" and (folder / "vocab.json").is_file():
        return "vocab.json", read_object(folder / "vocab.json")
    return None


def _converted(folder: Path) -> Tokenizer:
    """The tokenizer of the vocabulary files in ``folder``.

    transformers sees a folder with these alone, and settings that name no code.
    """
    config, _ = read_without_code(folder / CONFIG)
    settings = _settings(folder)
    with tempfile.TemporaryDirectory(prefix="manyhead-tokenizer-") as clean:
        for name in (*_VOCABULARIES, *_BESIDE):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, Path(clean) / name)
        _write_object(Path(clean) / CONFIG, {"model_type": config.get("model_type", "")})
        if settings:
            _write_object(Path(clean) / TOKENIZER_CONFIG, settings)
        tokenizer = cast("Any", AutoTokenizer.from_pretrained(clean, local_files_only=True, trust_remote_code=False))
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(f"{type(tokenizer).__name__} has no fast version")
    return cast("Tokenizer", backend)


def _settings(folder: Path) -> dict[str, Any]:
    """What tokenizer_config.json says. Raises ValueError where the tokenizer needs code that comes with it."""
    path = folder / TOKENIZER_CONFIG
    if not path.is_file():
        return {}
    settings, left_out = read_without_code(path)
    name = str(settings.get("tokenizer_class") or "")
    if any(_is_tokenizer(getattr(transformers, known, None)) for known in (name, f"{name}Fast")):
        return settings
    if name and "auto_map" in left_out:
        raise ValueError(f"{path.name} names the class {name} by auto_map: code that comes with a model is never run")
    return {key: value for key, value in settings.items() if key != "tokenizer_class"}


def _is_tokenizer(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, PreTrainedTokenizerBase)


def _write_object(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
