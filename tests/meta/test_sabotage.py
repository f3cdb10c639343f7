"""The real gate on the real run must go red for each of these faults, one at a time, and stay green without."""

import dataclasses
import math
from pathlib import Path

import pytest

from pytest_sdxl.gates import assert_accuracy
from sdxl_engine.accuracy.diagnosis import PICTURE
from sdxl_engine.accuracy.networks import FidNetwork
from sdxl_engine.errors import LoadgenError
from sdxl_engine.measure import judged, measure
from sdxl_engine.models.source import resolve_model
from sdxl_engine.scoring import score_images
from sdxl_engine.settings import RunSettings

SAMPLES = 128
"""The smaller of the counts that the embedded model has ranges for."""

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def settings(build_dir):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)  # a pipeline under test is looked for where the command is given
        yield RunSettings(model="shapes", model_opt="DeepCache", samples=SAMPLES, build_dir=build_dir)


def run(settings, fault, **changes):
    settings = dataclasses.replace(settings, **changes)
    return measure(dataclasses.replace(settings, pipeline=f"tests.support.sabotage:{fault}"), "AccuracyOnly")


@pytest.fixture(scope="module")
def intact(settings):
    return run(settings, "intact", save_images="all")


def test_an_intact_pipeline_passes(intact):
    assert_accuracy(intact)


@pytest.mark.parametrize(
    "fault",
    [
        "wrong_sigma",
        "no_guidance",
        "swapped_guidance_rows",
        "stale_cache",
        "unscaled_noise",
        "unscaled_latents",
    ],
)
@pytest.mark.usefixtures("intact")  # it leaves the latents that some of them start from
def test_a_fault_in_the_loop_fails_the_gate(settings, fault):
    fails(run(settings, fault), "diagnosis: ")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("shifted_captions", "diagnosis: "),
        ("swapped_red_and_blue", "diagnosis: broad loss of CLIP"),
        ("one_in_ten_black", "diagnosis: loss of CLIP in a few: 13 of 128 prompts"),
    ],
)
def test_a_fault_around_the_loop_fails_the_gate(settings, intact, fault, said):
    fails(run(settings, fault, baseline=intact.loadgen.log_dir), said)


def fails(measurement, said):
    with pytest.raises(pytest.fail.Exception, match="accuracy is out of range") as caught:
        assert_accuracy(measurement)
    assert said in str(caught.value)
    assert (measurement.loadgen.log_dir / PICTURE).is_file()


def test_a_lost_response_fails_the_run(settings, intact):
    with pytest.raises(LoadgenError, match="1 missing"):
        run(settings, "lost_response", samples=16, timeout_s=8.0, baseline=intact.loadgen.log_dir)


def test_scores_that_are_not_numbers_fail_the_gate(settings, intact, monkeypatch):
    features = FidNetwork.__call__

    def one_bad_row(self, images):
        array = features(self, images).copy()
        array[0, 0] = math.nan
        return array

    monkeypatch.setattr(FidNetwork, "__call__", one_bad_row)
    model = resolve_model(settings.model, settings.build_dir)
    scores = score_images(settings, model, intact.loadgen.log_dir / "images", lambda _line: None)
    _, verdict = judged(settings, model, scores)
    with pytest.raises(pytest.fail.Exception, match="FID_SCORE nan"):
        assert_accuracy(dataclasses.replace(intact, scores=scores, verdict=verdict))
