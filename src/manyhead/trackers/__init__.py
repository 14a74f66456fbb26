"""Trackers: programs that draw a run's curves beside those of other runs.

Free of the trackers' packages: options and the table. Builders: ``build(options, place) -> Tracker``, see
`manyhead.trackers.base`. They run in a process of their own, which `manyhead.tracking` starts.
"""

from typing import ClassVar, Literal

from pydantic import Field

from manyhead.recipe.schema import Entry, Options

EXTRA = "pip install 'manyhead[track]'"


class TrackerOptions(Options):
    """What every tracker takes. ``package`` is what has to be installed for it, and ``install`` how that is done."""

    package: ClassVar[str | None] = None
    install: ClassVar[str] = EXTRA

    folder: str | None = Field(
        default=None, description="Folder that runs are written below; null: RUN/trackers/KIND. `~` is the home folder."
    )


class TensorBoard(TrackerOptions):
    """TensorBoard's event files."""

    package = "tensorboard"
    kind: Literal["tensorboard"] = "tensorboard"


class WandB(TrackerOptions):
    """Weights & Biases; `wandb sync` sends an offline run later."""

    package = "wandb"
    kind: Literal["wandb"] = "wandb"
    project: str = Field(default="manyhead", min_length=1, description="Project that the run belongs to.")
    entity: str | None = Field(default=None, description="User or team; null: wandb's own setting.")
    mode: Literal["offline", "online"] = Field(default="offline", description="online: metrics leave this machine.")


class MLflow(TrackerOptions):
    """MLflow's file store, or a server."""

    package = "mlflow"
    kind: Literal["mlflow"] = "mlflow"
    experiment: str = Field(default="manyhead", min_length=1, description="Experiment that the run belongs to.")
    server: str | None = Field(
        default=None, description="Address of a tracking server: metrics leave this machine; null: files."
    )


class Trackio(TrackerOptions):
    """trackio's database (SQLite)."""

    package = "trackio"
    install = "pip install trackio"  # it refuses the pillow that constraints.txt pins
    kind: Literal["trackio"] = "trackio"
    project: str = Field(default="manyhead", min_length=1, description="Project that the run belongs to.")
    space: str | None = Field(
        default=None, description="Hub space (OWNER/NAME) that shows it: metrics leave this machine; null: none."
    )


TRACKERS: dict[str, Entry] = {
    "tensorboard": Entry(TensorBoard, "manyhead.trackers.tensorboard:build"),
    "wandb": Entry(WandB, "manyhead.trackers.wandb:build"),
    "mlflow": Entry(MLflow, "manyhead.trackers.mlflow:build"),
    "trackio": Entry(Trackio, "manyhead.trackers.trackio:build"),
}
