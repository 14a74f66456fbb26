"""``manyhead quickstart``: three small tasks from the packaged sample, trained, scored and tried."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from manyhead.cli.options import Json, Out, Overrides, Quiet, Resume, listed
from manyhead.cli.output import speaking, table
from manyhead.cli.training import command_line, next_steps, run_training, scores_shown

if TYPE_CHECKING:
    from rich.console import RenderableType

    from manyhead.recipe.schema import Recipe

EXAMPLES = (
    "manyhead quickstart",
    "manyhead quickstart --set stages.0.epochs=1 --out runs/short",
    "manyhead quickstart --resume",
)

RECIPE = "quickstart"

TRIALS: dict[str, tuple[str, ...]] = {
    "reviews": (
        "The soup was cold and nobody came to our table for an hour.",
        "A wonderful lamp: warm light, solid wood, and it arrived a day early.",
    ),
    "questions": (
        ("How can I learn to whistle?", "What is the best way to start whistling?"),
        ("How can I learn to whistle?", "Where can I buy a tin whistle?"),
    ),
    "sentences": (
        ("A dog runs along the beach.", "A dog is running by the sea."),
        ("A dog runs along the beach.", "The bank raised its fees in spring."),
    ),
}
