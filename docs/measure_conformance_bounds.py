"""Print the tables of docs/conformance.md. Run: python docs/measure_conformance_bounds.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pytest_sdxl.conformance.cases import VALUES, usual
from pytest_sdxl.conformance.figures import distance
from pytest_sdxl.conformance.inputs import Inputs
from pytest_sdxl.conformance.reference import reference
from pytest_sdxl.conformance.running import run
from sdxl_engine.engines import EngineRequest
from sdxl_engine.engines.registry import create_engine, resolve_engine
from sdxl_engine.models.source import SHAPES, resolve_model
from sdxl_engine.models.spec import read_spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from sdxl_engine.engines import Engine

    Rounding = Callable[[Tensor], Tensor]

BUILD = Path(__file__).parents[1] / "build"
MODEL = resolve_model(SHAPES, BUILD)
REFERENCE = reference(MODEL, "cpu", BUILD / "engines")
INPUTS = Inputs(MODEL, REFERENCE)


def engine(name: str, precision: str = "fp32") -> Engine:
    """One of the project's, for `shapes` on the CPU."""
    spec = read_spec(MODEL.checkpoint)
    request = EngineRequest(checkpoint=MODEL.checkpoint, spec=spec, cache=BUILD / "engines", precision=precision)
    return create_engine(resolve_engine(name), request)


def rounding(activations: Rounding | None, weights: Rounding, outputs: Rounding | None = None) -> Engine:
    """Engine `torch` in float32 whose linear and convolutional layers round what they multiply."""
    made, seen = engine("torch"), set()
    for network in made._modules.values():
        for layer in network.modules():
            if not isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)) or id(layer) in seen:
                continue
            seen.add(id(layer))  # both UNets share theirs
            layer.weight.data = weights(layer.weight.data)
            if activations is not None:
                layer.register_forward_pre_hook(lambda _, given: (activations(given[0]), *given[1:]))
            if outputs is not None:
                layer.register_forward_hook(lambda *call: outputs(call[-1]))
    return made


class Autocast:
    """Engine `torch` in float32 under torch's autocast to bfloat16."""

    def __init__(self) -> None:
        self._engine = engine("torch")
        self.networks, self.device = self._engine.networks, self._engine.device

    def bind(self, network: str, buffers: dict[str, Tensor]) -> Callable[[], None]:
        """See `Engine.bind`."""
        call = self._engine.bind(network, buffers)

        def run() -> None:
            with torch.autocast("cpu", torch.bfloat16):
                call()

        return run


def bits(mantissa: int) -> Rounding:
    """To so many bits of mantissa, the leading one included."""

    def rounded(values: Tensor) -> Tensor:
        fraction, exponent = torch.frexp(values)
        return torch.ldexp((fraction * 2**mantissa).round() / 2**mantissa, exponent)

    return rounded


def scaled(values: Tensor, largest: float, store: Rounding) -> Tensor:
    """Stored with one scale for each output channel."""
    scale = values.abs().flatten(1).amax(1).clamp_min(1e-12).reshape(-1, *[1] * (values.dim() - 1)) / largest
    return store(values / scale) * scale


def fp8(values: Tensor) -> Tensor:
    """Weights in float8, e4m3."""
    return scaled(values, 448, lambda some: some.to(torch.float8_e4m3fn).float())


def int8(values: Tensor) -> Tensor:
    """Weights in eight bits."""
    return scaled(values, 127, torch.round)


def half(values: Tensor) -> Tensor:
    """To float16 and back."""
    return values.half().float()


def floors() -> None:
    """What rounding to each precision does to each output: relative errors."""
    print("| network, output | fp32 | fp16 | bf16 |\n|---|---|---|---|")
    found: dict[str, dict[str, list[float]]] = {}
    for case in VALUES:
        given = INPUTS.of(case)
        for precision in ("fp32", "fp16", "bf16"):
            for name, floor in REFERENCE.floor(case.network, given, precision).items():
                found.setdefault(f"{case.network}, `{name}`", {}).setdefault(precision, []).append(floor.relative)
    for name, by in found.items():
        print(f"| {name} | {' | '.join(span(values, '.1e') for values in by.values())} |", flush=True)


def span(values: list[float], form: str) -> str:
    """The least and the most."""
    low, high = (format(value, form) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def row(precision: str, what: str, made: Engine) -> None:
    """How many floors an engine is off, over all outputs; and the worst output of each network alone."""
    every: dict[str, list[float]] = {}
    worst = []
    for case in VALUES:
        given = INPUTS.of(case)
        expected, floor = REFERENCE.outputs(case.network, given), REFERENCE.floor(case.network, given, precision)
        got, ratios = run(made, case.network, given), []
        for name in expected:
            for figure, found in distance(got[name], expected[name]).items():
                every.setdefault(figure, []).append(found.value / getattr(floor[name], figure))
            ratios.append(every["relative"][-1])
        worst.append(max(ratios))
    cells = [
        span(every[figure], ".1f" if figure != "cosine" else ".2g") for figure in ("relative", "cosine", "largest")
    ]
    print(f"| {precision} | {what} | {' | '.join(cells)} | {span(worst, '.1f')} |", flush=True)


def batches() -> None:
    """Engine `torch` itself: a batch of eight images, in floors of one."""
    eight = tuple(range(8))
    for network in ("clip1", "clip2", "unet", "shallow_unet", "vae"):
        one, full = INPUTS.of(usual(network)), INPUTS.of(usual(network, eight))
        floor, exact = REFERENCE.floor(network, one, "fp32"), run(REFERENCE._engine("fp64"), network, full)
        got = REFERENCE.outputs(network, full)
        ratio = {name: distance(got[name], exact[name])["relative"].value / floor[name].relative for name in got}
        print(f"fp32, {network}, 8 images: {max(ratio.values()):.1f} floors")


def main() -> None:
    """All tables."""
    floors()
    batches()
    print(
        "| precision | products | relative | cosine | largest | worst output of a network |\n|---|---|---|---|---|---|"
    )
    row("fp32", "onnxruntime", engine("onnxruntime"))
    row("fp32", "both sides in 16 bits of mantissa", rounding(bits(16), bits(16)))
    row("fp32", "both sides in TF32", rounding(bits(11), bits(11)))
    row("fp16", "both sides and results in fp16, sums and the rest in fp32", rounding(half, half, half))
    row("fp16", "torch in bf16", engine("torch", "bf16"))
    row("fp16", "weights in int8, one scale a channel", rounding(None, int8))
    row("fp16", "weights in fp8, one scale a channel", rounding(None, fp8))
    row("bf16", "torch's autocast to bf16", Autocast())
    row("bf16", "weights in int8, one scale a channel", rounding(None, int8))
    row("bf16", "weights in fp8, one scale a channel", rounding(None, fp8))


if __name__ == "__main__":
    main()
