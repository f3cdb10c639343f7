"""A network as an ONNX file with a dynamic batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from sdxl_engine.export.quantised_layers import onnx_translation
from sdxl_engine.export.quiet import quiet

if TYPE_CHECKING:
    from pathlib import Path

    from sdxl_engine.models.spec import NetworkSpec

OPSET = 18
EXAMPLE_IMAGES = 2
"""Images in the traced batch; not 1, which the exporter would take for a constant."""

MOST_ROWS = 63
"""Upper end of the traced batch axis. diffusers' upsampling copies its input to contiguous memory from 64 rows on:
another graph for the exporter, which would fail, and try slower ways one after the other. The copy computes
nothing, so the exported graph holds for any number of rows."""

INLINE_BYTES = 256 << 20
"""Most weights inside an ONNX file. Protobuf allows 2 GB, and holds all of it twice in memory to write it; a file of
weights beside it is written tensor by tensor."""


def export_network(network: nn.Module, interface: NetworkSpec, target: Path, opset: int = OPSET) -> None:
    """Write one network with torch's dynamo exporter, which traces shapes and never runs it, and empty its weights.

    Args:
        network: From `load_network`, in the dtypes of its interface.
        interface: Names, shapes and dtypes of its tensors.
        target: The `.onnx` file; weights of more than `INLINE_BYTES` lie beside it in `<name>.onnx.data`.
        opset: Of ONNX's own operators.
    """
    target.parent.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    rows = interface.rows(EXAMPLE_IMAGES)
    example = [
        torch.ones(spec.at(rows), dtype=torch.int32)
        if spec.dtype == "int32"
        else torch.randn(spec.at(rows), generator=generator).to(getattr(torch, spec.dtype))
        for spec in interface.inputs.values()
    ]
    batch = torch.export.Dim("batch", min=1, max=MOST_ROWS)
    shapes = tuple({0: batch} if spec.batched else {} for spec in interface.inputs.values())
    with quiet("torch.onnx"):
        program = torch.onnx.export(
            network,
            tuple(example),
            dynamo=True,
            opset_version=opset,
            input_names=list(interface.inputs),
            output_names=list(interface.outputs),
            dynamic_shapes=shapes,
            custom_translation_table=onnx_translation(),
        )
    assert program is not None
    # The exporter notes where in the source each node comes from, with this machine's paths: a model exported elsewhere
    # would be another file, and a plan built from it stale.
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
    weights = [value.const_value for value in program.model.graph.initializers.values()]
    used = sum(weight.nbytes for weight in weights if weight is not None)
    program.save(target, external_data=used > INLINE_BYTES)
    # onnxscript's rewriter remembers the last graph that it saw: its weights, which may be views of the network's, and
    # parameters of the network among its former inputs.
    for value in program.model.graph.initializers.values():
        value.const_value = None
    for parameter in network.parameters():
        parameter.data = torch.empty(0)
