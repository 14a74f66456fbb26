"""The process of one side: ``python -m training_sides.worker SIDE``.

``{"work": FOLDER, "in_turn": bool}`` is answered with the memory of the libraries, before anything is read;
``{"block": N}`` with what the round took and the largest memory so far.
"""

import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from memory import peak, resident
from workers import serve

from training_sides import SIDES
from training_sides.examples import Block, load_work


def main() -> None:
    """Trains as it is asked to."""
    chosen = SIDES[sys.argv[1]]
    side = import_module(f"training_sides.{chosen.module}").side
    imported = resident()
    block: Block | None = None

    def answer(request: dict[str, Any]) -> dict[str, float]:
        nonlocal block
        if "work" in request:
            block = None
            block = side(load_work(Path(request["work"])), chosen.settings, in_turn=request["in_turn"])
            return {"imported_mib": imported}
        assert block is not None
        return {**asdict(block(request["block"])), "peak_mib": peak()}

    serve(answer)


if __name__ == "__main__":
    main()
