"""trackio: its database in a folder, or a space of the hub."""

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from manyhead.trackers import Trackio
from manyhead.trackers.base import Place, Record, Status, Tracker


def build(options: Trackio, place: Place) -> Tracker:
    """A database below the tracker's folder; ``TRACKIO_DIR=FOLDER trackio show`` shows it."""
    # Its variables could name a server: nothing but the recipe may.
    for name in [name for name in os.environ if name.startswith("TRACKIO_")]:
        del os.environ[name]
    os.environ["TRACKIO_DIR"] = str(place.new_folder(options.kind, options.folder))
    return _Run(options, place)


class _Run:
    """A run of trackio's."""

    def __init__(self, options: Trackio, place: Place) -> None:
        self._options = options
        self._place = place

    def start(self, config: Mapping[str, Any]) -> None:
        trackio: Any = import_module("trackio")
        self._run = trackio.init(
            project=self._options.project,
            name=self._place.name,
            group=f"{self._place.name}-{self._place.id[:8]}",
            space_id=self._options.space,
            config=dict(config),
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, record: Record) -> None:
        if record.metrics:
            self._run.log(dict(record.metrics), step=record.step)

    def artifact(self, path: Path) -> None:
        del path  # its artifacts are a registry of models; the files lie beside the database

    def finish(self, status: Status) -> None:
        self._run.log({"status": status})
        self._run.finish()
