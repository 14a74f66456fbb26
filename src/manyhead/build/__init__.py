"""From a recipe to a run: the one place where all parts of a training run meet.

`parts` reads encoder, tokenizer and data; `plan` builds model and stages over them; `run` trains, or goes on, in a run
folder; `summary` says what came out.
"""

from manyhead.build.parts import Parts, read_parts
from manyhead.build.plan import new_model, plan_schedule, plan_stages
from manyhead.build.run import Run, train

__all__ = ["Parts", "Run", "new_model", "plan_schedule", "plan_stages", "read_parts", "train"]
