"""The four studies' tables: a row of ours for each of theirs, with its figures, and the settings they name."""

import re
from pathlib import Path
from typing import Any

import pytest

from manyhead.recipe.load import load_recipe
from manyhead.recipe.names import shipped_studies
from manyhead.recipe.schema import Recipe
from manyhead.recipe.shipped import shipped_recipes
from manyhead.studies.load import load_study
from manyhead.studies.plan import plan_study
from manyhead.studies.planner import Options, Planner
from recipe_data import write_all

RECIPES = {recipe.name: recipe for recipe in shipped_recipes()}


def figures(*values: float | None) -> dict[str, float]:
    """SST, para, STS, and the mean where one is given."""
    names = ("sst", "para", "sts", "overall")
    return {name: value for name, value in zip(names, values, strict=False) if value is not None}


def fourth(*values: float | None) -> dict[str, float]:
    """S4's: SST, para, STS, and the mean with the correlation as it is, printed in per cent."""
    mean = {"overall_raw": round(values[3] / 100, 6)} if len(values) > 3 and values[3] is not None else {}
    return figures(*values[:3]) | mean


TABLES: dict[str, list[tuple[str, dict[str, float]]]] = {
    "s1": [
        ("s1/siamese-mnr", figures(0.480, 0.666, 0.740)),
        ("single-task models", figures(0.510, 0.857, 0.858)),
        ("s1/single-para-full", figures(None, 0.870)),
        ("s1/parallel", figures(0.502, 0.850, 0.869)),
        ("s1/base", figures(0.513, 0.850, 0.875)),
        ("s1/hidden", figures(0.498, 0.839, 0.873)),
        ("s1/pal-top", figures(0.488, 0.841, 0.869)),
        ("s1/lr-halved", figures(0.517, 0.857, 0.867)),
        ("s1/hidden-lr-halved", figures(0.520, 0.855, 0.865)),
        ("s1/final", figures(0.520, 0.885, 0.867)),
        ("s1/sandwich-norm", {}),
    ],
    "s2": [
        ("linear probes", figures(0.409, 0.478, 0.453, 0.538)),
        ("single-task models", figures(0.513, 0.890, 0.774, 0.764)),
        ("s2/base", figures(0.462, 0.877, 0.774, 0.742)),
        ("s2/siamese", figures(0.462, 0.877, 0.774, 0.742)),
        ("s2/sst-dropout dropout=0", figures(0.520)),
        ("s2/sst-dropout dropout=0.1", figures(0.533)),
        ("s2/sst-dropout dropout=0.3", figures(0.513)),
        ("s2/sst-dropout dropout=0.5", figures(0.519)),
        ("s2/sst-dropout dropout=0.8", figures(0.513)),
        ("s2/sst-dropout dropout=0.9", figures(0.517)),
        ("s2/sst-rate lr=1e-05", figures(0.520)),
        ("s2/sst-rate lr=5e-06", figures(0.520)),
        ("s2/sst-rate lr=1e-06", figures(0.516)),
        ("s2/sst-smart dropout=0.1", {}),
        ("s2/sst-smart dropout=0.3", figures(0.520)),
        ("s2/sst-l1", {}),
        ("s2/adabelief", {}),
        ("s2/adabelief-clip", figures(None, None, 0.761)),
        ("s2/adabelief-clip-enhanced", figures(None, 0.88)),
        ("s2/gls", figures(0.522, None, 0.766)),
        ("s2/fls", {}),
        ("s2/round-robin", figures(0.507)),
        ("s2/cfimdb", {}),
        ("s2/sst-cfimdb", {}),
        ("s2/fls-round-robin", {}),
        ("s2/distillation", {}),
    ],
    "s3": [
        ("s3/siamese", figures(0.450, 0.805, 0.374, 0.647)),
        ("s3/cross-encoding", figures(0.453, 0.889, 0.881, 0.761)),
        ("s3/base", figures(0.496, 0.898, 0.878, 0.778)),
        ("s3/surgery", figures(0.495, 0.894, 0.883, 0.777)),
        ("s3/surgery-always", figures(0.495, 0.894, 0.883, 0.777)),
        ("s3/smart", figures(0.500, 0.900, 0.883, 0.781)),
        ("s3/contrastive", figures(0.509, 0.900, 0.883, 0.783)),
        ("s3/clipping", figures(0.518, 0.901, 0.883, 0.787)),
        ("s3/clipping-contrastive", figures(0.521, 0.901, 0.873, 0.786)),
        ("s3/specialised", figures(0.515, 0.904, 0.877, 0.786)),
        ("s3/low-rank", figures(0.499, 0.886, 0.846, 0.769)),
        ("s3/rates lr=0.001", figures(0.253, 0.631, 0.040)),
        ("s3/rates lr=0.0001", figures(0.402, 0.832, 0.822)),
        ("s3/rates lr=5e-05", figures(0.458, 0.873, 0.868)),
        ("s3/rates lr=1e-05", figures(0.518, 0.901, 0.883)),
        ("s3/rates lr=1e-06", figures(0.504, 0.888, 0.878)),
        ("s3/dropouts dropout=0.1", figures(0.505, 0.901, 0.882)),
        ("s3/dropouts dropout=0.2", figures(0.517, 0.901, 0.883)),
        ("s3/dropouts dropout=0.3", figures(0.518, 0.901, 0.883)),
    ],
    "s4": [
        ("V1, first token", fourth(0.454, 0.456, 0.099)),
        ("V2, mean", fourth(None, 0.666, 0.136)),
        ("V3a, mean", fourth(0.462, 0.701, 0.402)),
        ("V3a, mean and CNN", fourth(None, 0.679, 0.369)),
        ("V3a, first token", fourth(None, 0.668, 0.389)),
        ("V3b, mean", fourth(None, 0.375, 0.123)),
        ("s4/single-sst", fourth(0.519, 0.375, 0.433, 44.23)),
        ("s4/single-para", fourth(0.208, 0.717, 0.307, 41.1)),
        ("s4/single-sts", fourth(0.376, 0.255, 0.439, 35.67)),
        ("s4/base", fourth(0.326, 0.587, 0.527, 48.0)),
        ("s4/surgery-v3b", fourth(0.348, 0.375, 0.102, 27.5)),
        ("s4/surgery", fourth(0.463, 0.601, 0.630, 56.47)),
        ("s4/polish-sst", fourth(0.499, 0.378, 0.457, 44.47)),
        ("s4/polish-para", fourth(0.463, 0.656, 0.589, 56.93)),
        ("s4/polish-sts", fourth(0.455, 0.507, 0.601, 52.12)),
        ("s4/pair", fourth(0.223, 0.696, 0.652, 52.36)),
        ("s4/pair-scaled", fourth(0.238, 0.763, 0.634, 54.50)),
        ("s4/pair-ce", fourth(0.214, 0.753, 0.396, 45.43)),
        ("s4/pair-ce-scaled", fourth(0.210, 0.766, 0.433, 46.96)),
    ],
}
"""The studies' tables of dev scores, in the papers' order where one table holds them."""

