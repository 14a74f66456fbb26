"""What a finished run holds: predictions, the model, maps of sentences, its summary and its report."""

from collections.abc import Callable, Mapping

from manyhead.build.calibrating import saved_calibration
from manyhead.build.parts import Parts
from manyhead.build.summary import now, summary_of
from manyhead.data.selection import scored_rows
from manyhead.data.texts import texts_of
from manyhead.errors import ManyheadError
from manyhead.evaluation.errors.calibration import Temperature
from manyhead.evaluation.evaluate import Evaluation
from manyhead.evaluation.predictions import write_predictions
from manyhead.evaluation.sentence_map import map_task
from manyhead.faults import at
from manyhead.files import write_json, writing
from manyhead.inference.model_folder import write_model
from manyhead.training.run_folder import MAPS, MODEL, PREDICTIONS, RECIPE, SUMMARY, RunFolder
from manyhead.training.stages import StageRunner


def finish(
    folder: RunFolder,
    parts: Parts,
    runner: StageRunner,
    final: Evaluation | None,
    *,
    calibration: Mapping[str, Temperature],
    tick: Callable[[int], None],
) -> None:
    """Writes what a finished run holds. All of it is written again where this was stopped in the middle."""
    at("finish: begins", folder)
    if final is not None:
        _write_dev_predictions(folder, parts, final)
    if not (folder.path / MODEL).exists():
        recipe = (folder.path / RECIPE).read_text(encoding="utf-8")
        saved = saved_calibration(parts.recipe, calibration)
        write_model(folder.path / MODEL, runner.model, recipe, folder.encoder, saved)
    at("finish: the model is written", folder)
    dev = scored_rows(parts.recipe, parts.split("dev"))
    maps = {name: map_task(runner.model, parts.recipe, data, tick=tick).as_dict() for name, data in dev.items()}
    with writing(str(folder.path / MAPS)):
        write_json(folder.path / MAPS, {"tasks": maps})
    with writing(str(folder.path / SUMMARY)):
        write_json(folder.path / SUMMARY, summary_of(parts, runner, final, calibration))
    _write_report(folder, runner)
    at("finish: the report is written", folder)
    folder.update_state(status="finished", finished=now())


def _write_report(folder: RunFolder, runner: StageRunner) -> None:
    """Writes the page. It can be written at any time, so no run fails for want of it."""
    try:
        from manyhead.report.page import write_report

        write_report(folder.path)
    except Exception as error:  # whatever it is: a bug, a broken package, a folder in the way
        what = str(error) if isinstance(error, ManyheadError) else f"{type(error).__name__}: {error}"
        mend = f"training is not harmed; manyhead report {folder.path} writes it"
        runner.event(f"no report: {' '.join(what.split())}; {mend}")


def _write_dev_predictions(folder: RunFolder, parts: Parts, final: Evaluation) -> None:
    recipe, target = parts.recipe, folder.path / PREDICTIONS
    with writing(str(target)):
        target.mkdir(exist_ok=True)
        for name, data in scored_rows(recipe, parts.split("dev")).items():
            texts = texts_of(recipe, name, "dev", data)
            write_predictions(target / f"{name}.dev.csv", recipe.tasks[name], data, final.predictions[name], texts)
