"""The recipe: every key, its type, its one default, its meaning.

Members of a family (heads, losses, schedules, ...) are named by ``kind`` and bring their own options. Their option
models live beside the families; a `Slot` looks them up in the tables passed as validation context, so this module
knows no family and imports none. Load recipes through `manyhead.recipe.load`, which supplies the tables and turns
pydantic's errors into lines with file and key.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Self, cast, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError, core_schema

PLACEMENT = ("data_dir", "device", "threads", "trackers")
"""Top-level keys that say where a recipe is run and who watches: with others it is the same recipe."""

FORMAT = 1
"""Version of the recipe format this package reads and writes (key ``manyhead``)."""

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
TaskKind = Literal["classification", "regression"]


class MetricFacts(NamedTuple):
    """What recipes have to know of a metric; it is computed in `manyhead.evaluation`.

    ``n_classes`` is the number of classes it needs, None for any. An unbounded metric has no part in ``overall``.
    """

    kind: TaskKind
    n_classes: int | None = None
    higher_is_better: bool = True
    bounded: bool = True


METRICS: dict[str, MetricFacts] = {
    "accuracy": MetricFacts("classification"),
    "macro_f1": MetricFacts("classification"),
    "f1": MetricFacts("classification", n_classes=2),
    "mcc": MetricFacts("classification"),
    "pearson": MetricFacts("regression"),
    "spearman": MetricFacts("regression"),
    "exact_match": MetricFacts("regression"),
    "mse": MetricFacts("regression", higher_is_better=False, bounded=False),
}


class Strict(BaseModel):
    """A part of a recipe: unknown keys are refused, values are not coerced across types, nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _list_to_tuple(cls, value: object, info: ValidationInfo) -> object:
        """YAML has no tuples: a list stands for one."""
        if not isinstance(value, list) or info.field_name is None:
            return cast("object", value)
        items = cast("list[object]", value)
        annotation = cls.model_fields[info.field_name].annotation
        arms = (annotation, *get_args(annotation))
        return tuple(items) if any(get_origin(arm) is tuple for arm in arms) else items


class Options(Strict):
    """Options of one member of a family. Subclasses narrow ``kind`` to a literal."""

    kind: str


@dataclass(frozen=True)
class Entry:
    """A row of a family's table: the member's options, and where its builder is (``module:function``)."""

    options: type[Options]
    builder: str


Tables = Mapping[str, Mapping[str, Entry]]
"""Family name to (member name to entry)."""


FAMILY_MARK = "x-family"
"""Stands for a family's members in the JSON Schema until `manyhead.recipe.json_schema` puts them in."""