TEST_SCORES = {
    "s1/final": figures(0.518, 0.886, 0.874, 0.780),
    "s3/clipping": figures(0.523, 0.901, 0.879, 0.788),
    "s4/surgery": fourth(0.5235, 0.7637, 0.6108, 63.27),
}

SETTINGS: dict[str, tuple[int, float, int, float | None]] = {
    "s1/base": (10, 1e-5, 8, 0.3),
    "s1/final": (10, 1e-5, 8, 0.3),
    "s2/base": (10, 1e-5, 8, 0.3),
    "s2/probe-sst": (10, 1e-3, 8, 0.3),
    "s2/round-robin": (10, 1e-5, 32, None),
    "s3/base": (10, 1e-5, 8, 0.3),
    "s3/clipping": (10, 1e-5, 8, 0.3),
    "s4/v3a-para": (3, 1e-5, 16, 0.7),
    "s4/v1-sts": (3, 1e-5, 16, 0.7),
    "s4/v3a-cnn-para": (3, 5e-6, 8, 0.7),
    "s4/v3a-cls-sts": (3, 5e-6, 8, 0.7),
    "s4/single-sts": (15, 5e-6, 32, 0.7),
    "s4/surgery": (15, 8e-6, 32, 0.65),
    "s4/pair": (10, 2e-6, 16, 0.7),
    "s4/pair-ce-scaled": (10, 2e-6, 16, 0.7),
}
"""Epochs, rate, examples of a task in an update, and dropout before the heads (None: not the same in all)."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("data"))


def planned(name: str, data: Path) -> list[tuple[str, dict[str, float]]]:
    study = load_study(name)
    planner = Planner(Options(study.study.budget("full"), 1, data_dir=data))
    return [(row.name, dict(row.published)) for row in plan_study(planner, study).rows]


def resolved(name: str) -> Recipe:
    return load_recipe(name).recipe


@pytest.mark.parametrize("name", TABLES)
def test_a_study_has_the_rows_and_figures_of_the_papers(name: str, data: Path) -> None:
    assert planned(name, data) == TABLES[name]


@pytest.mark.parametrize("name", sorted(set(shipped_studies()) - set(TABLES)))
def test_the_other_studies_have_rows_of_their_own(name: str, data: Path) -> None:
    rows = [row for row, _ in planned(name, data)]
    assert len(rows) == len(set(rows)) >= 3
    baseline = load_study(name).study.baseline
    assert baseline is None or baseline in rows


def test_every_recipe_of_the_studies_is_in_a_study() -> None:
    studies = [load_study(name).study for name in shipped_studies()]
    named = {recipe for study in studies for row in study.rows for recipe in (row.recipe, *(row.row or {}).values())}
    apart = {name for name in RECIPES if "/" in name} - named
    assert apart == {"balancing/cagrad", "s4/constants", "s4/constants-sum"}  # a solver to install; searches


@pytest.mark.parametrize("name", TEST_SCORES)
def test_scores_on_test_are_in_the_header(name: str) -> None:
    lines = RECIPES[name].path.read_text("utf-8").splitlines()
    line = next(line for line in lines if line.startswith("# published_test: "))
    assert line == f"# published_test: {printed(TEST_SCORES[name])}"


def printed(scores: dict[str, float]) -> str:
    return "{" + ", ".join(f"{name}: {shown(value)}" for name, value in scores.items()) + "}"


def shown(value: float) -> str:
    return f"{value:.4f}".removeprefix("0").removesuffix("0").ljust(4, "0")


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_those_of_the_papers(name: str) -> None:
    recipe = resolved(name)
    stage = recipe.stages[0]
    epochs, lr, batch_size, dropout = SETTINGS[name]
    assert (stage.epochs, stage.optimizer.model_dump()["lr"], stage.batch_size) == (epochs, lr, batch_size)
    rates = {task.head.model_dump()["dropout"] for task in recipe.tasks.values()}
    assert dropout is None or rates == {dropout}
    assert recipe.encoder.dropout == 0.1


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.study])
def test_a_studys_recipe_is_as_its_paper_says(name: str) -> None:
    recipe, study = resolved(name), RECIPES[name].study
    assert name.startswith(f"{study}/")
    assert recipe.encoder.checkpoint == "google-bert/bert-base-uncased"
    assert recipe.encoder.segment_ids == (study in ("s2", "s4"))
    for stage in recipe.stages:
        optimizer: dict[str, Any] = stage.optimizer.model_dump()
        assert (stage.length_window, optimizer["weight_decay"], optimizer["head_lr"]) == (0, 0.0, None)
        if optimizer["kind"] == "adamw":
            assert (optimizer["eps"], study != "s3") == (1e-6, True)
        elif optimizer["kind"] == "adam":
            assert (optimizer["eps"], optimizer["betas"], study) == (1e-8, (0.9, 0.99), "s3")
        else:
            assert (optimizer["kind"], optimizer["eps"], study) == ("adabelief", 1e-16, "s2")
    assert (recipe.stages[-1].clip_norm is not None) == ("clip" in name or name in CLIPPED)


CLIPPED = {
    "s3/specialised", "s3/low-rank", "s3/low-rank-interleaved", "s3/rates", "s3/dropouts", "s3/dropout-everywhere",
    "s3/balanced",
}  # fmt: skip
"""Built on S3's clipping, and not named for it."""


