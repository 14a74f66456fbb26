"""The whole model as a folder for the hub: what `Model.load` reads, and a model card.

Folders of the machine it was trained on are left out of its recipe.
"""

import shutil
from pathlib import Path

from manyhead.encoder.foreign import CONFIG
from manyhead.encoder.tokenizer import TOKENIZER_FILES
from manyhead.errors import UsageError
from manyhead.export.card import card_text
from manyhead.export.source import Export, Source, Written, expected_outputs
from manyhead.files import write_manifest
from manyhead.inference.model_folder import ENCODER, RECIPE, WEIGHTS, model_in, weights_of
from manyhead.inference.temperatures import CALIBRATION
from manyhead.recipe.load import recipe_yaml
from manyhead.recipe.schema import Recipe

CARD = "README.md"


def write(source: Source, folder: Path) -> Export:
    """The model's files, its card, and a manifest of the former: the card may be edited."""
    if source.named:
        raise UsageError("--to hub exports the whole model; leave --task out, or use --to transformers")
    recipe, found = source.model.recipe, model_in(source.folder)
    (folder / RECIPE).write_text(recipe_yaml(shared(recipe)), encoding="utf-8")
    shutil.copyfile(weights_of(source.folder), folder / WEIGHTS)
    if (found / CALIBRATION).is_file():
        shutil.copyfile(found / CALIBRATION, folder / CALIBRATION)
    (folder / ENCODER).mkdir()
    for name in (CONFIG, *TOKENIZER_FILES):
        if (found / ENCODER / name).is_file():
            shutil.copyfile(found / ENCODER / name, folder / ENCODER / name)
    write_manifest(folder)
    (folder / CARD).write_text(card_text(source), encoding="utf-8")
    options = {"plugins": recipe.plugins}
    written = [
        Written(
            task,
            ".",
            "hub_folder.py",
            source.texts[task],
            expected_outputs(source, task),
            declared.kind == "classification",
            options,
            needs_manyhead=True,
        )
        for task, declared in recipe.tasks.items()
    ]
    return Export(written)


def shared(recipe: Recipe) -> Recipe:
    """The recipe without what is of one machine: where it ran, and the folders above its files."""
    checkpoint = recipe.encoder.checkpoint
    if Path(checkpoint).is_absolute():
        checkpoint = f"./{Path(checkpoint).name}"  # with the dot it is no hub id
    encoder = recipe.encoder.model_copy(update={"checkpoint": checkpoint})
    tasks = {}
    for name, task in recipe.tasks.items():
        files = {
            split: _last(value) if isinstance(value, str) else value
            for split, value in ((split, getattr(task.files, split)) for split in ("train", "dev", "test"))
        }
        tasks[name] = task.model_copy(update={"files": task.files.model_copy(update=files)})
    stages = [
        stage
        if stage.distillation is None
        else stage.model_copy(
            update={
                "distillation": stage.distillation.model_copy(
                    update={"teachers": [_last(teacher) for teacher in stage.distillation.teachers]}
                )
            }
        )
        for stage in recipe.stages
    ]
    return recipe.with_changes(
        data_dir=".", device="auto", threads=None, trackers=[], encoder=encoder, tasks=tasks, stages=stages
    )


def _last(place: str) -> str:
    """An absolute path's last name; hub ids and relative paths stay."""
    return Path(place).name if Path(place).is_absolute() else place
