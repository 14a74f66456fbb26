"""Models made by others: no key loads code, tokenizers and weights that do not belong are noticed, damage is named."""

import json
import os
import re
import resource
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig
from typer.testing import CliRunner
from watched import run_watched

from manyhead.build import train
from manyhead.build.parts import read_parts
from manyhead.build.plan import new_model
from manyhead.cli.main import app
from manyhead.encoder.foreign import code_notes
from manyhead.encoder.load import build_encoder, read_config
from manyhead.encoder.source import locate_encoder
from manyhead.encoder.tokenizer import check_tokenizer, load_tokenizer, save_tokenizer
from manyhead.errors import CheckpointError, StoppedError, UsageError
from manyhead.files import manifest_problem, write_manifest
from manyhead.inference.model_folder import read_model
from manyhead.inference.predictor import Model
from manyhead.recipe.load import load_recipe
from manyhead.training.observer import Observer
from stopping import StopAt
from tiny import sample_texts, tiny_encoder, tiny_recipe, tiny_tokenizer

EVIL = "raise SystemExit('code of the model ran')\n"
MOST_BYTES = 512 << 20


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("foreign")


@pytest.fixture(scope="module")
def encoder(base: Path) -> Path:
    return tiny_encoder(base / "encoder")


@pytest.fixture(scope="module")
def run(base: Path, encoder: Path) -> Path:
    return train(load_recipe(tiny_recipe(encoder)), out=base / "run").path


@pytest.fixture(scope="module")
def stopped(base: Path, encoder: Path) -> Path:
    with pytest.raises(StoppedError):
        train(load_recipe(tiny_recipe(encoder)), out=base / "stopped", observer=StopAt(4))
    assert (base / "stopped" / "best").exists()
    assert not (base / "stopped" / "model").exists()
    return base / "stopped"


def copied(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target, symlinks=True))


def edit(path: Path, **changes: Any) -> None:
    """Sets keys of a JSON file, which need not be there."""
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**values, **changes}))


# Code that comes with a model

AUTO_MAP = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoTokenizer": ["evil.Tokenizer", None]}
HUB_MAP = {"AutoConfig": "acme/evil--evil.Config", "AutoModel": "acme/evil--evil.Model"}
NOTED = (None, "left out auto_map")
ASKS = ("UsageError", "delete it from config.json")
HUB_CODE = ("UsageError", "names code on the hub")

# What is set in config.json and tokenizer_config.json, and the error to come, with a part of what is said.
EXPLOITS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str | None, str]]] = {
    "auto_map beside a known type": ({"auto_map": AUTO_MAP}, {}, NOTED),
    "auto_map of a repository": (
        {"auto_map": HUB_MAP},
        {"auto_map": {"AutoTokenizer": ["acme/evil--evil.T", None]}},
        NOTED,
    ),
    "auto_map of an unknown type": (
        {"auto_map": AUTO_MAP, "model_type": "evil"},
        {},
        ("UsageError", "code that comes with a model (auto_map) is never run"),
    ),
    "a kernel by the public key": ({"attn_implementation": "acme/evil"}, {}, HUB_CODE),
    "a kernel by the private key": ({"_attn_implementation": "acme/evil:f"}, {}, HUB_CODE),
    "a kernel by the innermost key": ({"_attn_implementation_internal": "flash|acme/evil@main"}, {}, HUB_CODE),
    "a kernel in a nested configuration": (
        {"text_config": {"_attn_implementation_internal": "acme/evil"}},
        {},
        HUB_CODE,
    ),
    "a kernel by part": ({"attn_implementation": {"text_config": "acme/evil"}}, {}, HUB_CODE),
    "experts' kernels": ({"_experts_implementation_internal": "acme/evil"}, {}, HUB_CODE),
    "trust in the configuration": ({"trust_remote_code": True, "auto_map": AUTO_MAP}, {}, ASKS),
    "trust in the tokenizer": ({}, {"trust_remote_code": True}, ("UsageError", "delete it from tokenizer_config.json")),
    "a pipeline": ({"custom_pipelines": {"x": {"impl": "evil.Pipeline", "pt": ["AutoModel"]}}}, {}, ASKS),
    "a quantiser": ({"quantization_config": {"quant_method": "fp8"}}, {}, ("UsageError", "weights are quantised")),
    "pickled weights by name": ({"transformers_weights": "evil.bin"}, {}, (None, "left out transformers_weights")),
    "a type that fetches kernels": ({"model_type": "mra"}, {}, ("UsageError", "not an encoder that can be used")),
    "a type that fetches networks": (
        {"model_type": "timm_wrapper", "architecture": "hf-hub:acme/evil", "num_hidden_layers": 2},
        {},
        ("UsageError", "not an encoder that can be used"),
    ),
    "a setting in the place of a method": ({"to_dict": "evil"}, {}, ("UsageError", "to_dict: is no setting of bert")),
}

