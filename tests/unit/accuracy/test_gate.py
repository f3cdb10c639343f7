"""The choice of the gate, and what can never pass under the name official."""

import dataclasses
import math

import pytest

from sdxl_engine.accuracy import gate as module
from sdxl_engine.accuracy.gate import choose
from sdxl_engine.accuracy.published import PUBLISHED
from sdxl_engine.accuracy.ranges import OFFICIAL
from sdxl_engine.errors import UsageError
from sdxl_engine.models.source import resolve_model
from sdxl_engine.results import Scores
from sdxl_engine.settings import RunSettings


@pytest.fixture
def shapes(tmp_path):
    return resolve_model("shapes", tmp_path)


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint whose captions and latent are not found different from the benchmark's, as they are missing."""
    (tmp_path / "model_index.json").touch()
    return resolve_model(str(tmp_path), tmp_path)


@pytest.fixture
def other_latent(checkpoint, monkeypatch):
    monkeypatch.setattr(module, "other_inputs", lambda *_paths: "the initial latent in x is not the benchmark's")
    return checkpoint


def settings(model_opt="DeepCache", **changes):
    return RunSettings(model_opt=model_opt, **changes)


def scores(clip=31.713050620, fid=23.604639465, count=5000, **changes):
    return Scores(clip, fid, count, "mlperf", **changes)


@pytest.mark.parametrize(
    ("model_opt", "asked", "name", "why"),
    [
        ("NoOpt", "auto", "official", "checkpoint, NoOpt, the benchmark's 5000 captions"),
        ("DeepCache", "auto", "official", "checkpoint, DeepCache, the benchmark's 5000 captions"),
        ("DeepCache", "official", "official", "asked for, checkpoint, DeepCache, the benchmark's 5000 captions"),
        ("DeepCache", "published", "published", "asked for, checkpoint, DeepCache, the benchmark's 5000 captions"),
        ("DeepCachePruned", "official", "official", "asked for, checkpoint, DeepCachePruned, the*"),
        (
            "DeepCachePruned",
            "auto",
            "published",
            "checkpoint, DeepCachePruned whose published scores lie outside the official range, the benchmark's *",
        ),
    ],
)
def test_a_checkpoint_is_judged_by_its_variant_and_says_why(checkpoint, model_opt, asked, name, why):
    gate = choose(settings(model_opt, gate=asked), checkpoint, 5000)
    assert gate.name == name
    assert gate.ranges == (OFFICIAL if name == "official" else PUBLISHED[model_opt])
    assert gate.why == why or (why.endswith("*") and gate.why.startswith(why[:-1]))
    assert gate.judge(scores()).gate == f"{name} ({gate.why})"


def test_published_ranges_are_nvidias_figures_with_the_official_widths():
    for variant, clip, fid in (("DeepCache", 31.713050620, 23.604639465), ("DeepCachePruned", 32.16486, 29.18939)):
        ranges = PUBLISHED[variant]
        assert (ranges.clip.lower, ranges.clip.upper) == pytest.approx((clip * 0.998, clip * 1.002))
        assert (ranges.fid.lower, ranges.fid.upper) == pytest.approx((fid * 0.98, fid * 1.02))
        assert "+-0.2 % and +-2 %" in ranges.origin
        assert (ranges.count, ranges.variant) == (5000, "mlperf")


def test_the_published_scores_of_deepcachepruned_pass_as_published_and_not_as_official(checkpoint):
    published = scores(32.16486, 29.18939)
    verdict = choose(settings("DeepCachePruned"), checkpoint, 5000).judge(published)
    assert verdict.passed is True
    (note,) = verdict.notes
    assert note.startswith("for information, official: [FAILED] CLIP_SCORE: 32.165 (Valid Range=[31.686,  31.813]) | ")
    assert note.endswith("[FAILED] FID_SCORE: 29.189 (Valid Range=[23.011,  23.950])")
    official = choose(settings("DeepCachePruned", gate="official"), checkpoint, 5000).judge(published)
    assert official.passed is False
    assert official.notes[0].startswith("for information, published: [PASSED] CLIP_SCORE: 32.165")


