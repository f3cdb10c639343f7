"""`sdxl-engine diff`: the first network and step where two engines part."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sdxl_engine.commands import Outcome
from sdxl_engine.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from sdxl_engine.diff.walk import Call
    from sdxl_engine.engines.base import Engine
    from sdxl_engine.settings import RunSettings

PROMPTS = 2
PICTURE = "sdxl_diff.png"


def add_diff(subcommands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser) -> None:
    """Add the subcommand to the parser."""
    parser = subcommands.add_parser(
        "diff", parents=[shared], conflict_handler="resolve", help="the first network and step where two engines part"
    )
    parser.add_argument(
        "--engine",
        dest="engines",
        action="append",
        required=True,
        metavar="NAME[@PRECISION]",
        help="to be given twice: A, and B that is compared with it",
    )
    parser.add_argument("--samples", type=int, default=PROMPTS, help=f"how many captions (default: {PROMPTS})")
    parser.add_argument(
        "--tolerance", type=float, help="relative error of a network's output that is too much (default: by precision)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path(), metavar="DIR", help="where the picture goes (default: .)"
    )


def diff(settings: RunSettings, arguments: argparse.Namespace) -> Outcome:
    """Walk both engines through the pipeline; the outcome is passed if they part nowhere."""
    from sdxl_engine.accuracy.image_pairs import psnr
    from sdxl_engine.diff.parting import TOLERANCES, errors_of, first_parting, table
    from sdxl_engine.models.source import model_of
    from sdxl_engine.run_captions import own_share
    from sdxl_engine.run_system import batch_size, other_schedule

    if len(arguments.engines) != 2:
        raise UsageError(
            "two engines are compared",
            got=", ".join(arguments.engines),
            expected="two",
            source="--engine",
            fix=_EXAMPLE,
        )
    if settings.samples is not None and settings.samples > (most := batch_size(settings)):
        raise UsageError(
            "the prompts are drawn in one batch",
            got=settings.samples,
            expected=f"at most {most}",
            source="--samples",
        )
    if arguments.tolerance is not None and not arguments.tolerance > 0:
        raise UsageError(
            "the tolerance is not a relative error",
            got=arguments.tolerance,
            expected="more than 0",
            source="--tolerance",
        )
    if importlib.util.find_spec("matplotlib") is None:
        raise UnavailableError(
            "the picture cannot be drawn", got="no module matplotlib", fix="pip install 'pytest-sdxl[diff]'"
        )
    first, second = (_with_engine(settings, text) for text in arguments.engines)
    captions = [caption.text for caption in own_share(settings, model_of(settings))]
    a = _walk(first)
    led = _walk(second, a.calls)
    b = _walk(second)
    tolerance = arguments.tolerance or max(TOLERANCES[walk.precision] for walk in (a, b))
    errors = errors_of(a.calls, led.calls, b.calls)
    parting = first_parting(errors, tolerance)
    likeness = [psnr(one, other) for one, other in zip(a.images, b.images, strict=True)]
    said = (
        f"they part first at {parting.place}: output {parting.output}, relative error {parting.own:.2e} in itself, "
        f"tolerance {tolerance:g}, most in row {parting.own_row}"
        if parting
        else f"no network's own error is above the tolerance {tolerance:g}"
    )
    from sdxl_engine.diff.picture import draw

    arguments.output.mkdir(parents=True, exist_ok=True)
    picture = arguments.output / PICTURE
    draw(picture, (a.name, b.name), errors, tolerance, (a.images, b.images), captions)
    variant = ", ".join(filter(None, (settings.model_opt, other_schedule(settings))))
    print(f"A = {a.name}, B = {b.name}, {variant}, {len(captions)} captions")
    print("\n".join(table(errors, tolerance)))
    print(f"images: PSNR {min(likeness):.1f} dB at least\n{said}\npicture: {picture}")
    result: dict[str, Any] = {
        "engines": [a.name, b.name],
        "model_opt": settings.model_opt,
        "tolerance": tolerance,
        "parting": dataclasses.asdict(parting) if parting else None,
        "calls": [dataclasses.asdict(each) for each in errors],
        "psnr_db": likeness,
        "picture": picture,
    }
    return Outcome(passed=parting is None, result=result)


_EXAMPLE = "sdxl-engine diff --engine torch --engine onnxruntime"


def _with_engine(settings: RunSettings, text: str) -> RunSettings:
    name, _, precision = text.partition("@")
    changed = dataclasses.replace(settings, engine=name, precision=precision or settings.precision)
    changed.check({"precision": f"--engine {text}"})
    return changed


@dataclasses.dataclass(frozen=True)
class _Walk:
    name: str
    precision: str
    calls: Sequence[Call]
    images: NDArray[np.uint8]


def _walk(settings: RunSettings, led_by: Sequence[Call] | None = None) -> _Walk:
    """Draw the captions with one engine, all in one batch."""
    import numpy as np

    from sdxl_engine.assemble import open_pipeline
    from sdxl_engine.diff.walk import Walker

    pipeline = open_pipeline(settings, lambda engine: cast("Engine", Walker(engine, led_by)))
    try:
        walker = cast("Walker", pipeline.engine)
        images = pipeline.generate(np.arange(pipeline.image_count))
        precision = walker.capabilities.precision
        return _Walk(f"{walker.name} ({precision})", precision, walker.calls, images)
    finally:
        pipeline.close()
