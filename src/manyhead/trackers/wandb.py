"""Weights & Biases: offline unless told otherwise, and no more than the recipe, the records and two files."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manyhead.trackers import WandB
from manyhead.trackers.base import Place, Record, Status, Tracker


def build(options: WandB, place: Place) -> Tracker:
    """A run below the tracker's folder. A run that went on is another one, in the same group."""
    os.environ["WANDB_ERROR_REPORTING"] = "false"  # wandb reports errors of its own to its makers, offline too
    return _Run(options, place, place.new_folder(options.kind, options.folder))


class _Run:
    """A run of wandb's."""

    def __init__(self, options: WandB, place: Place, folder: Path) -> None:
        self._options = options
        self._place = place
        self._folder = folder

    def start(self, config: Mapping[str, Any]) -> None:
        import wandb

        self._run = wandb.init(
            project=self._options.project,
            entity=self._options.entity,
            mode=self._options.mode,
            name=self._place.name,
            group=f"{self._place.name}-{self._place.id[:8]}",
            config=dict(config),
            dir=self._folder,
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_code=True,
                disable_git=True,
                x_disable_meta=True,
                x_disable_stats=True,
            ),
        )

    def log(self, record: Record) -> None:
        if record.metrics:
            self._run.log(dict(record.metrics), step=record.step)

    def artifact(self, path: Path) -> None:
        self._run.save(path, base_path=path.parent, policy="now")

    def finish(self, status: Status) -> None:
        self._run.summary["status"] = status
        self._run.finish(exit_code=0 if status in ("finished", "running") else 1)
