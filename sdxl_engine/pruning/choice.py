"""Which layers to drop: greedy, by loss per operation saved, measured anew after each removal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdxl_engine.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sdxl_engine.pruning.layers import Layer

Dropped = frozenset["Layer"]


@dataclass(frozen=True)
class Choice:
    """What to drop.

    Args:
        dropped: The layers.
        share: Of the full step's operations, what is left.
        loss: `output_loss` without them, before any training.
        steps: One record for each removal (`dropped`, `loss`, `share`), and for each layer put back (`kept`).
    """

    dropped: Dropped
    share: float
    loss: float
    steps: tuple[dict[str, Any], ...]


def choose(
    loss: Callable[[Dropped], float],
    layers: Mapping[Layer, int],
    total: int,
    share: float,
    tell: Callable[[str], None] = lambda _line: None,
) -> Choice:
    """Drop layers until no more than a share of the operations is left, then put back what there is room for.

    A candidate is a single layer, or all that an attention still has. Each time the one is dropped that adds least to
    the loss for each operation it saves. At the end no dropped layer could be put back without leaving more than the
    share: the target is met from below, as closely as one layer allows.

    Args:
        loss: Of the network without some layers.
        layers: Operations of each layer, in the order of the network.
        total: Operations of the whole step.
        share: The target, 0 to 1.
        tell: Called with a line for each removal.

    Raises:
        UsageError: the layers are not enough.
    """
    check_share(layers, total, share)

    def left(dropped: Dropped) -> float:
        return (total - sum(layers[layer] for layer in dropped)) / total

    dropped: Dropped = frozenset()
    now = loss(dropped)
    steps: list[dict[str, Any]] = []

    def note(what: str, which: Dropped) -> None:
        steps.append({what: sorted(map(str, which)), "loss": now, "share": left(dropped)})
        tell(f"{what} {', '.join(sorted(map(str, which)))}: loss {now:.5f}, share {left(dropped):.4f}")

    while left(dropped) > share:
        tried = {each: loss(dropped | each) for each in _candidates(layers, dropped)}
        best = min(tried, key=lambda each: (tried[each] - now) / sum(layers[layer] for layer in each))
        dropped, now = dropped | best, tried[best]
        note("dropped", best)
    while room := [layer for layer in layers if layer in dropped and left(dropped - {layer}) <= share]:
        tried = {frozenset([layer]): loss(dropped - {layer}) for layer in room}
        best = min(tried, key=lambda each: tried[each])
        dropped, now = dropped - best, tried[best]
        note("kept", best)
    return Choice(dropped, left(dropped), now, tuple(steps))


def check_share(layers: Mapping[Layer, int], total: int, share: float) -> None:
    """See `choose`; before anything is measured.

    Raises:
        UsageError: the layers are not enough.
    """
    least = (total - sum(layers.values())) / total
    if not least <= share < 1:
        raise UsageError(
            "the deep step cannot be brought to this share by dropping transformer layers",
            got=share,
            expected=f"at least {least:.4f}, which has none left, and below 1",
            source="--share",
        )


def _candidates(layers: Mapping[Layer, int], dropped: Dropped) -> Iterator[Dropped]:
    left: dict[str, list[Layer]] = {}
    for layer in layers:
        if layer not in dropped:
            left.setdefault(layer.attention, []).append(layer)
            yield frozenset([layer])
    yield from (frozenset(own) for own in left.values() if len(own) > 1)
