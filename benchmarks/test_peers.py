"""Our engine `cuda` against diffusers, at full size on one GPU: at least as fast, as exact as fp16, within its memory.

    pytest benchmarks/test_peers.py                                # all but torch.compile; minutes
    pytest benchmarks/test_peers.py --peers=deepcache,torch,cuda-fp16

The contenders run in one process of their own (`python benchmarks/peers.py`); its table is shown with `-s`.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.gpu

EXACT = 1.2
"""Most that engine `cuda` may be away from fp32, in multiples of what plain fp16 is."""
MOST_GIB = 40.0
PEERS = {"diffusers, eager": "NoOpt", "diffusers, compile": "NoOpt", "diffusers, deepcache": "DeepCache"}
"""And the variant of ours that does the same work."""


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The table, as `peers.Row`."""
    for package in ("torch", "triton", "diffusers", "transformers"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'pytest-sdxl[cuda]'")
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch sees no NVIDIA GPU")
    path = tmp_path_factory.mktemp("peers") / "rows.json"
    command = [sys.executable, str(Path(__file__).with_name("peers.py")), "--json", str(path)]
    if (peers := request.config.getoption("--peers")) is not None:
        command += ["--rows", peers]
    subprocess.run(command, check=True)
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return found


def of(rows: list[dict[str, Any]], name: str, model_opt: str, precision: str = "fp16") -> dict[str, Any]:
    """A row; the test is skipped where it was not asked for or could not run, with the reason."""
    for row in rows:
        if (row["name"], row["model_opt"], row["precision"]) == (name, model_opt, precision):
            return row
    reasons = "; ".join(f"{row['name']}: {row['error']}" for row in rows if row["error"])
    pytest.skip(f"there is no row {name}, {model_opt}, {precision} ({reasons or 'not among --peers'})")


def test_no_contender_fails(rows: list[dict[str, Any]]) -> None:
    """Those that were left out are no failures."""
    assert not [row for row in rows if row["error"] and not row["error"].startswith("left out")]


@pytest.mark.parametrize("peer", PEERS)
def test_at_least_as_fast_as_diffusers(rows: list[dict[str, Any]], peer: str) -> None:
    """In fp16, doing the same work."""
    theirs = of(rows, peer, PEERS[peer])["samples_per_second"]
    assert of(rows, "ours, cuda", PEERS[peer])["samples_per_second"] >= theirs


def test_at_least_as_fast_as_engine_torch(rows: list[dict[str, Any]]) -> None:
    """In fp16."""
    theirs = of(rows, "ours, torch", "DeepCache")["samples_per_second"]
    assert of(rows, "ours, cuda", "DeepCache")["samples_per_second"] >= theirs


def test_as_exact_as_plain_fp16(rows: list[dict[str, Any]]) -> None:
    """Relative error of the final latents against fp32."""
    plain = of(rows, "ours, torch", "DeepCache")["relative_error"]
    assert of(rows, "ours, cuda", "DeepCache")["relative_error"] <= EXACT * plain


@pytest.mark.parametrize(
    ("model_opt", "precision"),
    [("DeepCache", "fp16"), ("NoOpt", "fp16"), ("DeepCache", "fp8"), ("NoOpt", "fp8"), ("DeepCachePruned", "fp8")],
)
def test_peak_memory(rows: list[dict[str, Any]], model_opt: str, precision: str) -> None:
    """At batch 8."""
    assert of(rows, "ours, cuda", model_opt, precision)["peak_gib"] <= MOST_GIB
