"""What the engine is compared with: the torch modules in float32, and what rounding to a precision does to them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, TypeVar

from pytest_sdxl.conformance.cases import STEPS
from pytest_sdxl.conformance.drawing import draw, levels_apart
from pytest_sdxl.conformance.figures import Figures, figures, roundoff_of
from pytest_sdxl.conformance.running import Tensors, digest, run
from sdxl_engine.diff.walk import Call, Walker
from sdxl_engine.engines import torch_engine
from sdxl_engine.engines.base import Engine, EngineRequest
from sdxl_engine.models.spec import read_spec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from sdxl_engine.models.source import ModelSource

_T = TypeVar("_T")

DRAWN = (0,)
"""The captions whose images are drawn."""


class Reference:
    """Results and floors, each computed when first asked for and kept, in host memory, for the checks that follow.

    Args:
        model: Which checkpoint.
        device: Where to compute: on the GPU of the engine under test, else on the CPU.
        cache: The build folder's `engines`; nothing is put there.
        model_opt: Which variant's networks.
    """

    def __init__(self, model: ModelSource, device: str, cache: Path, model_opt: str = "NoOpt") -> None:
        self.model = model
        self._request = functools.partial(
            EngineRequest,
            checkpoint=model.checkpoint,
            spec=read_spec(model.checkpoint),
            cache=cache,
            device=device,
            model_opt=model_opt,
        )
        self._kept: dict[tuple[str, ...], object] = {}

    def outputs(self, network: str, inputs: Tensors) -> Tensors:
        """What a network makes of some inputs, on the CPU in float32."""
        return self._once(
            ("outputs", network, digest(inputs)), lambda: _to_host(run(self._engine("fp32"), network, inputs))
        )

    def floor(self, network: str, inputs: Tensors, precision: str) -> dict[str, Figures]:
        """What rounding to a precision does to each output, on these very inputs.

        A network that leaves the range of fp16, as the decoder of SDXL's first checkpoints does, has bf16's floor:
        its engine has to keep parts of it in a wider format, and which is the engine's choice.

        Raises:
            UsageError: see `roundoff_of`.
        """
        roundoff_of(precision)

        def measured(by: str) -> dict[str, Figures]:
            expected, got = self.outputs(network, inputs), run(self._engine(by), network, inputs)
            if by == "fp16" and not all(tensor.isfinite().all() for tensor in got.values()):
                return measured("bf16")
            return {name: figures(got[name], expected[name]) for name in expected}

        by = "fp64" if precision == "fp32" else precision
        return self._once(("floor", precision, network, digest(inputs)), lambda: measured(by))

    def images(self, model_opt: str) -> NDArray[np.uint8]:
        """The images of the captions `DRAWN`."""
        return self._drawing(model_opt, "fp32")[0]

    def image_floor(self, precision: str) -> float:
        """What rounding to a precision does to `images`: the largest root mean square difference, in levels.

        Measured with DeepCache, which takes all steps; NoOpt's is smaller.

        Raises:
            UsageError: see `roundoff_of`.
        """
        roundoff_of(precision)
        by = "fp64" if precision == "fp32" else precision
        return float(levels_apart(self._drawing("DeepCache", by)[0], self.images("DeepCache")).max())

    def calls(self) -> list[Call]:
        """What each network read and wrote while the images were drawn with DeepCache, in order."""
        return self._drawing("DeepCache", "fp32")[1]

    def _drawing(self, model_opt: str, precision: str) -> tuple[NDArray[np.uint8], list[Call]]:
        def drawn() -> tuple[NDArray[np.uint8], list[Call]]:
            walker = Walker(self._engine(precision))
            return draw(walker, self.model, model_opt, DRAWN, STEPS[model_opt]), walker.calls

        return self._once(("drawing", model_opt, precision), drawn)

    def _engine(self, precision: str) -> Engine:
        return self._once(("engine", precision), lambda: torch_engine.create(self._request(precision=precision)))

    def _once(self, key: tuple[str, ...], make: Callable[[], _T]) -> _T:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]  # type: ignore[return-value]  # what `make` made under this key


reference = functools.cache(Reference)
"""One `Reference` for the process: sessions that follow each other in it, on one model, share what is computed."""


def _to_host(tensors: Tensors) -> Tensors:
    return {name: tensor.cpu() for name, tensor in tensors.items()}
