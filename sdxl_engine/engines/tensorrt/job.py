"""What one child process is asked to build, as it travels to that process."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdxl_engine.engines.tensorrt.plan import PlanKey

if TYPE_CHECKING:
    from sdxl_engine.engines.tensorrt.tensors import Tensors

STRONGLY_TYPED, TF32 = "STRONGLY_TYPED", "TF32"
"""Names of TensorRT's flags, of the network and of the builder."""


@dataclass(frozen=True, kw_only=True)
class BuildJob:
    """One plan to build.

    Args:
        key: What the plan is made from and for.
        onnx: The network's ONNX file.
        plan: Where the plan goes.
        tensors: Inputs and outputs that TensorRT must find in it.
        device: Number of the GPU to build on; None builds without one.
        workspace_gib: Limit of the builder's workspace; None chooses by free memory.
        timing_cache: File of measured kernel times, shared by the plans of a folder; None where the library keeps none.
    """

    key: PlanKey
    onnx: Path
    plan: Path
    tensors: Tensors
    device: int | None
    workspace_gib: float | None
    timing_cache: Path | None

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> BuildJob:
        """What `to_json` made."""
        paths = {name: Path(values[name]) for name in ("onnx", "plan", "timing_cache") if values[name] is not None}
        return cls(**values | paths | {"key": PlanKey.from_json(values["key"])})