# Of a tokenizer that has to be converted: only vocab.txt is there.
TOKENIZERS: dict[str, tuple[dict[str, Any], tuple[str | None, str]]] = {
    "auto_map beside a known class": ({"auto_map": AUTO_MAP, "tokenizer_class": "BertTokenizer"}, NOTED),
    "auto_map of an unknown class": (
        {"auto_map": {"AutoTokenizer": ["evil.T", None]}, "tokenizer_class": "EvilTokenizer"},
        ("UsageError", "code that comes with a model is never run"),
    ),
    "a class that is no tokenizer": ({"tokenizer_class": "AutoModel"}, (None, "[CLS] a")),
    "a retriever, which unpickles": ({"tokenizer_class": "RagRetriever"}, (None, "[CLS] a")),
    "files elsewhere": ({"vocab_file": "evil.txt", "name_or_path": "acme/evil"}, (None, "[CLS] a")),
}


def with_code(folder: Path) -> Path:
    """Lays beside a model all that an exploit could want to run."""
    for name in ("evil.py", "modeling.py", "tokenization_evil.py", "__init__.py"):
        (folder / name).write_text(EVIL)
    (folder / "evil.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    return folder


def write_vocabulary(folder: Path, tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=lambda token: vocabulary[token])) + "\n")


def test_no_key_of_a_foreign_model_makes_code_load(base: Path, encoder: Path, run: Path, tmp_path: Path) -> None:
    jobs: list[tuple[str, Path]] = [("encoder", encoder)]
    expected: list[tuple[str | None, str]] = []
    for number, (config, settings, outcome) in enumerate(EXPLOITS.values()):
        folder = with_code(copied(encoder, tmp_path / f"config-{number}"))
        edit(folder / "config.json", **config)
        edit(folder / "tokenizer_config.json", **settings)
        jobs.append(("encoder", folder))
        expected.append(outcome)
    for number, (settings, outcome) in enumerate(TOKENIZERS.values()):
        folder = with_code(copied(encoder, tmp_path / f"tokenizer-{number}"))
        (folder / "tokenizer.json").unlink()
        write_vocabulary(folder, tiny_tokenizer())
        edit(folder / "tokenizer_config.json", **settings)
        jobs.append(("encoder", folder))
        expected.append(outcome)
    for number, changes in enumerate(({"auto_map": AUTO_MAP}, {"attn_implementation": "acme/evil"})):
        folder = with_code(copied(run / "model", tmp_path / f"model-{number}"))
        with_code(folder / "encoder")
        edit(folder / "encoder" / "config.json", **changes)
        write_manifest(folder)
        jobs.append(("model", folder))
        expected.append(("CheckpointError", next(iter(changes))))
    names = [*EXPLOITS, *TOKENIZERS, "auto_map in a model of ours", "a kernel in a model of ours"]
    _, *outcomes = run_watched(tmp_path, jobs)
    for name, (error, part), outcome in zip(names, expected, outcomes, strict=True):
        assert outcome.touched == [], name
        assert outcome.error == error, (name, outcome)
        assert part in outcome.message, (name, outcome)
        assert "\n  File" not in outcome.message


