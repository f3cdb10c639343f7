"""Print the figures of sdxl_engine/systems/estimate.py: parameters and activations of the full-size networks.

    python docs/measure_memory.py                  counts them without computing anything; no GPU, about a minute
    python docs/measure_memory.py --device cuda    runs the networks on a GPU and puts PyTorch's own peaks beside them

The weights are random: neither figure depends on them.
"""

from __future__ import annotations

import argparse
import weakref
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from sdxl_engine.models.full_size import CONFIGS, SPEC, new_part
from sdxl_engine.models.load import Decoder, TextEncoder
from sdxl_engine.models.unet_split import DeepUnet, ShallowUnet
from sdxl_engine.systems import estimate

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

MIB = estimate.MIB
BATCHES = (1, 2, 8)


def part(name: str) -> Any:
    """A network of SDXL base 1.0 with random weights."""
    return new_part(name, CONFIGS[name])


def full_size() -> dict[str, Callable[[], nn.Module]]:
    """What makes each of the five networks."""
    return {
        "clip1": lambda: TextEncoder(part("text_encoder")),
        "clip2": lambda: TextEncoder(part("text_encoder_2")),
        "unet": lambda: DeepUnet(part("unet")),
        "shallow_unet": lambda: ShallowUnet(part("unet")),
        "vae": lambda: Decoder(part("vae")),
    }


def used_parameters(network: nn.Module) -> int:
    """Of the parts that the network runs: the shallow UNet holds all of the UNet and runs some of it."""
    if not isinstance(network, ShallowUnet):
        return sum(parameter.numel() for parameter in network.parameters())
    unet = network.unet
    parts = (
        unet.conv_in,
        unet.time_embedding,
        unet.add_embedding,
        unet.up_blocks[-1],
        unet.conv_norm_out,
        unet.conv_out,
    )
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


class Live(TorchDispatchMode):
    """Counts the bytes of the tensors that operations made and that are still alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, operation: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count what it made."""
        made = operation(*args, **(kwargs or {}))
        for tensor in tree_iter(made):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self._seen:
                storage = tensor.untyped_storage()
                self._seen.add(storage)
                self.bytes += storage.nbytes()
                self.peak = max(self.peak, self.bytes)
                weakref.finalize(storage, self._gone, storage.nbytes())
        return made

    def _gone(self, count: int) -> None:
        self.bytes -= count


def inputs(network: str, images: int, device: str) -> list[Tensor]:
    """Zeros of the right shapes."""
    interface = SPEC.networks[network]
    rows = interface.rows(images)
    kinds = {"float32": torch.get_default_dtype(), "int32": torch.int32}
    return [torch.zeros(spec.at(rows), dtype=kinds[spec.dtype], device=device) for spec in interface.inputs.values()]


def peak(network: nn.Module, values: list[Tensor], device: str) -> int:
    """Most bytes alive while the network runs, beyond its inputs and weights."""
    with torch.inference_mode():
        if device == "cpu":
            with Live() as live:
                network(*values)
            return live.peak
        network(*values)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        network(*values)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before


def buffers() -> int:
    """Bytes of the pipeline's buffers for one image, at four bytes a value: `Pipeline` makes each once."""
    interfaces, total = SPEC.networks, 0
    shared = {"unet": ("inputs", "outputs"), "vae": ("inputs", "outputs")}
    parts = {"clip1": ("inputs", "outputs"), "clip2": ("inputs", "outputs"), **shared}
    for network, sides in parts.items():
        rows = interfaces[network].rows(1)
        for side in sides:
            for spec in getattr(interfaces[network], side).values():
                total += 4 * torch.Size(spec.at(rows)).numel()
    return total


def main() -> None:
    """Print a table for fp16 and one for fp32."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    device = options.parse_args().device
    print(f"buffers per image: {buffers() / MIB:.1f} MiB (estimate: {estimate.BUFFERS / MIB:.0f})")
    for dtype in (torch.float16, torch.float32):
        torch.set_default_dtype(dtype)
        for name, make in full_size().items():
            with FakeTensorMode() if device == "cpu" else nullcontext(), torch.device(device):
                network = make().eval()
                peaks = [peak(network, inputs(name, images, device), device) / MIB for images in BATCHES]
                estimated = estimate.ACTIVATIONS[name] * dtype.itemsize / 2
                print(
                    f"{str(dtype).removeprefix('torch.')} {name}: {used_parameters(network)} parameters, "
                    f"MiB at batch {BATCHES}: {', '.join(f'{each:.2f}' for each in peaks)} "
                    f"(estimate: {', '.join(f'{estimated * images:.2f}' for images in BATCHES)})"
                )
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        context = total - free - torch.cuda.memory_reserved()
        print(f"context and libraries: {context / MIB:.0f} MiB (allowance: {estimate.CONTEXT / MIB:.0f})")


if __name__ == "__main__":
    main()
