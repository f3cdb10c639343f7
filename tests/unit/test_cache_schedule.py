"""Deep steps as numbers and as text, and options that are no schedule."""

import pytest

from sdxl_engine.cache_schedule import deep_steps, deep_steps_text, other_steps, parse_deep_steps
from sdxl_engine.errors import UsageError
from sdxl_engine.settings import RunSettings


@pytest.mark.parametrize(
    ("model_opt", "shallow", "expected"),
    [
        ("NoOpt", 1, list(range(20))),
        ("DeepCache", 1, list(range(0, 20, 2))),
        ("DeepCachePruned", 1, list(range(0, 20, 2))),
        ("DeepCache", 3, [0, 4, 8, 12, 16]),
        ("DeepCache", 0, list(range(20))),
    ],
)
def test_deep_steps(model_opt, shallow, expected):
    assert list(deep_steps(model_opt, 20, shallow)) == expected


@pytest.mark.parametrize(
    ("text", "steps", "again"),
    [
        ("0", (0,), "0"),
        ("0-19", tuple(range(20)), "0-19"),
        ("0, 1,2 ,5-5,7", (0, 1, 2, 5, 7), "0-2,5,7"),
        ("0-1,10-12,19", (0, 1, 10, 11, 12, 19), "0,1,10-12,19"),
    ],
)
def test_text_gives_steps_and_steps_give_text(text, steps, again):
    assert parse_deep_steps(text) == steps
    assert deep_steps_text(steps) == again


@pytest.mark.parametrize(
    "text", ["", "1,2", "0,20", "0,3,2", "0,2,2", "0-4,4", "0-,5", "0,5-3", "0,-1", "0;2", "0,2.5", "²", "0-999"]
)
def test_what_is_no_schedule_is_refused(text):
    with pytest.raises(UsageError, match="not the deep steps of a run") as caught:
        RunSettings(model_opt="DeepCache", deep_steps=text).check({"deep_steps": "--deep-steps"})
    assert caught.value.parts["from"] == "--deep-steps"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"shallow_steps": 2, "deep_steps": "0,3"}, "the cache schedule is given twice"),
        ({"shallow_steps": 20}, "not so many shallow steps"),
        ({"shallow_steps": -1}, "not so many shallow steps"),
        ({"model_opt": "NoOpt", "shallow_steps": 1}, "NoOpt has no shallow steps"),
        ({"model_opt": "NoOpt", "deep_steps": "0-18"}, "NoOpt has no shallow steps"),
    ],
)
def test_contradictions_are_refused(asked, message):
    with pytest.raises(UsageError, match=message):
        RunSettings(**{"model_opt": "DeepCache"} | asked).check()


@pytest.mark.parametrize("asked", [{"shallow_steps": 0}, {"deep_steps": "0-19"}, {}])
def test_noopt_with_every_step_deep_is_no_contradiction(asked):
    RunSettings(model_opt="NoOpt", **asked).check()


def test_only_other_steps_than_the_variants_own_are_named():
    assert other_steps("DeepCache", "0,2,4,6,8,10,12,14,16,18") == ""
    assert other_steps("NoOpt", "0-19") == ""
    assert other_steps("DeepCache", "0-19") == "deep steps 0-19"
    assert other_steps("DeepCache", "unstated") == ""