@dataclass(frozen=True)
class Slot:
    """Annotation of a field that holds a member of ``family``: ``name`` or ``{kind: name, ...}``; null if optional."""

    family: str
    optional: bool = False

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.with_info_plain_validator_function(
            self._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(_dump_options),
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        member: JsonSchemaValue = {FAMILY_MARK: self.family}
        return {"anyOf": [member, {"type": "null"}]} if self.optional else member

    def _validate(self, value: object, info: ValidationInfo) -> Options | None:
        if value is None and self.optional:
            return None
        if isinstance(value, Options):
            return value
        if info.context is None:
            raise PydanticCustomError("no_tables", "recipes are loaded through manyhead.recipe.load")
        members = cast("Tables", info.context["tables"])[self.family]
        options: object = {"kind": value} if isinstance(value, str) else value
        given = dict(cast("Mapping[str, Any]", options)) if isinstance(options, Mapping) else {}
        kind = given.get("kind")
        if not isinstance(kind, str):
            raise PydanticCustomError("no_kind", "needs a kind", {"choices": sorted(members)})
        if kind not in members:
            raise PydanticCustomError(
                "unknown_kind", "unknown kind '{kind}'", {"kind": kind, "choices": sorted(members)}
            )
        try:
            return members[kind].options.model_validate(given, context=info.context)
        except ValidationError as error:
            raise PydanticCustomError(
                "member", "invalid options of '{kind}'", {"kind": kind, "errors": error.errors()}
            ) from None


def _dump_options(value: Options | None) -> dict[str, Any] | None:
    return None if value is None else value.model_dump(by_alias=True)


def _is_auto(value: object) -> bool:
    # What most recipes have is not written out, so that the same recipe stays the same text.
    return value == "auto"


def _slot(family: str, kind: str) -> Any:
    return Field(default={"kind": kind}, validate_default=True, description=f"Member of {family}.")


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


EMBEDDED = "embedded"
"""The checkpoint that comes as a Python package, for work without a network."""


class Encoder(Strict):
    """The shared encoder."""

    checkpoint: str = Field(default=EMBEDDED, description="A folder, a run or model of ours, a hub id, or 'embedded'.")
    revision: str | None = Field(default=None, description="Revision of a hub id; the resolved recipe pins the commit.")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Dropout of hidden states inside the encoder.")
    attention_dropout: float | None = Field(
        default=None, ge=0, lt=1, description="Dropout of attention; null: as `dropout`."
    )
    max_tokens: int = Field(default=128, ge=4, le=8192, description="Longest sequence; longer texts are cut.")
    segment_ids: bool = Field(
        default=True, description="Second texts of pairs get segment 1, where the encoder has them."
    )
    pooling: Annotated[Options, Slot("pooling")] = _slot("pooling", "cls")
    layer: int = Field(
        default=-1, description="Layer whose states are pooled: -1 the last, -2 the one before, 0 embeddings."
    )
    projections: list[Annotated[Options, Slot("projections")]] = Field(
        default=[], description="Modules that all tasks share, behind the pooling, in order."
    )
    experts: Annotated[Options | None, Slot("experts", optional=True)] = Field(
        default=None, description="Parts of the encoder that each task has of its own; null: none."
    )
    sandwich_norm: bool = Field(
        default=False, description="Norms without parameters before and behind each attention and feed-forward (S1)."
    )


class DevFromTrain(Strict):
    """A dev split cut from the training file, by seed."""

    from_: Literal["train"] = Field(alias="from", description="The split to cut from.")
    fraction: float = Field(gt=0, lt=1, description="Share of the rows that become dev rows.")
    seed: int | None = Field(default=None, ge=0, lt=2**63, description="Decides which; null: the recipe's seed.")


class Files(Strict):
    """Where the splits of a task are: paths below `data_dir`, or hub:OWNER/NAME[/CONFIG]:SPLIT[@REVISION]."""

    train: str | None = Field(default=None, description="Training file; without one the task is only evaluated.")
    dev: str | DevFromTrain | None = Field(default=None, description="File scored while training, or {from, fraction}.")
    test: str | None = Field(default=None, description="File without targets, or with; never seen in training.")


Format = Literal["auto", "csv", "tsv", "jsonl", "parquet", "arrow"]
Quoting = Literal["auto", "csv", "none"]
Cell = str | int | float | bool
Count = Annotated[int, Field(ge=1)]
Columns = Annotated[list[str], BeforeValidator(_listed, json_schema_input_type=str | list[str])]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]

LOSS_AND_METRIC: dict[str, dict[str, Any]] = {
    "classification": {"loss": {"kind": "cross_entropy"}, "metric": "accuracy"},
    "regression": {"loss": {"kind": "mse"}, "metric": "pearson"},
}
"""What a task's omitted ``loss`` and ``metric`` are, by its kind."""


def cell_text(cell: Cell) -> str:
    """A cell value as recipes write it: ``true`` and ``false`` for booleans."""
    return str(cell).lower() if isinstance(cell, bool) else str(cell)


