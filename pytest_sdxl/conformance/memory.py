"""How much memory this process and its GPU have in use, whoever took it."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def in_use(device: torch.device) -> dict[str, int]:
    """Bytes by kind: `host`, what the process has resident; `device`, of a GPU, what anyone has taken on it.

    Allocators are asked to give back what they only keep for later.
    """
    import torch

    ctypes.CDLL(None).malloc_trim(0)
    resident = re.search(r"^VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    assert resident is not None
    found = {"host": int(resident[1]) * 1024}
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(device)
        found["device"] = total - free
    return found
