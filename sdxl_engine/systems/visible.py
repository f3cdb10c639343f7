"""CUDA_VISIBLE_DEVICES: which of NVML's devices a CUDA program sees, in which order.

CUDA reads the variable as a list that ends at the first entry that it cannot use. Indices are read up to their first
character that is no digit. A repeated entry leaves no device at all. UUIDs may be cut short as long as they are unique.

Source: CUDA C++ Programming Guide, "CUDA Environment Variables"; the repetition rule is that of
`torch.cuda._parse_visible_devices`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def visible(value: str | None, uuids: Sequence[str]) -> list[int]:
    """Positions of the visible devices.

    Args:
        value: Of CUDA_VISIBLE_DEVICES; None if it is not set.
        uuids: Of all devices, in the order of their indices.
    """
    if value is None:
        return list(range(len(uuids)))
    entries = [entry.strip() for entry in value.split(",")]
    by_uuid = entries[0].startswith(("GPU-", "MIG-"))
    chosen: list[int] = []
    for entry in entries:
        position = _by_uuid(entry, uuids) if by_uuid else _by_index(entry, len(uuids))
        if position is None:
            break
        if position in chosen:
            return []
        chosen.append(position)
    return chosen


def _by_uuid(entry: str, uuids: Sequence[str]) -> int | None:
    matching = [position for position, uuid in enumerate(uuids) if uuid.startswith(entry)]
    return matching[0] if entry and len(matching) == 1 else None


def _by_index(entry: str, count: int) -> int | None:
    digits = re.match(r"\+?(\d+)", entry)
    return int(digits[1]) if digits and int(digits[1]) < count else None