def test_what_is_left_out_is_not_handed_on(encoder: Path, tmp_path: Path) -> None:
    """Neither the run's own configuration nor its tokenizer's names the code that was left out."""
    folder = with_code(copied(encoder, tmp_path / "encoder"))
    edit(folder / "config.json", auto_map=AUTO_MAP)
    edit(folder / "tokenizer_config.json", auto_map=AUTO_MAP, do_lower_case=True)
    parts = read_parts(load_recipe(tiny_recipe(folder)), Observer())
    saved = tmp_path / "saved"
    saved.mkdir()
    parts.save_encoder(saved)
    assert {path.name for path in saved.iterdir()} == {"config.json", "tokenizer.json", "tokenizer_config.json"}
    assert code_notes(saved) == ()
    assert json.loads((saved / "tokenizer_config.json").read_text()) == {"do_lower_case": True}
    assert "evil" not in "".join(path.read_text() for path in saved.iterdir())


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**9},
        {"hidden_size": 10**7, "intermediate_size": 10**7},
        {"vocab_size": 10**10},
        {"hidden_size": -16},
        {"num_attention_heads": 0},
        {"hidden_act": "evil"},
        {"hidden_size": "wide"},
        {"layer_norm_eps": None},
    ],
    ids=str,
)
def test_sizes_that_cannot_be_are_refused_before_memory_is_taken(
    encoder: Path, run: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder = copied(encoder, tmp_path / "encoder")
    edit(folder / "config.json", **changes)
    model = copied(run / "model", tmp_path / "model")
    edit(model / "encoder" / "config.json", **changes)
    write_manifest(model)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match=r"config\.json"):
        build_encoder(
            read_config(folder, dropout=0.0, attention_dropout=None), folder, layer=-1, capture=False, max_tokens=16
        )
    with pytest.raises(CheckpointError):
        read_model(model)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST_BYTES


# Tokenizers

BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
ALBERT = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
MPNET = ("<s>", "<pad>", "</s>", "[UNK]", "<mask>")
ROLES = {"[CLS]": "cls_token", "<s>": "cls_token", "[SEP]": "sep_token", "</s>": "sep_token"}
ROLES |= {token: role for role in ("pad", "unk", "mask") for token in (f"[{role.upper()}]", f"<{role}>")}


def trained(model: str, special: tuple[str, ...], size: int = 1500) -> Tokenizer:
    """A tokenizer of that kind; the special tokens have its first ids where ``model`` does not say last."""
    texts = sample_texts()
    unknown = next(token for token in special if "unk" in token.lower())
    first = () if model == "BPE, special tokens last" else special
    if model == "WordPiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token=unknown))
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=size, special_tokens=list(special), show_progress=False)
    elif model.startswith("BPE"):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer, tokenizer.decoder = (
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            decoders.ByteLevel(),
        )
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=list(first), initial_alphabet=alphabet, show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=size, special_tokens=list(special), unk_token=unknown, show_progress=False
        )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(list(special))  # those that are not there yet come last
    start, last = ("[CLS]", "[SEP]") if "[CLS]" in special else ("<s>", "</s>")
    numbers = [(token, tokenizer.token_to_id(token)) for token in (start, last)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {last}", pair=f"{start} $A {last} $B:1 {last}:1", special_tokens=numbers
    )
    return tokenizer


