"""TensorBoard: scalars by step, the recipe, events and summary.json as texts. The report has no place there."""

import json
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from tensorboard.summary.writer.event_file_writer import EventFileWriter

from manyhead.trackers import TensorBoard
from manyhead.trackers.base import Place, Record, Status, Tracker

# Messages of protobuf are made when these are imported, so no type is known of them.
_EVENT: Any = import_module("tensorboard.compat.proto.event_pb2")
_SUMMARY: Any = import_module("tensorboard.compat.proto.summary_pb2")
_TENSOR: Any = import_module("tensorboard.compat.proto.tensor_pb2")
_SHAPE: Any = import_module("tensorboard.compat.proto.tensor_shape_pb2")

_TEXT = _SUMMARY.SummaryMetadata(plugin_data=_SUMMARY.SummaryMetadata.PluginData(plugin_name="text"))
_ONE = _SHAPE.TensorShapeProto(dim=[_SHAPE.TensorShapeProto.Dim(size=1)])


def build(options: TensorBoard, place: Place) -> Tracker:
    """Event files in the tracker's folder."""
    return _EventFiles(place.new_folder(options.kind, options.folder))


class _EventFiles:
    """A run's event file."""

    def __init__(self, folder: Path) -> None:
        self._writer = EventFileWriter(str(folder), flush_secs=10)
        self._step = 0

    def start(self, config: Mapping[str, Any]) -> None:
        self._text("recipe", _code(config), 0, time.time())

    def log(self, record: Record) -> None:
        self._step = record.step
        values = [_SUMMARY.Summary.Value(tag=name, simple_value=number) for name, number in record.metrics.items()]
        self._write(values, record.step, record.at)
        if record.text:
            self._text("event", record.text, record.step, record.at)

    def artifact(self, path: Path) -> None:
        if path.suffix == ".json":
            self._text(path.name, _code(json.loads(path.read_text(encoding="utf-8"))), self._step, time.time())

    def finish(self, status: Status) -> None:
        self._text("status", status, self._step, time.time())
        self._writer.close()

    def _text(self, tag: str, text: str, step: int, at: float) -> None:
        tensor = _TENSOR.TensorProto(dtype="DT_STRING", string_val=[text.encode()], tensor_shape=_ONE)
        self._write([_SUMMARY.Summary.Value(tag=tag, metadata=_TEXT, tensor=tensor)], step, at)

    def _write(self, values: list[Any], step: int, at: float) -> None:
        if values:
            summary = _SUMMARY.Summary(value=values)
            self._writer.add_event(_EVENT.Event(wall_time=at, step=step, summary=summary))


def _code(value: object) -> str:
    """JSON as a block of Markdown, which is what TensorBoard shows."""
    return "\n".join(f"    {line}" for line in json.dumps(value, indent=2, ensure_ascii=False).splitlines())
