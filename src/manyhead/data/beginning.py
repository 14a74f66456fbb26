"""What a guessed recipe begins with: the encoder, and the head that a checkpoint brings, as lines of YAML."""

import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Beginning:
    """``encoder`` is the value of that key, with a comment.

    ``head`` is the head that computes what the checkpoint's does, None where it has none; it gives ``outputs`` numbers,
    classes of the names ``labels`` unless there are none.
    """

    encoder: str = "{checkpoint: embedded, pooling: mean, max_tokens: 128}  # longer texts are cut"
    head: str | None = None
    outputs: int = 0
    labels: tuple[str, ...] = ()

    def head_of_words(self, words: Sequence[str]) -> list[str]:
        """The lines of the head of a task whose cells are ``words``."""
        if sorted(map(str.casefold, words)) == sorted(map(str.casefold, self.labels)):
            return self._taken("names are the same")
        return self._new("names differ" if self.labels else "names do not say which is which")

    def names_of_numbers(self, numbers: Sequence[int]) -> tuple[str, list[str]]:
        """The value of ``labels`` for cells that are whole ``numbers``, with a comment, and the lines of the head."""
        counted = list(numbers) == list(range(self.outputs))
        names = self.labels if counted and self.labels else [str(number) for number in numbers]
        labels = "{" + ", ".join(f"{n}: {json.dumps(name)}" for n, name in zip(numbers, names, strict=True)) + "}"
        if counted and self.labels:
            return f"{labels}  # the checkpoint's names, by number", self._taken("by number")
        head = self._taken("by number") if counted else self._new("other classes")
        return f"{labels}  # give each a name", head

    def head_of_score(self) -> list[str]:
        """The lines of the head of a regression."""
        return self._taken("its one output") if self.outputs == 1 else self._new("it gives no score")

    def _taken(self, why: str) -> list[str]:
        return [f"head: {self.head}", f"head_from: checkpoint  # {why}; new: first weights at random"]

    def _new(self, why: str) -> list[str]:
        return ["head: {kind: hidden}" + ("" if self.head is None else f"  # not the checkpoint's: {why}")]
