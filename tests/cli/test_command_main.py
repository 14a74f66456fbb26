"""The command as a whole: help, start-up, and how errors end it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import COMMAND, run

VERBS = (
    *("quickstart", "init", "train", "check", "evaluate", "predict", "export", "report", "serve", "compare", "study"),
    *("verdict", "affinity", "track", "recipes"),
)


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of shell with the real command as ``$manyhead``."""
    variables = os.environ | {"manyhead": str(COMMAND)} | environment
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=variables, check=False)


def test_help_lists_every_verb_within_80_columns() -> None:
    page = run("--help").stdout
    listed = page.partition("Commands:")[2].partition("Start here:")[0]
    assert tuple(line.split()[0] for line in listed.splitlines() if line.strip()) == VERBS
    assert max(map(len, page.splitlines())) <= 80
    assert "..." not in listed.replace("COMMAND [ARGS]...", "")


@pytest.mark.parametrize("verb", [(verb,) for verb in VERBS] + [("recipes", name) for name in ("ls", "show", "cp")])
def test_every_verb_has_examples_json_and_quiet_in_its_help(verb: tuple[str, ...]) -> None:
    page = run(*verb, "--help").stdout
    examples = page.partition("  Examples:\n")[2].splitlines()
    assert examples
    assert all(line.startswith("    ") for line in examples if line)
    assert any(f"manyhead {' '.join(verb)}" in line for line in examples)
    assert max(map(len, page.splitlines())) <= 80
    if verb != ("recipes",):
        assert "--json" in page
        assert "-q, --quiet" in page


def test_the_version_is_told() -> None:
    assert run("--version").stdout.startswith("manyhead 0.")


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("train", "x.yaml", "--nonsense"),
        ("train", "x.yaml", "--seed", "two"),
        ("predict", "run", "--nonsense"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_no_boxes(words: tuple[str, ...]) -> None:
    result = run(*words, code=2)
    assert "Usage: " in result.stderr
    assert "─" not in result.stderr
    assert result.stdout == ""


def test_verbs_without_words_show_their_help() -> None:
    for verb in ("train", "check", "evaluate", "predict", "export", "report", "compare", "study", "init"):
        assert "Examples:" in run(verb, code=2).output


def test_help_starts_about_as_quickly_as_what_it_is_made_of() -> None:
    """At its best of some tries each, taken in turn, so that a busy machine is busy for both."""
    best = {"ours": float("inf"), "theirs": float("inf")}
    programs = {"ours": [COMMAND, "--help"], "theirs": [sys.executable, "-c", "import typer, rich"]}
    for _ in range(4):
        for name, words in programs.items():
            began = time.perf_counter()
            subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
            best[name] = min(best[name], time.perf_counter() - began)
    assert best["ours"] < 5 * best["theirs"], best


def test_help_loads_nothing_that_it_does_not_need() -> None:
    program = (
        "import sys; from manyhead.cli.main import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit: print(sorted({'manyhead.recipe', 'numpy', 'yaml', 'torch'} & set(sys.modules)))"
    )
    for words in (["--help"], ["study", "--help"]):
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]", words


def test_recipe_errors_come_without_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from manyhead.cli.main import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit as end: print(end.code, sorted({'torch', 'transformers', 'scipy'} & set(sys.modules)))"
    )
    (tmp_path / "bad.yaml").write_text("manyhead: 1\nname: x\ntasks: {}\n")
    for words in (["train", "bad.yaml"], ["check", "bad.yaml"], ["train", "nothing"], ["evaluate", "nothing/there"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *words], capture_output=True, text=True, cwd=tmp_path, check=True
        )
        assert done.stdout.splitlines()[-1] in ("2 []", "4 []"), (words, done.stdout, done.stderr)


def test_a_reader_that_goes_away_is_no_trouble() -> None:
    done = shell('{ "$manyhead" recipes show template; echo $? >&2; } | { exec <&-; sleep 1; }')
    assert done.stderr == "141\n"


def test_a_full_disk_ends_with_74(tmp_path: Path) -> None:
    done = shell(f'ulimit -f 0; "$manyhead" recipes ls --json > {tmp_path}/file')
    assert done.returncode == 74
    assert done.stderr.startswith("the output could not be written")


def test_errors_leave_stdout_empty_under_json(tmp_path: Path) -> None:
    assert run("train", tmp_path / "none.yaml", "--json", code=2).stdout == ""
    assert run("recipes", "show", "nonsense", "--json", code=2).stdout == ""