SPECIAL_IDS = {f"{role}_token_id": 1500 + n for role, n in (("pad", 0), ("cls", 2), ("sep", 3), ("bos", 2), ("eos", 3))}
FAMILIES: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "bert": ("WordPiece", BERT, {}),
    "electra": ("WordPiece", BERT, {}),
    "distilbert": ("WordPiece", BERT, {}),
    "mpnet": ("WordPiece", MPNET, {"pad_token_id": 1}),
    "roberta": ("BPE", ROBERTA, {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}),
    "xlm-roberta": ("Unigram", ROBERTA, {"pad_token_id": 1}),
    "modernbert": ("BPE, special tokens last", BERT, SPECIAL_IDS),
    "albert": ("Unigram", ALBERT, {}),
    "deberta-v2": ("Unigram", BERT, {}),
}


@pytest.fixture(scope="module")
def layouts(base: Path) -> Callable[[str], tuple[Path, PretrainedConfig]]:
    """By family: a folder with a tokenizer as its checkpoints have it, and a configuration."""
    made: dict[str, tuple[Path, PretrainedConfig]] = {}

    def layout(family: str) -> tuple[Path, PretrainedConfig]:
        if family not in made:
            kind, special, config = FAMILIES[family]
            tokenizer, folder = trained(kind, special), base / f"layout-{family}"
            folder.mkdir()
            tokenizer.save(str(folder / "tokenizer.json"))
            tokenizer.model.save(str(folder))
            roles = {ROLES.get(token, token): token for token in special}
            edit(
                folder / "tokenizer_config.json",
                **{f"{name.removesuffix('_token')}_token": token for name, token in roles.items()},
            )
            padded = -(-tokenizer.get_vocab_size() // 32) * 32
            edit(folder / "config.json", model_type=family, vocab_size=padded, **config)
            made[family] = folder, AutoConfig.for_model(family, **{**config, "vocab_size": padded})
        return made[family]

    return layout


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tokenizer_in_its_own_family_raises_no_alarm(
    layouts: Callable[[str], tuple[Path, PretrainedConfig]], caplog: pytest.LogCaptureFixture, family: str
) -> None:
    folder, config = layouts(family)
    tokenizer = load_tokenizer(folder)
    check_tokenizer(tokenizer, config, folder)
    assert code_notes(folder) == ()
    assert caplog.messages == []
    assert isinstance(config, CONFIG_MAPPING[family])


@pytest.mark.parametrize("family", ["bert", "electra", "distilbert", "mpnet", "roberta"])
def test_vocabulary_files_alone_give_the_same_tokenizer(
    layouts: Callable[[str], tuple[Path, PretrainedConfig]],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    family: str,
) -> None:
    """With and without the class that checkpoints on the hub name."""
    folder, config = layouts(family)
    kept = load_tokenizer(folder)
    for number, settings in enumerate(({}, {"tokenizer_class": CLASSES[family]})):
        alone = copied(folder, tmp_path / str(number))
        (alone / "tokenizer.json").unlink()
        edit(alone / "tokenizer_config.json", **settings)
        converted = load_tokenizer(alone)
        check_tokenizer(converted, config, alone)
        for text in ("a good film", "", "the meal was cold"):
            assert converted.encode(text).ids[1:-1] == kept.encode(text).ids[1:-1]
    assert caplog.messages == []


CLASSES = {"bert": "BertTokenizer", "electra": "ElectraTokenizer", "distilbert": "DistilBertTokenizer"}
CLASSES |= {"mpnet": "MPNetTokenizer", "roberta": "RobertaTokenizer"}


def test_the_tokenizer_of_another_model_is_noticed(
    layouts: Callable[[str], tuple[Path, PretrainedConfig]], caplog: pytest.LogCaptureFixture
) -> None:
    """More tokens than embeddings is an error; far fewer, or positions that follow another padding token, a warning."""
    bert, config = layouts("bert")
    roberta, other = layouts("roberta")
    with pytest.raises(
        UsageError, match=r"ids up to 1499, the encoder embeds 1000; expected the tokenizer the encoder"
    ):
        check_tokenizer(load_tokenizer(bert), AutoConfig.for_model("bert", vocab_size=1000), bert)
    check_tokenizer(load_tokenizer(bert), AutoConfig.for_model("bert", vocab_size=2000), bert)
    assert f"{bert}: the tokenizer has 1500 tokens, the encoder embeds 2000" in caplog.messages[0]
    caplog.clear()
    check_tokenizer(load_tokenizer(bert), other, bert)
    assert "the padding token [PAD] has id 0, in config.json it is 1" in caplog.messages[0]
    caplog.clear()
    check_tokenizer(load_tokenizer(roberta), config, roberta)
    assert caplog.messages == []


def broken(tokenizer: Tokenizer, change: Callable[[dict[str, Any]], object]) -> Tokenizer:
    values = json.loads(tokenizer.to_str())
    change(values)
    return Tokenizer.from_str(json.dumps(values))


def without_unknown(values: dict[str, Any]) -> None:
    del values["model"]["vocab"]["[UNK]"]
    values["added_tokens"] = [token for token in values["added_tokens"] if token["content"] != "[UNK]"]


def specials_alone(values: dict[str, Any]) -> None:
    values["model"]["vocab"] = {token: number for number, token in enumerate(BERT)}


def of_other_words(values: dict[str, Any]) -> None:
    vocabulary = values["model"]["vocab"]
    values["model"]["vocab"] = {
        token if token in BERT else f"\N{GREEK CAPITAL LETTER OMEGA}{token}X": number
        for token, number in vocabulary.items()
    }


def with_other_ids(values: dict[str, Any]) -> None:
    values["post_processor"]["special_tokens"]["[CLS]"]["ids"] = [101]


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no unknown token": (without_unknown, r"unknown token \[UNK\] is not in its vocabulary"),
    "special tokens alone": (specials_alone, "special tokens alone, so every word would be unknown"),
    "words that normalising removes": (of_other_words, r"takes every word of its own vocabulary for \[UNK\]"),
    "ids of another vocabulary": (with_other_ids, r"adds \[CLS\] with id 101, in its vocabulary it has 2"),
    "no special tokens": (lambda values: values.update(post_processor=None), "adds no special tokens"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_tokenizer_that_cannot_work_is_refused(fault: str, tmp_path: Path) -> None:
    change, message = BROKEN[fault]
    tokenizer = broken(tiny_tokenizer(), change)
    config = AutoConfig.for_model("bert", vocab_size=400)
    with pytest.raises(UsageError, match=rf"{message}.*expected the tokenizer the encoder was trained with"):
        check_tokenizer(tokenizer, config, tmp_path)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    recipe = load_recipe(tiny_recipe(tiny_encoder(tmp_path / "encoder")))
    (tmp_path / "tokenizer.json").replace(tmp_path / "encoder" / "tokenizer.json")
    with pytest.raises(UsageError, match=message):
        read_parts(recipe, Observer())


def test_two_files_of_different_tokenizers_are_refused(
    layouts: Callable[[str], tuple[Path, PretrainedConfig]], tmp_path: Path
) -> None:
    """A few odd lines are not: files on the hub have them."""
    words, pieces = copied(layouts("bert")[0], tmp_path / "bert"), copied(layouts("roberta")[0], tmp_path / "roberta")
    lines = (words / "vocab.txt").read_text().split("\n")
    (words / "vocab.txt").write_text("\r\n".join([*lines[:900], "odd", *lines[901:]]))
    load_tokenizer(words)
    (words / "vocab.txt").write_text("\n".join([*lines[:700], *lines[701:], lines[700]]))
    with pytest.raises(UsageError, match=r"of the \d+ tokens in vocab\.txt have other ids.*remove the one"):
        load_tokenizer(words)
    (words / "tokenizer.json").unlink()
    (words / "vocab.txt").write_text("\n".join(line for line in lines if line not in ("[CLS]", "[PAD]")))
    with pytest.raises(UsageError, match=r"vocab\.txt lacks \[CLS\]"):
        load_tokenizer(words)
    merged = json.loads((pieces / "vocab.json").read_text())
    (pieces / "vocab.json").write_text(json.dumps({token: number ^ 1 for token, number in merged.items()}))
    with pytest.raises(UsageError, match=r"tokens in vocab\.json have other ids"):
        load_tokenizer(pieces)
    save_tokenizer(words, tiny_tokenizer(), pieces)


# Models of ours


def test_every_file_of_a_model_is_in_its_manifest(run: Path) -> None:
    listed = json.loads((run / "model" / "manifest.json").read_text())["files"]
    there = {path.relative_to(run / "model").as_posix() for path in (run / "model").rglob("*") if path.is_file()}
    assert listed.keys() | {"manifest.json"} == there
    assert manifest_problem(run / "model", ["recipe.yaml"]) is None


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped": (flip_a_bit, "is not what was written"),
    "truncated": (lambda path: os.truncate(path, path.stat().st_size - 1), r"has \d+ bytes, manifest\.json says"),
    "empty": (lambda path: path.write_bytes(b""), "has 0 bytes, manifest.json says"),
    "missing": (lambda path: path.unlink(), "is missing"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "is missing"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "is missing"),
}
FILES = ("weights.safetensors", "recipe.yaml", "encoder/config.json", "encoder/tokenizer.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_of_a_model_is_named(run: Path, tmp_path: Path, name: str, kind: str) -> None:
    damage, message = DAMAGE[kind]
    folder = copied(run / "model", tmp_path / "model")
    damage(folder / name)
    with pytest.raises(CheckpointError) as raised:
        Model.load(folder)
    assert str(folder) in str(raised.value)
    assert re.search(rf"{re.escape(name)} {message}", str(raised.value))
    assert "expected" in str(raised.value)


MANIFESTS = {
    "none": (None, "manifest.json, which tells whether the files are whole, is missing"),
    "empty": ("", "manifest.json cannot be read"),
    "a list": ("[]", "manifest.json cannot be read"),
    "a number for a file": ('{"files": {"recipe.yaml": 3}}', "manifest.json cannot be read"),
    "endless": ('{"files": {"recipe.yaml": {"size": 1e999, "sha256": ""}}}', "manifest.json cannot be read"),
    "deep": ('{"files":' * 100_000, "manifest.json cannot be read"),
    "no files": ('{"files": {}}', "encoder/config.json is not in manifest.json"),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_that_says_nothing_is_refused(run: Path, tmp_path: Path, kind: str) -> None:
    text, message = MANIFESTS[kind]
    folder = copied(run / "model", tmp_path / "model")
    (folder / "manifest.json").unlink()
    if text is not None:
        (folder / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError) as raised:
        Model.load(folder)
    assert f"{folder}: {message}" in str(raised.value)
    assert "copy the model again" in str(raised.value)


@pytest.mark.parametrize("name", ["../secret", "encoder/../../secret", "/dev/zero", "/etc/hostname"])
def test_a_manifest_never_leads_out_of_its_folder(run: Path, tmp_path: Path, name: str) -> None:
    folder = copied(run / "model", tmp_path / "model")
    (tmp_path / "secret").write_text("x")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"size": 1, "sha256": "0" * 64}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert manifest_problem(folder) == f"manifest.json names {name}, which is not in the folder"


def test_heads_are_never_loaded_under_other_labels(run: Path, base: Path, encoder: Path, tmp_path: Path) -> None:
    """Neither by other labels in the recipe, nor by the weights of a model that has heads of the same shapes."""
    folder = copied(run / "model", tmp_path / "model")
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    labels = recipe["tasks"]["reviews"]["labels"]
    recipe["tasks"]["reviews"]["labels"] = dict(zip(labels, [*list(labels.values())[::-1]], strict=True))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    with pytest.raises(CheckpointError, match=r"recipe\.yaml"):
        Model.load(folder)
    other = copied(run / "model", tmp_path / "other")
    weights = load_file(other / "weights.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, other / "weights.safetensors", {"format": "pt"})
    write_manifest(other)
    mixed = copied(run / "model", tmp_path / "mixed")
    shutil.copyfile(other / "weights.safetensors", mixed / "weights.safetensors")
    assert Model.load(other)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is not what was written"):
        Model.load(mixed)
    result = CliRunner().invoke(app, ["predict", str(mixed), "--task", "reviews"], input="text\na good film\n")
    assert (result.exit_code, "Traceback" in result.stderr) == (4, False), result.stderr
    assert "weights.safetensors is not what was written" in " ".join(result.stderr.split())


def test_a_run_without_model_proves_the_weights_of_its_best(stopped: Path, tmp_path: Path) -> None:
    run = copied(stopped, tmp_path / "run")
    assert Model.load(run).predict("reviews", ["a good film"])
    flip_a_bit(run / "best" / "optimizer.safetensors")
    assert Model.load(run)
    flip_a_bit(run / "best" / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"best: weights\.safetensors is not what was written.*--resume"):
        Model.load(run)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])
def test_a_run_to_start_from_gives_its_head_only_to_the_same_labels(run: Path, order: list[int]) -> None:
    """`encoder.checkpoint: RUN`: with the labels in another order the head is new, the encoder is still the run's."""
    recipe = tiny_recipe(run)
    labels = recipe["tasks"]["reviews"]["labels"]
    recipe["tasks"]["reviews"]["labels"] = {cell: labels[cell] for cell in order}
    model = new_model(read_parts(load_recipe(recipe), Observer()))
    theirs = load_file(run / "model" / "weights.safetensors")
    taken = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, theirs[name])}
    heads = {name for name in theirs if name.startswith("heads.task_reviews.")}
    assert heads
    assert theirs.keys() - taken == (set() if order[0] == 0 else heads)


