import pytest

from sdxl_engine.shapes.grammar import PHRASINGS, Scene, Thing, all_scenes, parse, split


def test_every_scene_parses_back_from_every_phrasing():
    scenes = list(all_scenes())
    assert len(scenes) == len(set(scenes)) == 29_520
    for scene in scenes[::7]:
        for phrasing in range(PHRASINGS):
            assert parse(scene.caption(phrasing)) == scene


@pytest.mark.parametrize("mirrored", ["right of", "below"])
def test_a_mirrored_relation_is_the_same_scene(mirrored):
    one, other = Thing("small", "red", "circle"), Thing("large", "blue", "ring")
    said = Scene((one, other), mirrored, "gray")
    told_from_the_other_end = Scene((other, one), {"right of": "left of", "below": "above"}[mirrored], "gray")
    assert said.canonical == told_from_the_other_end
    assert said.centres == told_from_the_other_end.centres[::-1]


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a red circle on a white background",
        "a small red circle left of on a white background",
        "a small red circle in the middle a small red ring on a white background",
        "a small red circle in the middle on a red background",
    ],
)
def test_what_is_not_of_the_grammar_is_refused(caption):
    with pytest.raises(ValueError, match="not a caption"):
        parse(caption)


def test_the_training_split_shares_no_scene_with_the_validation_split():
    captions, training = split()
    assert len(captions) == len(set(captions)) == 5000
    shown = {parse(caption).canonical for caption in captions}
    assert len(shown) == 5000
    assert not shown & set(training)
    assert len(training) == 29_520 - 5000
    assert split()[0] == captions