@pytest.mark.parametrize("asked", ["auto", "official"])
@pytest.mark.parametrize("count", [1, 512, 4999])
def test_fewer_captions_are_labelled_and_never_pass_as_official(checkpoint, asked, count):
    gate = choose(settings(gate=asked), checkpoint, count)
    verdict = gate.judge(scores(count=count))
    assert (gate.name, verdict.passed) == ("official", None)
    assert verdict.reason == f"{count} of 5000 captions: not an official score"
    assert "PASSED" not in verdict.line
    assert "PASSED" not in "".join(verdict.notes)


@pytest.mark.parametrize(("asked", "named"), [("auto", "official"), ("official", "official"), ("published", "publ")])
def test_another_latent_never_passes(other_latent, asked, named):
    gate = choose(settings(gate=asked), other_latent, 5000)
    verdict = gate.judge(scores())
    assert gate.name.startswith(named)
    assert verdict.passed is None
    assert verdict.reason.startswith("the initial latent in x is not the benchmark's: not ")
    assert "PASSED" not in verdict.line
    assert verdict.notes == ()


def test_the_inputs_that_are_compared_are_those_of_the_run(checkpoint, monkeypatch):
    compared = []
    monkeypatch.setattr(module, "other_inputs", lambda *paths: compared.extend(paths) or "")
    choose(settings(), checkpoint, 5000)
    assert compared == [checkpoint.captions, checkpoint.latent]


@pytest.mark.parametrize("metric", ["clip", "fid"])
@pytest.mark.parametrize(("end", "away"), [("lower", -math.inf), ("upper", math.inf)])
def test_official_holds_to_the_last_bit(checkpoint, metric, end, away):
    gate = choose(settings(), checkpoint, 5000)
    limit = getattr(getattr(OFFICIAL, metric), end)
    assert gate.judge(scores(**{metric: limit})).passed is True
    assert gate.judge(scores(**{metric: math.nextafter(limit, away)})).passed is False


@pytest.mark.parametrize("count", [512, 5000])
@pytest.mark.parametrize("bad", [{"clip": math.nan}, {"fid": math.nan}, {"fid": math.inf}])
def test_a_score_that_is_no_number_fails(checkpoint, bad, count):
    assert choose(settings(), checkpoint, count).judge(scores(count=count, **bad)).passed is False


def test_swapped_ranges_fail(checkpoint):
    gate = choose(settings(), checkpoint, 5000)
    swapped = dataclasses.replace(OFFICIAL, clip=OFFICIAL.fid, fid=OFFICIAL.clip)
    assert dataclasses.replace(gate, ranges=swapped).judge(scores()).passed is False


def test_custom_ranges_judge_any_count_but_the_label_stays(checkpoint):
    own = settings(clip_range="31,32", fid_range=",100")
    gate = choose(own, checkpoint, 3000)
    assert str(gate) == "custom (CLIP 31.0 to 32.0, FID at most 100.0)"
    verdict = gate.judge(scores(fid=25.0, count=3000))
    assert verdict.passed is True
    assert verdict.notes == ("3000 of 5000 captions: not an official score",)
    whole = choose(own, checkpoint, 5000).judge(scores())
    assert [note.split(":")[0] for note in whole.notes] == ["for information, official", "for information, published"]


def test_ranges_given_mean_custom_and_the_name_alone_does_too(shapes):
    assert choose(settings(clip_range="99,"), shapes, 6).name == "custom"
    assert choose(settings(gate="custom", clip_range="99,"), shapes, 6).name == "custom"