class Task(Strict):
    """One task: what is read, what is predicted, how it is scored."""

    kind: TaskKind = Field(description="Classes (yes/no is two), or a score.")
    text: Columns = Field(min_length=1, max_length=2, description="One text column, or two for a pair.")
    target: str = Field(description="The column to predict.")
    labels: dict[Cell, str] | list[Cell] | None = Field(
        default=None, description="Classification: cell value to name, or a list when cells hold the names."
    )
    range: tuple[float, float] | None = Field(default=None, description="Regression: lowest and highest target.")
    pairing: Literal["concat", "siamese"] = Field(
        default="concat", description="Pairs: one sequence, or one for each text."
    )
    files: Files = Field(description="The splits.")
    id: str | None = Field(default=None, description="Column with the row's id; null: 'id' where there is one.")
    format: Format = Field(default="auto", description="File format; auto: by ending and content.")
    quoting: Quoting = Field(
        default="auto", description="Quotes in delimited files: csv (doubled), none, or by evidence."
    )
    charset: str = Field(default="utf-8", description="Encoding of text files.")
    columns: list[str] | None = Field(default=None, description="Column names of a file without a header.")
    limit: dict[Split, Count] = Field(default={}, description="Use only the first N rows of a split.")
    max_rejected: float = Field(
        default=0.01, ge=0, le=1, description="Share of rejected rows above which a file is refused."
    )
    head: Annotated[Options, Slot("heads")] = _slot("heads", "linear")
    head_from: Literal["auto", "checkpoint", "new"] = Field(
        default="auto",
        exclude_if=_is_auto,
        description="First weights of the head: the checkpoint's where they fit (auto), have to fit, or new ones.",
    )
    loss: Annotated[Options, Slot("objectives")] = Field(
        default={"kind": "cross_entropy"}, validate_default=True, description="cross_entropy, or mse for a score."
    )
    auxiliary: list[Annotated[Options, Slot("objectives")]] = Field(
        default=[], description="Losses added to `loss` while training; they do not predict."
    )
    target_cast: Literal["none", "floor"] = Field(
        default="none", description="Regression: train on scores cut to whole numbers (floor), as some starters do."
    )
    class_weights: Literal["balanced"] | dict[Cell, float] | None = Field(
        default=None,
        description="Weight of each class in the loss; balanced: inverse to its share of the training rows.",
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="Share of the target spread over all classes.")
    metric: str = Field(default="accuracy", description="The task's score: accuracy, or pearson for a score.")

    @model_validator(mode="before")
    @classmethod
    def _fill_by_kind(cls, data: object) -> object:
        if not isinstance(data, Mapping):
            return data
        given = dict(cast("Mapping[str, Any]", data))
        kind = given.get("kind")
        return {**LOSS_AND_METRIC.get(kind, {}), **given} if isinstance(kind, str) else given

    @property
    def is_pair(self) -> bool:
        """Whether the task reads two texts."""
        return len(self.text) == 2

    @property
    def sequences_per_example(self) -> int:
        """2 for a siamese pair, else 1."""
        return 2 if self.is_pair and self.pairing == "siamese" else 1

    @property
    def label_names(self) -> list[str]:
        """Names of the classes in order; empty for regression."""
        if self.labels is None:
            return []
        return list(self.labels.values()) if isinstance(self.labels, dict) else [cell_text(c) for c in self.labels]

    @property
    def label_cells(self) -> list[Cell]:
        """The cell that stands for each class, in the order of `label_names`; empty for regression."""
        return [] if self.labels is None else list(self.labels)

    def with_dev_seed(self, seed: int) -> Self:
        """A copy whose dev rows, where they are cut from train by the recipe's seed, are chosen by ``seed``."""
        dev = self.files.dev
        if not isinstance(dev, DevFromTrain) or dev.seed is not None:
            return self
        pinned = self.files.model_copy(update={"dev": dev.model_copy(update={"seed": seed})})
        return self.model_copy(update={"files": pinned})


