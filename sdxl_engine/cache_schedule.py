"""The cache schedule: which denoising steps run the deep UNet, as numbers and as the text of an option."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sdxl_engine.errors import UsageError
from sdxl_engine.models.prompts import STEPS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOOPT = "NoOpt"
"""The variant without a cache: every step is deep."""


def deep_steps(model_opt: str, steps: int, shallow_unet_steps: int = 1) -> range:
    """Which steps run the deep UNet.

    Args:
        model_opt: `NoOpt` runs it at every step; the others at every (shallow_unet_steps + 1)-th, from step 0.
        steps: Denoising steps.
        shallow_unet_steps: Shallow steps after each deep one.

    Source: `backend.py` of NVIDIA's v4.0 open submission: `step_index % (shallow_unet_steps + 1) != 0` is shallow.
    """
    stride = 1 if model_opt == NOOPT else shallow_unet_steps + 1
    return range(0, steps, stride)


def parse_deep_steps(text: str, *, source: str = "deep_steps") -> tuple[int, ...]:
    """Step numbers and ranges of them with commas, `0-3,6,9`; both ends of a range belong to it.

    Raises:
        UsageError: it is not that; or a step is no step of the run, or not after the one before; or step 0 is not
            among them, so that there would be no features to reuse.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,3})(?:-([0-9]{1,3}))?", part.strip())
        # What is no number, or a range that is empty, is a step that no run has.
        found += (match and range(int(match[1]), int(match[2] or match[1]) + 1)) or [-1]
    if found[:1] != [0] or found != sorted(set(found)) or found[-1] >= STEPS:
        raise UsageError(
            "these are not the deep steps of a run",
            got=repr(text),
            expected=f"steps from 0 to {STEPS - 1}, rising, the first of them 0, for example 0-3,6,9,12,15,18",
            source=source,
        )
    return tuple(found)


def deep_steps_text(deep: Sequence[int]) -> str:
    """What `parse_deep_steps` reads; three steps or more in a row are a range.

    Args:
        deep: Rising.
    """
    runs: list[list[int]] = []
    for step in deep:
        if runs and step == runs[-1][-1] + 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


def own_schedule(model_opt: str) -> str:
    """The deep steps that a variant has where nothing else is asked for, as text."""
    return deep_steps_text(deep_steps(model_opt, STEPS))


def other_steps(model_opt: str, deep: str) -> str:
    """Names deep steps that are not the variant's own, for a line about a run; empty for its own.

    Args:
        model_opt: The variant.
        deep: As `deep_steps_text` gives them; what is no such text names none.
    """
    return f"deep steps {deep}" if deep[:1] == "0" and deep != own_schedule(model_opt) else ""


def asked_steps(model_opt: str, shallow_steps: int | None, deep: str | None) -> tuple[int, ...] | None:
    """The deep steps that the options ask for; None where they ask for none. For options that were checked."""
    if deep is not None:
        return parse_deep_steps(deep)
    return tuple(deep_steps(model_opt, STEPS, shallow_steps)) if shallow_steps is not None else None


def check_schedule(model_opt: str, shallow_steps: int | None, deep: str | None, origin: Mapping[str, str]) -> None:
    """Refuse options that contradict each other or ask for what is no schedule.

    Args:
        model_opt: The variant.
        shallow_steps: Shallow steps after each deep one.
        deep: The deep steps as text.
        origin: Where each came from, by field of the settings.

    Raises:
        UsageError: see there and `parse_deep_steps`.
    """
    shallow_source, deep_source = (origin.get(field, field) for field in ("shallow_steps", "deep_steps"))
    if shallow_steps is not None and deep is not None:
        raise UsageError(
            "the cache schedule is given twice",
            got=f"shallow steps {shallow_steps}, deep steps {deep}",
            expected="one of the two",
            source=f"{shallow_source}, {deep_source}",
        )
    if shallow_steps is not None and not 0 <= shallow_steps < STEPS:
        raise UsageError(
            "there are not so many shallow steps",
            got=shallow_steps,
            expected=f"0 to {STEPS - 1} after each deep one",
            source=shallow_source,
        )
    every = shallow_steps in (None, 0) and (deep is None or len(parse_deep_steps(deep, source=deep_source)) == STEPS)
    if model_opt == NOOPT and not every:
        raise UsageError(
            f"{NOOPT} has no shallow steps",
            got=f"shallow steps {shallow_steps}" if deep is None else f"deep steps {deep}",
            expected="another variant, or every step deep",
            source=deep_source if deep is not None else shallow_source,
            fix="--model-opt=DeepCache",
        )
