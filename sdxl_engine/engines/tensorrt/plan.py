"""A plan's manifest, and the check that lets only a plan that is whole, fresh and at home be run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdxl_engine.engines.tensorrt.names import manifest_path
from sdxl_engine.errors import AssetError
from sdxl_engine.files import read_json, sha256

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class PlanKey:
    """What decides what a plan is.

    Args:
        network: One of `spec.NETWORKS`.
        onnx_sha256: From `exported.onnx_digest`.
        precision: Of this network: `fp16`, `fp32`.
        library: `tensorrt` or `tensorrt_rtx`.
        version: Its own.
        gpu: Name, or `target.ANY_GPU`.
        compute_capabilities: That it was built for, or, of a plan that is looked for, that it must hold.
        flags: Of the network and of the builder, sorted.
        rows: Smallest, best and largest batch of the optimisation profile, in rows of the network.
    """

    network: str
    onnx_sha256: str
    precision: str
    library: str
    version: str
    gpu: str
    compute_capabilities: tuple[str, ...]
    flags: tuple[str, ...]
    rows: tuple[int, int, int]

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PlanKey:
        """What `dataclasses.asdict` made of one, after its way through JSON.

        Raises:
            TypeError: a value is missing or foreign.
        """
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**plain)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What lies beside a plan as `<plan>.json`.

    Args:
        key: What it was made from and for.
        sha256: Of the plan.
        bytes: Of the plan.
        tensors: Inputs and outputs as TensorRT has them: name to `{"mode", "dtype", "shape"}`, -1 for the batch.
        workspace_bytes: Limit of the builder's workspace.
        build_s: Seconds of TensorRT's build.
    """

    key: PlanKey
    sha256: str
    bytes: int
    tensors: dict[str, dict[str, Any]]
    workspace_bytes: int
    build_s: float

    def to_json(self) -> dict[str, Any]:
        """As JSON, with the schema's version."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}


def read_manifest(plan: Path, fix: str) -> Manifest:
    """Read the manifest of a plan.

    Raises:
        AssetError: the plan or its manifest is missing or malformed.
    """
    if not plan.is_file():
        raise AssetError("a TensorRT plan is missing", got="no such file", source=plan, fix=fix)
    path = manifest_path(plan)
    if not path.is_file():
        raise AssetError(
            "a TensorRT plan has no manifest, so nothing says what it was built from",
            got="no such file",
            source=path,
            fix=fix,
        )
    values = read_json(path, "the manifest of a TensorRT plan")
    if not isinstance(values, dict) or values.pop("schema", None) != SCHEMA:
        raise AssetError("the manifest of a TensorRT plan is of another schema", expected=SCHEMA, source=path, fix=fix)
    try:
        return Manifest(key=PlanKey.from_json(values.pop("key")), **values)
    except (KeyError, TypeError, AttributeError) as error:
        raise AssetError("the manifest of a TensorRT plan is malformed", got=error, source=path, fix=fix) from None


def check(plan: Path, wanted: PlanKey, fix: str) -> Manifest:
    """Refuse a plan that is not what is wanted.

    Args:
        plan: Its file.
        wanted: What it must have been made from and for. Its profile may be wider.
        fix: The command that builds it.

    Raises:
        AssetError: it is missing, stale, foreign or damaged; the message says which, with what was found.
    """
    manifest = read_manifest(plan, fix)
    found = manifest.key

    def refuse(why: str, got: object, expected: object) -> AssetError:
        return AssetError(f"a TensorRT plan {why}", got=got, expected=expected, source=plan, fix=fix)

    for name, why in (
        ("network", "is of another network"),
        ("onnx_sha256", "is stale: the model's ONNX file has changed since it was built"),
        ("precision", "is of another precision"),
        ("library", "is foreign: another library built it"),
        ("version", "is foreign: another version of the library built it"),
        ("gpu", "is foreign: it was built for another GPU"),
        ("flags", "was built with other flags"),
    ):
        got, expected = getattr(found, name), getattr(wanted, name)
        if got != expected:
            raise refuse(why, _text(got), _text(expected))
    if not set(wanted.compute_capabilities) <= set(found.compute_capabilities):
        raise refuse(
            "is foreign: it was built for other compute capabilities",
            _text(found.compute_capabilities),
            _text(wanted.compute_capabilities),
        )
    if found.rows[0] > wanted.rows[0] or found.rows[2] < wanted.rows[2]:
        raise refuse(
            "has too small a profile",
            f"batches of {found.rows[0]} to {found.rows[2]} rows",
            f"{wanted.rows[0]} to {wanted.rows[2]}",
        )
    size = plan.stat().st_size
    if size != manifest.bytes:
        raise refuse("is damaged: its size is wrong", f"{size} bytes", f"{manifest.bytes} bytes")
    digest = sha256(plan)
    if digest != manifest.sha256:
        raise refuse("is damaged: its content has changed", f"SHA-256 {digest}", manifest.sha256)
    return manifest


def _text(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
