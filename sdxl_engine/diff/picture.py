"""The picture of a diff: the error over the steps, and both engines' images side by side."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, cast

import matplotlib as mpl
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from sdxl_engine.diff.parting import Errors

SHOWN = 4
"""Most prompts in the picture."""

LOWEST = 1e-9
"""Errors of zero are drawn here: the axis is logarithmic."""


def draw(
    path: Path,
    names: tuple[str, str],
    errors: Sequence[Errors],
    tolerance: float,
    images: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    captions: Sequence[str],
) -> None:
    """Write the picture as PNG.

    Args:
        path: The file.
        names: Of engines A and B.
        errors: Call by call.
        tolerance: Drawn as a line.
        images: (N, H, W, 3) uint8 each.
        captions: Of the images.
    """
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = min(SHOWN, len(captions))
    figure = plt.figure(figsize=(10, 4 + 2.9 * shown), layout="constrained")
    upper, lower = cast("Any", figure.subfigures(2, 1, height_ratios=[4, 2.9 * shown]))
    _plot(upper.subplots(), names, errors, tolerance)
    axes = lower.subplots(shown, 3, squeeze=False)
    for row, (a, b, caption) in enumerate(zip(*(some[:shown] for some in (*images, captions)), strict=True)):
        difference = np.abs(a.astype(int) - b.astype(int)).max(axis=2)
        title = "\n".join(textwrap.wrap(caption, 44)[:2])
        for axis, image, text in zip(axes[row], (a, b, difference), (names[0], names[1], ""), strict=True):
            axis.imshow(image, vmin=0, vmax=255, cmap="magma", interpolation="nearest")
            axis.set_axis_off()
            axis.set_title(text, fontsize=8)
        axes[row][0].set_title(f"{title}\n{names[0]}", fontsize=8)
        axes[row][2].set_title(f"difference, at most {difference.max()} of 255", fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _plot(axis: mpl.axes.Axes, names: tuple[str, str], errors: Sequence[Errors], tolerance: float) -> None:
    where = np.arange(len(errors))
    for label, values, style in (
        ("B reads what A read: each network's own error", [each.own for each in errors], "o-"),
        ("B goes its own way: with what came before", [each.whole for each in errors], ".--"),
    ):
        finite = [min(max(value, LOWEST), 1e3) for value in values]
        axis.semilogy(where, finite, style, label=label, markersize=4)
    axis.axhline(tolerance, color="grey", linewidth=0.8, label=f"tolerance {tolerance:g}")
    axis.set_xticks(where, [each.network if each.step is None else str(each.step) for each in errors], fontsize=7)
    axis.set_xlabel("text encoders, denoising steps, decoder")
    axis.set_ylabel("relative error of the outputs")
    axis.set_title(f"B = {names[1]} against A = {names[0]}", fontsize=10)
    axis.legend(fontsize=8)
