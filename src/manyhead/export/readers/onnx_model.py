"""Reads what manyhead exported as ONNX, by onnxruntime, tokenizers and numpy alone: copy it into your own program."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


class Exported:
    """The model in ``folder``; ``threads`` 0 means all cores."""

    def __init__(self, folder, threads=0):
        self.tasks = json.loads(Path(folder, "tasks.json").read_text(encoding="utf-8"))["tasks"]
        self.tokenizer = Tokenizer.from_file(str(Path(folder, "tokenizer.json")))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        files = {task["graph"] for task in self.tasks.values()}
        self.graphs = {file: onnxruntime.InferenceSession(str(Path(folder, file)), options) for file in files}

    def run(self, task, examples, batch=32):
        """Of each example, a text or a pair as the task reads, the probability of each label, or the score."""
        about, found = self.tasks[task], [None] * len(examples)
        by_length = sorted(range(len(examples)), key=lambda row: -len("".join(examples[row])))
        for start in range(0, len(examples), batch):
            rows = by_length[start : start + batch]
            outputs = self._outputs(about, [examples[row] for row in rows])
            for row, output in zip(rows, outputs, strict=True):
                found[row] = output
        return np.array(found)

    def _outputs(self, about, examples):
        apart = about["sequences"] == 2  # both texts of a pair are read alone: rows 0 and 1 are the first pair
        sequences = [text for pair in examples for text in pair] if apart else examples
        tokens = self.tokenizer.encode_batch(sequences)  # cut to max_tokens, padded to the longest
        inputs = {
            "input_ids": [each.ids for each in tokens],
            "attention_mask": [each.attention_mask for each in tokens],
            "token_type_ids": [each.type_ids for each in tokens],
        }
        feeds = {name: np.array(rows, dtype=np.int64) for name, rows in inputs.items()}
        if about["takes_pairs"]:
            feeds["pairs"] = np.arange(len(sequences) if apart else 0).reshape(-1, 2)
        return np.asarray(self.graphs[about["graph"]].run([about["output"]], feeds)[0])