class EarlyStopping(Strict):
    """End a stage when its score has not risen."""

    patience: int = Field(default=3, ge=1, description="Evaluations without a better score before the stage ends.")


class Distillation(Strict):
    """Learn from what teachers predict for the training rows, beside the gold targets (MT-DNN)."""

    teachers: list[str] = Field(
        min_length=1, description="Names of earlier stages, or runs and models of ours (folder or hub id)."
    )
    weight: float = Field(default=0.5, ge=0, le=1, description="Share of the soft loss; the rest is the gold loss.")
    temperature: float = Field(default=1.0, gt=0, description="Of the teachers' and the student's probabilities.")


class SearchRange(Strict):
    """Numbers to draw a key's value from."""

    low: float = Field(description="The lowest.")
    high: float = Field(description="The highest.")
    log: bool = Field(default=False, description="Draw on a logarithmic scale.")
    integer: bool = Field(default=False, description="Draw whole numbers.")


class Search(Strict):
    """Values of keys found by trying (extra `hpo`); `manyhead study` runs it."""

    keys: dict[str, SearchRange | list[Any]] = Field(min_length=1, description="Dotted key: a range, or the choices.")
    trials: int = Field(default=20, ge=1, description="Recipes tried.")
    pruning: bool = Field(default=True, description="End a trial early whose dev score is below the others'.")


class Stage(Strict):
    """One stage of training. Each starts from the best weights of the one before."""

    name: Name = Field(default="multitask", description="Name in logs.")
    tasks: list[str] | None = Field(default=None, description="Tasks trained; null: all that have a train file.")
    start: Literal["previous", "encoder"] = Field(
        default="previous", description="Weights to start from: the best of the stage before, or those of the run."
    )
    pretraining: Annotated[Options | None, Slot("pretraining", optional=True)] = Field(
        default=None, description="What is learned from the tasks' texts in place of the tasks; null: the tasks."
    )
    distillation: Distillation | None = Field(default=None, description="Teachers to learn from; null: none.")
    regularisers: list[Annotated[Options, Slot("regularisers")]] = Field(
        default=[], description="Penalties added to the losses."
    )
    freeze: list[str] = Field(
        default=[], description="Patterns of parameter names that do not train: encoder.*, *.embeddings.*"
    )
    schedule: Annotated[Options, Slot("schedules")] = _slot("schedules", "interleaved")
    epochs: int = Field(default=3, ge=1, description="Epochs; what one is depends on the schedule.")
    max_steps: int | None = Field(default=None, ge=1, description="Ends the stage early.")
    batch_size: Count | dict[str, Count] = Field(
        default=32, description="Examples of a task in an update, or task: size."
    )
    accumulation: int = Field(default=1, ge=1, description="Pieces an update's examples are run in, to save memory.")
    subsample: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="task: share (below 1) or number of its training rows used, chosen once by seed."
    )
    epoch_examples: dict[str, Count] = Field(
        default={}, description="task: examples that count as one epoch of it; the next epoch goes on behind them."
    )
    balanced: list[str] = Field(default=[], description="Tasks whose classes (or score buckets) are drawn equally.")
    length_window: int = Field(default=0, ge=0, description="Batches that are sorted together by length; 0: none.")
    balancing: Annotated[Options, Slot("balancing")] = _slot("balancing", "sum")
    optimizer: Annotated[Options, Slot("optimizers")] = _slot("optimizers", "adamw")
    rate: Annotated[Options, Slot("rates")] = _slot("rates", "constant")
    clip_norm: float | None = Field(
        default=1.0, gt=0, description="Longest gradient, all parameters together; null: no clip."
    )
    clip_by: Literal["all", "task"] = Field(
        default="all", description="Clip the whole gradient, or each task's before they are combined."
    )
    clip_always: bool = Field(default=False, description="Scale shorter gradients up to `clip_norm` as well (S3).")
    on_nonfinite: Literal["stop", "skip"] = Field(
        default="stop",
        description="A step whose loss or gradient is not a finite number: end the run, or leave it out.",
    )
    evaluate_every_steps: int | None = Field(default=None, ge=1, description="null: once an epoch.")
    checkpoint_every_steps: int | None = Field(default=None, ge=1, description="null: at each evaluation.")
    keep_checkpoints: int = Field(default=2, ge=1, description="Newest checkpoints kept, beside the best.")
    select_by: str = Field(
        default="overall",
        description="What picks the best checkpoint: overall, of the stage's tasks, or TASK.METRIC.",
    )
    early_stopping: EarlyStopping | None = Field(default=None, description="null: train to the end.")

    def batch_size_of(self, task: str) -> int:
        """Examples of ``task`` in one update."""
        return self.batch_size if isinstance(self.batch_size, int) else self.batch_size[task]


