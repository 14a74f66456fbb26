"""The command ``manyhead``, which hangs at the place that BLOCKED_AT names and says so on stderr."""

import os
import sys
import time
from typing import Any

from manyhead.cli.main import main
from manyhead.faults import injected


def hang(place: str, value: Any) -> Any:
    if place == os.environ["BLOCKED_AT"]:
        print("blocked", file=sys.stderr, flush=True)
        while True:
            time.sleep(0.05)
    return value


if __name__ == "__main__":
    with injected(hang):
        main()
