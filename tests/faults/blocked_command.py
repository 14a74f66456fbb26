"""The command ``manyhead``, which hangs at the place that BLOCKED_AT names and says so on stderr."""

import os
import time
from typing import Any

from manyhead.cli.main import main
from manyhead.faults import injected


def hang(place: str, value: Any) -> Any:
    if place == os.environ["BLOCKED_AT"]:
        os.write(2, b"blocked\n")  # a print could still be going on when the signal comes, whose message then is lost
        while True:
            time.sleep(0.05)
    return value


if __name__ == "__main__":
    with injected(hang):
        main()