def test_the_best_single_model_is_s3s_clipping() -> None:
    assert resolved("s3/clipping").with_changes(name="") == resolved("cs224n").with_changes(name="")


def test_readings_differ_from_their_row_in_one_thing() -> None:
    for name, row, keys in READINGS:
        one, other = (flat(resolved(each).model_dump()) for each in (name, row))
        changed = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)} - {"name"}
        assert {key.rpartition(".")[0] if key.endswith(".kind") else key for key in changed} == keys, name


READINGS = [
    ("s1/parallel", "s1/base", {"stages.0.schedule", "stages.0.schedule.until"}),
    ("s1/lr-halved", "s1/base", {"stages.0.rate"}),
    ("s1/sandwich-norm", "s1/base", {"encoder.sandwich_norm"}),
    ("s1/final", "s1/hidden-lr-halved", {
        "stages.0.subsample.para", "tasks.para.head", "tasks.para.head.activation", "tasks.para.head.width",
        "tasks.sts.head", "tasks.sts.head.activation", "tasks.sts.head.width",
    }),
    ("s3/surgery-always", "s3/surgery", {"stages.0.balancing.always"}),
    ("s3/clipping", "s3/base", {"stages.0.clip_norm"}),
    ("s3/clipping-always", "s3/clipping", {"stages.0.clip_always"}),
    ("s3/low-rank-interleaved", "s3/low-rank", {"stages.0.schedule"}),
    ("s4/surgery-v3b", "s4/surgery", {"tasks.para.head.alpha", "tasks.sts.head.alpha"}),
    ("s4/pair-scaled", "s4/pair", {"stages.0.balancing.weights.para", "stages.0.balancing.weights.sts"}),
    ("s4/pair-ce", "s4/pair", {
        "tasks.para.auxiliary.0", "tasks.para.auxiliary.0.margin", "tasks.para.auxiliary.0.weight",
        "tasks.para.auxiliary.1", "tasks.para.auxiliary.1.margin", "tasks.para.auxiliary.1.weight",
    }),
    ("s4/attention", "s4/surgery", {"encoder.pooling"}),
]  # fmt: skip
"""A recipe, the one it varies, and the keys in which they differ."""


def flat(value: object, key: str = "") -> dict[str, object]:
    """Every value below ``value``, by its dotted key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else None
    if items is None:
        return {key: value}
    return {inner: each for name, item in items for inner, each in flat(item, f"{key}.{name}".lstrip(".")).items()}


def test_smarts_measured_cost_is_in_its_headers() -> None:
    smart = {name for name in RECIPES if any(each.kind == "smart" for each in resolved(name).stages[0].regularisers)}
    assert smart == {
        "s2/sst-smart", "s3/smart", "regularisers/smart", "regularisers/smart-bregman", "regularisers/smart-detached",
    }  # fmt: skip
    for name in smart:
        assert re.search(r"^# Cost: \d\.\d times the plain step", RECIPES[name].path.read_text("utf-8"), re.MULTILINE)
