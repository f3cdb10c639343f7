"""`--sdxl-shard`: a share of a run is scored, and judged only when it is merged with the others."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("workers", [(), ("-n1",)])
def test_a_shard_is_skipped_and_its_scores_are_written(project, workers):
    result = project.run("-m", "accuracy", "-rs", "--sdxl-shard=1/4", "--sdxl-json=r.json", *workers)
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(skipped=1, deselected=0 if workers else 1)
    result.stdout.fnmatch_lines(["sdxl gate: NOT JUDGED (all skipped: 1 accuracy)", "SKIPPED*shard 1/4*"])
    (record,) = project.json("r.json")["results"]
    assert (record["verdict"]["passed"], record["asked"]["shard"]) == (None, "1/4")


def test_a_shard_whose_scores_are_not_numbers_fails(project):
    project.behave(clip=float("nan"))
    result = project.run("-m", "accuracy", "--sdxl-shard=1/4")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*CLIP_SCORE nan*not finite*"])
