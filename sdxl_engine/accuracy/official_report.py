"""What MLPerf's own tools write and read about a run: `accuracy.txt`, the scorer's JSON, the printed summary."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING

from sdxl_engine.errors import AccuracyError
from sdxl_engine.files import written_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ACCURACY_TXT = "accuracy.txt"
COCO_RESULTS = "coco-results.json"
BENCHMARK = "stable-diffusion-xl"


def accuracy_txt(clip: float, fid: float, log_sha256: str) -> str:
    """The text of `accuracy.txt`, which the submission checker reads.

    Source: mlcommons/inference `tools/submission/submission_checker/constants.py` (the expressions that each line is
    matched with) and `tools/submission/truncate_accuracy_log.py` (the digest, of the log before it is truncated).

    Args:
        clip: CLIP score, 100 x cosine.
        fid: Fréchet distance.
        log_sha256: Hex SHA-256 of the whole `mlperf_log_accuracy.json`.

    Returns:
        Two lines: both scores to nine decimals, and the digest.

    Raises:
        AccuracyError: a score is not finite or below 0. The checker's expressions know digits and a point only, so
            that it would find no score.
        ValueError: `log_sha256` is no digest.
    """
    for name, score in (("CLIP_SCORE", clip), ("FID_SCORE", fid)):
        if not math.isfinite(score) or score < 0:
            raise AccuracyError(
                "a score cannot be reported to the submission checker",
                got=f"{name} {score}",
                expected="a finite number, 0 or more",
                fix="see which images or which network gave it; a run with such a score has not passed",
            )
    if not re.fullmatch("[0-9a-f]{64}", log_sha256):
        raise ValueError(f"not a hex SHA-256: {log_sha256!r}")
    # `abs`: minus zero has a sign, and the checker would find no number.
    scores = f"{{'FID_SCORE': '{abs(fid):.9f}', 'CLIP_SCORE': '{abs(clip):.9f}'}}"
    return f"Accuracy Results: {scores}\nhash={log_sha256}\n"


def write_reports(folder: Path, clip: float, fid: float, log_sha256: str) -> None:
    """Write `accuracy.txt` and the reference scorer's `coco-results.json` (full precision) to `folder`.

    Both or neither: `accuracy.txt` takes its place last. Source of the second: mlcommons/inference
    `text_to_image/tools/accuracy_coco.py`.

    Raises:
        AccuracyError: see `accuracy_txt`; nothing is written.
    """
    text = accuracy_txt(clip, fid, log_sha256)
    scores = json.dumps({"CLIP_SCORE": float(clip), "FID_SCORE": float(fid)}, indent=4, sort_keys=True)
    with written_whole(folder / ACCURACY_TXT) as report, written_whole(folder / COCO_RESULTS) as results:
        report.write_text(text, encoding="utf-8")
        results.write_text(scores, encoding="utf-8")


def performance_line(samples_per_second: float | None, *, valid: bool) -> str:
    """The benchmark's line for a performance run; the figure with the six digits that LoadGen logs.

    Args:
        samples_per_second: None where LoadGen gave no figure.
        valid: LoadGen's verdict.
    """
    speed = "-" if samples_per_second is None else f"{samples_per_second:.6g}"
    return f"performance: result_samples_per_second: {speed}, Result is {'VALID' if valid else 'INVALID'}"


def summary_lines(config: str, lines: Sequence[str]) -> str:
    """The benchmark's printed summary of one configuration, blank lines and indents included.

    Source: NVIDIA's `scripts/print_harness_result.py` in mlcommons/inference_results_v4.0; its logger puts a space
    before every text, on top of two for each level, so that blank lines hold one space.

    Args:
        config: Name of the configuration.
        lines: The lines that `judge` and `performance_line` give, and what there is to say of them.
    """
    bar = "=" * 24
    body = "".join(f"     {line}\n" for line in lines)
    return f" \n{bar} Result summaries: {bar}\n\n {config}:\n   {BENCHMARK}:\n{body} \n"