# Weights


def header(text: bytes, *, length: int | None = None, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + data


ENTRY = '{"a": {"dtype": "F32", "shape": [%s], "data_offsets": [0, %s]}}'
WEIGHTS = {
    "empty": b"",
    "short": b"\x10\0\0",
    "no header": header(b"", data=b"\0" * 64),
    "a header longer than the file": header(b"{}", length=10_000),
    "a huge header": header(b"{}", length=1 << 62),
    "99 MB of header that are not there": header(b"{}", length=99_000_000),
    "no JSON": header(b"\xff" * 64),
    "tensors beyond the end": header((ENTRY % (1 << 40, 1 << 42)).encode(), data=b"\0" * 64),
    "a size that overflows": header((ENTRY % ("4294967296, 4294967296", 64)).encode(), data=b"\0" * 64),
    "negative": header((ENTRY % ("-1", 64)).encode(), data=b"\0" * 64),
    "deep": header(b'{"a":' * 100_000),
    "a pickle": b"\x80\x04cos\nsystem\n.",
    "other tensors": header((ENTRY % (16, 64)).encode(), data=b"\0" * 64),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_that_lie_are_refused_without_taking_memory(
    run: Path, encoder: Path, tmp_path: Path, kind: str
) -> None:
    """In a model whose manifest was made to fit, and in an encoder, which has none."""
    model, foreign = copied(run / "model", tmp_path / "model"), copied(encoder, tmp_path / "encoder")
    (model / "weights.safetensors").write_bytes(WEIGHTS[kind])
    (foreign / "model.safetensors").write_bytes(WEIGHTS[kind])
    write_manifest(model)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"weights\.safetensors.*copy the model again"):
        read_model(model)
    source = locate_encoder(str(foreign), None)
    config = read_config(source.folder, dropout=0.0, attention_dropout=None)
    with pytest.raises(UsageError, match=r"copy it again"):
        build_encoder(config, source.folder, layer=-1, capture=False, max_tokens=16)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST_BYTES
