"""Exports: what other tools load, made of a trained model, read back without manyhead and compared.

Free of torch: the table of formats. A format is ``write(source, folder) -> Export``: it writes into an empty folder and
says what is in it to be read back. One that has no counterpart of a part of the model raises `NoCounterpartError`.
"""

FORMATS: dict[str, str] = {
    "onnx": "manyhead.export.onnx:write",
    "onnx-int8": "manyhead.export.onnx:write_int8",
    "hub": "manyhead.export.hub_folder:write",
    "transformers": "manyhead.export.sequence_classification:write",
    "sentence-transformers": "manyhead.export.sentence_transformer:write",
    "peft": "manyhead.export.peft_adapters:write",
}
"""Name to ``module:function``."""

ONNX_INSTEAD = "--to onnx exports any head and pooling"
"""What to do about a part that a format has no counterpart of."""
