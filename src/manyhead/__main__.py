"""``python -m manyhead``: the same as the command ``manyhead``."""

from manyhead.cli.main import main

main()
