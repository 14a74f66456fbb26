"""Running commands inside the test's process, as a shell would."""

import json
import sys
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner, Result

from manyhead.cli.main import app
from tiny import tiny_recipe

COMMAND = Path(sys.executable).with_name("manyhead")


def run(*words: object, stdin: str | bytes | None = None, code: int = 0) -> Result:
    """Runs ``manyhead WORDS...`` and wants the exit code ``code``; nothing may escape as a traceback."""
    result = CliRunner().invoke(app, [str(word) for word in words], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    return result


def document(*words: object, stdin: str | bytes | None = None, code: int = 0) -> dict[str, Any]:
    """What a command prints with ``--json``: all of stdout is one document."""
    return json.loads(run(*words, "--json", stdin=stdin, code=code).stdout)


def write_recipe(path: Path, encoder: Path | str, **changes: Any) -> Path:
    """The tiny recipe as a file; ``changes`` replace keys of its only stage."""
    path.write_text(yaml.safe_dump(tiny_recipe(Path(encoder), **changes), sort_keys=False), encoding="utf-8")
    return path
