"""README.md of an ONNX export: what it holds, a program that reads it, and how it compares with the model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from manyhead.export import readers
from manyhead.export.check import Parity

_PROGRAM = Path(readers.__file__).parent / "onnx_model.py"

_TEXTS = {(1, 1): "a text", (2, 1): "a pair, as one sequence", (2, 2): "a pair, each text a sequence"}


def page_of(about: Mapping[str, Any], parity: Sequence[Parity] = (), warnings: Sequence[str] = ()) -> str:
    """The page of an export that ``about`` describes; without ``parity`` it says that nothing was compared."""
    tasks: Mapping[str, Mapping[str, Any]] = about["tasks"]
    name, facts = next(iter(tasks.items()))
    program = _PROGRAM.read_text(encoding="utf-8").split('"""\n', 1)[1].strip()
    parts = [
        f"# {about['model']} as ONNX ({about['precision']})",
        f"Written by {about['written_by']}. To run it: `pip install onnxruntime tokenizers numpy`.",
        _table(("task", "reads", "gives", "graph", "output"), [_row(task, each) for task, each in tasks.items()]),
        "## Reading it",
        f"```python\n{program}\n```",
        f"Then, where this folder is the current one:\n\n```python\n{_call(name, facts)}\n```",
        "## What is in the graph",
        _inputs(about),
        "## Compared with the model",
        _compared(parity),
        *(f"**{warning}**" for warning in warnings),
    ]
    return "\n\n".join(parts) + "\n"


def _call(task: str, facts: Mapping[str, Any]) -> str:
    """A few lines that predict with the program."""
    texts = '["A text.", "Another one."]' if facts["texts"] == 1 else '[("A text.", "Another one."), ("And", "so on.")]'
    shown = "row" if facts["kind"] == "regression" else f'dict(zip(model.tasks["{task}"]["labels"], row))'
    return f'model = Exported(".")\nfor row in model.run("{task}", {texts}):\n    print({shown})'


def _row(task: str, facts: Mapping[str, Any]) -> tuple[str, ...]:
    return task, _TEXTS[facts["texts"], facts["sequences"]], _gives(facts), facts["graph"], facts["output"]


def _gives(facts: Mapping[str, Any]) -> str:
    if facts["kind"] == "regression":
        return "a score" if facts["range"] is None else "a score, {:g} to {:g}".format(*facts["range"])
    return "probabilities of " + ", ".join(facts["labels"])


def _inputs(about: Mapping[str, Any]) -> str:
    lines = [
        "`input_ids`, `attention_mask` (1 on tokens, 0 on padding) and `token_type_ids` are int64 of batch x length, "
        f"both free, with at most {about['max_tokens']} tokens. `tokenizer.json` cuts and pads so. Padding on the "
        "right has no influence on what is found.",
        f"`{about['embedding']['output']}` is the pooled vector of each sequence, of width "
        f"{about['embedding']['width']}. Probabilities are calibrated as the model's are; `tasks.json` has the labels "
        "in their order, and the cells that stand for them in data.",
    ]
    if any(facts["sequences"] == 2 for facts in about["tasks"].values()):
        lines.append(
            "`pairs`, int64 of pairs x 2, says which rows of the batch make a pair for tasks that read each text as a "
            "sequence of its own: a text in many pairs is encoded once. Without such pairs it is empty (0 x 2)."
        )
    if about["precision"] == "int8":
        lines.append(
            "The encoder's matrices are int8, and what they multiply is rounded to 8 bits by its range in the whole "
            "batch: a text's answer depends a little on the texts beside it."
        )
    lines.append("Texts must be valid Unicode: lone surrogates, which JSON can carry, are refused by the tokenizer.")
    return "\n\n".join(lines)


def _compared(parity: Sequence[Parity]) -> str:
    if not parity:
        return "This export has not been compared with the model."
    rows = [
        (
            each.name,
            str(each.texts),
            f"{each.difference:.1e}",
            "-" if each.same_labels is None else f"{each.same_labels} of {each.texts}",
            *(("-",) * 3 if each.scores is None else (each.metric, *(f"{score:.4f}" for score in each.scores))),
        )
        for each in parity
    ]
    titles = ("task", "texts", "largest difference", "same labels", "dev metric", "model, fp32", "this export")
    return _table(titles, rows)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)
