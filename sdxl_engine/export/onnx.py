"""The five networks as ONNX files, in the benchmark's folders, with a dynamic batch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING

import torch
from torch import nn

from sdxl_engine.export.quantised_layers import onnx_translation
from sdxl_engine.models.spec import NETWORKS, ONNX_FOLDERS, NetworkSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

OPSET = 18
EXAMPLE_IMAGES = 2
"""Images in the traced batch; not 1, which the exporter would take for a constant."""

MOST_ROWS = 63
"""Upper end of the traced batch axis. diffusers' upsampling copies its input to contiguous memory from 64 rows on:
another graph for the exporter, which would fail, and try slower ways one after the other. The copy computes
nothing, so the exported graph holds for any number of rows."""


def export_networks(networks: Mapping[str, nn.Module], interfaces: Mapping[str, NetworkSpec], folder: Path) -> None:
    """Write `<folder>/<network's folder>/model.onnx` for each network, with torch's dynamo exporter.

    Args:
        networks: From `load_networks`, in the dtypes of their interfaces.
        interfaces: Names, shapes and dtypes of the tensors of each.
        folder: Where to write.
    """
    for name in NETWORKS:
        target = folder / ONNX_FOLDERS[name] / "model.onnx"
        target.parent.mkdir(parents=True)
        _export(networks[name], interfaces[name], target)


def _export(network: nn.Module, interface: NetworkSpec, target: Path) -> None:
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
    with _quiet():
        program = torch.onnx.export(
            network,
            tuple(example),
            dynamo=True,
            opset_version=OPSET,
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
    program.save(target)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its stages and warns about its own internals; neither helps a user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
