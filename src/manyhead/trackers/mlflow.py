"""MLflow: its file store in a folder, or a server."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manyhead.trackers import MLflow
from manyhead.trackers.base import TRACKERS_FOLDER, Place, Record, Status, Tracker, flat

ID_TAG = "manyhead.id"
"""Tag that has the run's id: what MLflow has of the run already is deleted by it, which MLflow can undo."""

# What MLflow takes at a time, and the characters of a parameter.
_MOST_METRICS = 1000
_MOST_PARAMS = 100
_MOST_CHARACTERS = 500

# So many numbers, or so long after the last ones, they are written.
_ENOUGH = 500
_LONG_SECONDS = 5.0

_STATUS: Mapping[Status, str] = {"finished": "FINISHED", "stopped": "KILLED", "killed": "KILLED"}


def build(options: MLflow, place: Place) -> Tracker:
    """A run in the store. A store in a folder that was named holds other runs too."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # since 3.7 the store that needs no database has to be asked for
    if options.server is not None:
        return _Run(options.server, options.experiment, place)
    folder = Path(options.folder).expanduser() if options.folder else place.run / TRACKERS_FOLDER / options.kind
    folder.mkdir(parents=True, exist_ok=True)
    return _Run(folder.resolve().as_uri(), options.experiment, place)


class _Run:
    """A run of MLflow's."""

    def __init__(self, store: str, experiment: str, place: Place) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=store)
        self._experiment = experiment
        self._place = place
        self._waiting: list[Any] = []
        self._written = time.monotonic()

    def start(self, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        found = self._client.get_experiment_by_name(self._experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(self._experiment)
        for old in self._client.search_runs([experiment], f"tags.`{ID_TAG}` = '{self._place.id}'"):
            self._client.delete_run(old.info.run_id)
        tags = {ID_TAG: self._place.id}
        self._id = self._client.create_run(experiment, run_name=self._place.name, tags=tags).info.run_id
        params = [Param(_named(key), str(value)[:_MOST_CHARACTERS]) for key, value in flat(config).items()]
        for first in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(self._id, params=params[first : first + _MOST_PARAMS])
        self._client.log_dict(self._id, dict(config), "recipe.yaml")

    def log(self, record: Record) -> None:
        from mlflow.entities import Metric

        at = int(record.at * 1000)
        self._waiting += [Metric(name, value, at, record.step) for name, value in record.metrics.items()]
        if len(self._waiting) >= _ENOUGH or time.monotonic() - self._written > _LONG_SECONDS:
            self._write()

    def artifact(self, path: Path) -> None:
        self._client.log_artifact(self._id, str(path))

    def finish(self, status: Status) -> None:
        self._write()
        self._client.set_tag(self._id, "manyhead.status", status)
        if status != "running":  # as which MLflow has it from the start
            self._client.set_terminated(self._id, _STATUS.get(status, "FAILED"))

    def _write(self) -> None:
        """Many at a time: each batch costs MLflow as much as hundreds of numbers."""
        for first in range(0, len(self._waiting), _MOST_METRICS):
            self._client.log_batch(self._id, metrics=self._waiting[first : first + _MOST_METRICS])
        self._waiting.clear()
        self._written = time.monotonic()


def _named(key: str) -> str:
    """A key of the recipe with the characters that MLflow's names may have."""
    return "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in key)[:250]