class SelectOn(Strict):
    """Rows that pick checkpoints, so that scores come from others."""

    dev: float = Field(
        gt=0, lt=1, description="Share of each task's dev rows that pick checkpoints; scores are of the rest."
    )


class Recipe(Strict):
    """A whole recipe, resolved: every key has its value."""

    manyhead: Literal[1] = Field(description="Version of the recipe format.")
    name: Name = Field(description="Name of the run.")
    seed: int = Field(default=13, ge=0, lt=2**63, description="Everything random is drawn from this.")
    data_dir: str = Field(default=".", description="Folder of the data, relative to this file.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(default="auto", description="Where to run.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 where the hardware has it."
    )
    threads: int | None = Field(default=None, ge=1, description="CPU threads; null: one a core.")
    plugins: list[str] = Field(default=[], description="Python modules that add members to the families.")
    trackers: list[Annotated[Options, Slot("trackers")]] = Field(
        default=[], description="Programs that draw the run's curves (extra `track`); they change nothing of the run."
    )
    encoder: Encoder = Field(default={}, validate_default=True, description="The shared encoder.")
    tasks: dict[TaskName, Task] = Field(min_length=1, description="The tasks by name.")
    stages: list[Stage] = Field(default=[{}], validate_default=True, min_length=1, description="The stages in order.")
    select_on: SelectOn | None = Field(
        default=None, description="{dev: 0.5}: a half of dev picks checkpoints, the other is scored; null: all do both."
    )
    calibrate: bool = Field(
        default=True,
        description="Fit a temperature to the probabilities of each task of classes at the end, on the dev rows that "
        "pick checkpoints; it changes no class.",
    )
    grid: dict[str, list[Any]] = Field(
        default={}, description="Dotted key: the values that `manyhead study` tries, every combination."
    )
    search: Search | None = Field(default=None, description="Keys whose values `manyhead study` searches; null: none.")

    def trained_tasks(self, stage: Stage) -> list[str]:
        """Names of the tasks that ``stage`` trains, in recipe order."""
        return [
            name
            for name, task in self.tasks.items()
            if task.files.train is not None and (stage.tasks is None or name in stage.tasks)
        ]

    def learned_tasks(self, stage: Stage) -> list[str]:
        """Names of the tasks that ``stage`` can teach: those it trains or, if it pretrains, those learned before it."""
        learned: list[str] = []
        for each in self.stages:
            learned = [] if each.start == "encoder" else learned
            own = self.trained_tasks(each) if each.pretraining is None else []
            if each.name == stage.name:
                return own or learned
            learned = [*dict.fromkeys([*learned, *own])]
        return learned

    def reseeded(self, seed: int) -> Self:
        """A copy with another seed that is scored on the same rows: dev rows cut from train stay as they are."""
        tasks = {name: task.with_dev_seed(self.seed) for name, task in self.tasks.items()}
        return self.with_changes(seed=seed, tasks=tasks)

    def with_changes(self, **changes: Any) -> Self:
        """A copy with top-level keys replaced by already valid values."""
        return self.model_copy(update=changes)
