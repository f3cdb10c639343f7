"""The words of a diagnosis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdxl_engine.accuracy.paired import WORST, chance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sdxl_engine.accuracy.compare import Comparison, Pair

CAPTION = 60
"""Letters of a caption in the table."""


def headline(comparison: Comparison) -> str:
    """Whether CLIP fell, and if so, whether broadly or in a few prompts."""
    loss, clip = comparison.loss, comparison.clip
    if loss.kind == "few":
        carry = "carries" if loss.prompts == 1 else "carry"
        said = (
            f"loss of CLIP in a few: {loss.prompts} of {clip.count} prompts {carry} {_percent(loss.share)} of the loss"
        )
    elif loss.kind == "broad":
        said = f"broad loss of CLIP: {loss.prompts} of {clip.count} prompts lost (sign test {chance(clip.sign.p)})"
    elif clip.mean >= 0:
        said = f"no loss of CLIP: its mean did not fall (sign test {chance(clip.sign.p)})"
    else:
        said = f"no loss of CLIP beyond noise (sign test {chance(clip.sign.p)})"
    if comparison.unscored:
        said += f"; {comparison.unscored} more without a CLIP score (not a number)"
    return said


def figures(comparison: Comparison) -> list[str]:
    """What the headline rests on: means, differences, sign test, and how many images are the baseline's."""
    clip, sign = comparison.clip, comparison.clip.sign
    means = f"CLIP {comparison.run_mean:.3f}, baseline {comparison.baseline_mean:.3f}, {clip.count} pairs"
    deltas = f"delta mean {clip.mean:+.3f}, median {clip.median:+.3f}, from {clip.lowest:+.3f} to {clip.highest:+.3f}"
    signs = f"{sign.lower} lost, {sign.higher} gained, {sign.equal} equal: sign test {chance(sign.p)}"
    share = f"the worst {_percent(WORST)} of the prompts carry {_percent(comparison.loss.worst_share)} of the loss"
    lines = [f"{means}; {deltas}", f"{signs}; {share}"]
    if comparison.hashed:
        same = f"{comparison.identical} of {comparison.hashed} images are bit-identical"
        moved = f", {comparison.moved} are the baseline's of another caption" if comparison.moved else ""
        lines.append(same + moved)
    return lines


def unpaired(comparison: Comparison) -> str:
    """How many captions are in one run alone; empty if none is."""
    parts = [
        f"captions only in the {side}: {count}"
        for count, side in ((comparison.only_run, "run"), (comparison.only_baseline, "baseline"))
        if count
    ]
    return ", ".join(parts)


def table(worst: Sequence[Pair], captions: Mapping[int, str], psnr: Mapping[int, float]) -> list[str]:
    """The worst prompts, one a line; PSNR where it is known of any."""
    lines = [f"{'id':>6}  {'run':>8}  {'baseline':>8}  {'delta':>8}  {'PSNR dB  ' if psnr else ''}caption"]
    for pair in worst:
        decibels = f"{_number(psnr.get(pair.id), '{:.2f}'):>7}  " if psnr else ""
        caption = captions.get(pair.id, "")
        shown = caption if len(caption) <= CAPTION else caption[: CAPTION - 2] + " …"
        lines.append(
            f"{pair.id:>6}  {pair.run:>8.3f}  {pair.baseline:>8.3f}  {pair.delta:>+8.3f}  {decibels}{shown}".rstrip()
        )
    return lines


def sheet_figures(pair: Pair, psnr: float | None) -> str:
    """The line below a pair of images."""
    said = f"id {pair.id}: CLIP {pair.run:.3f}, baseline {pair.baseline:.3f}, delta {pair.delta:+.3f}"
    return said if psnr is None else f"{said}, PSNR {psnr:.2f} dB"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if not 0.995 <= share < 1 else "over 99 %"