def test_shapes_is_judged_by_its_own_ranges_for_the_count(shapes):
    gate = choose(settings(), shapes, 512)
    assert str(gate) == "published (shapes with ranges of its own)"
    assert gate.ranges.name == "shapes-512"
    assert choose(settings(gate="published"), shapes, 128).ranges.name == "shapes-128"
    lacking = choose(settings(), shapes, 6)
    assert lacking.ranges is None
    assert lacking.lacking == "shapes has ranges for 128, 512 captions, this run had 6"


@pytest.mark.parametrize(("which", "count", "name"), [("checkpoint", 5000, "official"), ("shapes", 512, "shapes-512")])
def test_other_steps_than_the_variants_own_are_shown_beside_its_range_and_not_judged(request, which, count, name):
    model = request.getfixturevalue(which)
    judged = choose(settings(), model, count).ranges
    middle = Scores(*((r.lower + r.upper) / 2 for r in (judged.clip, judged.fid)), count, judged.variant)
    assert choose(settings(shallow_steps=1), model, count).judge(middle).passed is True
    verdict = choose(settings(shallow_steps=2), model, count).judge(middle)
    assert verdict.passed is None
    assert verdict.reason == "deep steps 0,3,6,9,12,15,18: not a score of DeepCache"
    assert "PASSED" not in verdict.line
    assert verdict.notes[0].startswith(f"for information, {name}: [PASSED] CLIP_SCORE")
    own = choose(settings(shallow_steps=2, clip_range="1,100"), model, count).judge(middle)
    assert own.passed is True
    assert own.notes[0] == verdict.reason


def test_a_shard_is_not_judged_by_itself(checkpoint):
    verdict = choose(settings(shard="1/4", clip_range="31,32"), checkpoint, 1250).judge(scores(count=1250))
    assert verdict.passed is None
    assert verdict.reason.startswith("shard 1/4: to be judged with the other shards")


def test_fid_of_no_more_images_than_features_judges_nothing(checkpoint):
    gate = choose(settings(clip_range="31,32", fid_range=",400"), checkpoint, 2048)
    few = scores(fid=300.0, count=2048, identity={"fid_rank": "deficient: 2048 images for 2048 dimensions"})
    verdict = gate.judge(few)
    assert verdict.passed is None
    assert verdict.reason.startswith("FID of 2048 images for 2048 dimensions judges nothing")
    assert "PASSED" not in verdict.line


@pytest.mark.parametrize(
    ("which", "changes", "message"),
    [
        ("shapes", {"gate": "official"}, "the official range does not hold for the model shapes"),
        ("checkpoint", {"gate": "published", "model_opt": "NoOpt"}, "there are no published scores of NoOpt"),
    ],
)
def test_a_gate_that_does_not_exist_is_refused(request, which, changes, message):
    with pytest.raises(UsageError, match=message):
        choose(settings(**changes), request.getfixturevalue(which), 512)


def test_intervals_are_noted_where_there_are_any(shapes):
    gate = choose(settings(), shapes, 512)
    both = Scores(99.06412, 0.92, 512, "shapes", clip_interval=(98.9911, 99.1372), fid_interval=(0.9034, 0.9411))
    assert gate.judge(both).notes == ("95 % interval: CLIP 99.064 [98.991, 99.137], FID 0.920 [0.903, 0.941]",)
    one = dataclasses.replace(both, fid_interval=None)
    assert gate.judge(one).notes == ("95 % interval: CLIP 99.064 [98.991, 99.137]",)
    assert gate.judge(dataclasses.replace(one, clip_interval=None)).notes == ()


def test_scores_of_torchmetrics_are_judged_by_nothing_but_ranges_of_the_users(checkpoint):
    found = dataclasses.replace(scores(), variant="torchmetrics")
    verdict = choose(settings(metrics="torchmetrics"), checkpoint, 5000).judge(found)
    assert verdict.passed is None
    assert "torchmetrics" in verdict.reason
    own = choose(settings(metrics="torchmetrics", clip_range="31,32"), checkpoint, 5000)
    verdict = own.judge(found)
    assert verdict.passed is True
    assert "metric variant torchmetrics: not the benchmark's" in verdict.notes
