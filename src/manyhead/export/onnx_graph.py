"""ONNX graphs of networks: written by torch, freed of what only debuggers read, and quantised by onnxruntime."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from manyhead.export.onnx_network import EMBEDDING, INPUTS, INSTEAD, PAIRS, PaddedNetwork
from manyhead.export.source import NoCounterpartError

OPSET = 20
LARGEST_BYTES = 2**31 - 2**20
"""What a file of an ONNX graph can hold: 2 GB, of which a little is for the graph itself."""

_ENCODER, _REST = "encoder", "rest"


def write_graph(network: PaddedNetwork, path: Path) -> None:
    """Writes ``network`` as one ONNX file. The same network gives the same bytes.

    Raises `NoCounterpartError` where torch cannot write it, or where it is larger than such a file can be.
    """
    model_type = network.encoder.model.config.model_type
    size = 4 * sum(parameter.numel() for parameter in network.encoder.parameters())
    if size > LARGEST_BYTES:
        reason = f"its {size:,} bytes of weights are more than the {LARGEST_BYTES:,} that one ONNX file holds"
        raise NoCounterpartError(f"encoder.checkpoint: {model_type}", reason, INSTEAD)
    names = [*INPUTS, *([PAIRS] if network.takes_pairs else [])]
    with network.exporting(), _quietly():
        try:
            program: Any = torch.onnx.export(
                network,
                tuple(_examples()[name] for name in names),
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                output_names=[EMBEDDING, *network.outputs.values()],
                dynamic_shapes={name: {0: PAIRS} if name == PAIRS else {0: "batch", 1: "length"} for name in names},
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # the exporter raises its own, each in its own way
            first = (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0]
            reason = f"torch cannot write it as an ONNX graph ({first})"
            raise NoCounterpartError(f"encoder.checkpoint: {model_type}", reason, INSTEAD) from error
    _tidy(program.model)
    program.save(str(path), external_data=False)


def quantise(source: Path, path: Path) -> None:
    """Writes the graph at ``source`` with the encoder's matrices in 8 bits, and what they are multiplied by as well.

    Heads, poolings and projections stay fp32: they are small. Each column of a matrix has its own scale. Of the 8 bits
    7 are used: processors without VNNI add products of 8 bits in 16, where they would not fit.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(str(source))
    graph.graph.ClearField("value_info")  # onnxruntime turns matrices of heads round, and what is noted of them not
    rounded = [node.name for node in graph.graph.node if node.op_type == "MatMul" and node.name.startswith(_ENCODER)]
    if not rounded:  # embeddings are pooled; an empty list would mean all matrices
        onnx.save(graph, str(path))
        return
    with _quietly():
        quantize_dynamic(
            graph,
            str(path),
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=rounded,
            extra_options={"MatMulConstBOnly": True},
        )


def _examples() -> dict[str, torch.Tensor]:
    """Inputs to follow the network with; their sizes are alike nowhere, so that all stay free."""
    ids = torch.tensor([[5, 6, 7, 5, 6], [6, 7, 8, 9, 0], [6, 7, 8, 0, 0]])
    return {
        "input_ids": ids,
        "attention_mask": (ids > 0).long(),
        "token_type_ids": torch.zeros_like(ids),
        PAIRS: torch.tensor([[0, 1], [1, 2]]),
    }


def _tidy(model: Any) -> None:
    """Leaves out where the exporter's lines came from, and names things by their place in the graph.

    A task may have any name, so nothing inside the graph has one that a task could have.
    """
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    graph = model.graph
    outputs = set(graph.outputs)
    for number, node in enumerate(graph):
        scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes", "")
        part = _REST if any(f"'{name}" in scopes for name in ("model.heads", "pooling", "projections")) else _ENCODER
        node.name = f"{part}/{number}/{node.op_type}"
        for place, value in enumerate(node.outputs):
            if value not in outputs:
                value.name = f"/{number}/{place}"
    for number, value in enumerate(list(graph.initializers.values())):
        if "." not in value.name:
            value.name = f"/constant/{number}"
    ClearMetadataAndDocStringPass()(model)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keeps the exporters' warnings and hints, which are for their own developers, off the user's screen."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
