"""The caption grammar of `shapes`: scenes of one or two coloured shapes on a plain background, and their sentences.

A scene is what the picture shows; a caption is one of three phrasings of it. Captions parse back to their scene, so a
checker needs nothing but the caption. The validation split holds out whole scenes: no phrasing of a validation scene
is ever trained on, nor its mirror image ("a left of b" shows the same as "b right of a").
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPES = ("circle", "square", "triangle", "cross", "ring")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 30),
    "green": (30, 160, 50),
    "blue": (35, 70, 225),
    "yellow": (245, 215, 30),
    "pink": (250, 110, 190),
    "cyan": (40, 210, 225),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (245, 245, 245),
    "gray": (128, 128, 128),
    "black": (12, 12, 12),
    "brown": (110, 65, 25),
}
"""sRGB, 0 to 255. The palettes share no colour and keep at least 75 levels apart in RGB distance."""

SIZES: dict[str, float] = {"small": 13.0, "large": 24.0}
"""Radius in pixels of a 128x128 picture."""

RELATIONS = ("left of", "right of", "above", "below")
PLACES: dict[str, tuple[float, float]] = {
    "in the middle": (64.0, 64.0),
    "on the left": (34.0, 64.0),
    "on the right": (94.0, 64.0),
    "at the top": (64.0, 34.0),
    "at the bottom": (64.0, 94.0),
}
"""Centre (x, y) in pixels, y down. Objects of a pair stand at the two places that their relation names."""

_PAIR_PLACES = {
    "left of": ("on the left", "on the right"),
    "right of": ("on the right", "on the left"),
    "above": ("at the top", "at the bottom"),
    "below": ("at the bottom", "at the top"),
}
_MIRRORED = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@dataclass(frozen=True, order=True)
class Thing:
    """One object: its size, colour and shape, each a word of the grammar."""

    size: str
    colour: str
    shape: str

    def __str__(self) -> str:
        return f"a {self.size} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """What one picture shows.

    Args:
        things: One or two objects.
        where: The place of a single object, or the relation of the first object to the second.
        background: A word of `BACKGROUNDS`.
    """

    things: tuple[Thing, ...]
    where: str
    background: str

    @property
    def centres(self) -> tuple[tuple[float, float], ...]:
        """Centre (x, y) of each object in pixels, before the renderer's jitter."""
        places = (self.where,) if len(self.things) == 1 else _PAIR_PLACES[self.where]
        return tuple(PLACES[place] for place in places)

    @property
    def canonical(self) -> Scene:
        """The one of the two equivalent descriptions of a pair that says `left of` or `above`."""
        if self.where in {"right of", "below"}:
            return Scene(self.things[::-1], _MIRRORED[self.where], self.background)
        return self

    def caption(self, phrasing: int) -> str:
        """The scene in words.

        Args:
            phrasing: 0, 1 or 2.
        """
        subject = " ".join([str(self.things[0]), self.where, *map(str, self.things[1:])])
        return _PHRASINGS[phrasing].format(subject=subject, background=self.background)


_PHRASINGS = (
    "{subject} on a {background} background",
    "a {background} background with {subject}",
    "a picture of {subject} , {background} background",
)
PHRASINGS = len(_PHRASINGS)

_THING = rf"a ({'|'.join(SIZES)}) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
_SUBJECT = rf"{_THING} ({'|'.join([*PLACES, *RELATIONS])})(?: {_THING})?"
_SENTENCES = tuple(
    re.compile(phrasing.format(subject=_SUBJECT, background=f"(?P<background>{'|'.join(BACKGROUNDS)})"))
    for phrasing in _PHRASINGS
)


def parse(caption: str) -> Scene:
    """The scene a caption describes.

    Raises:
        ValueError: the caption is not a sentence of the grammar.
    """
    for sentence in _SENTENCES:
        match = sentence.fullmatch(caption)
        if match is None:
            continue
        background = match["background"]
        words = [word for word in match.groups() if word is not None]
        words.remove(background)
        things = [Thing(*words[:3])] + ([Thing(*words[4:])] if len(words) > 4 else [])
        if (words[3] in RELATIONS) == (len(things) == 2):
            return Scene(tuple(things), words[3], background)
    raise ValueError(f"not a caption of the shapes grammar: {caption!r}")


def all_scenes() -> Iterator[Scene]:
    """Every canonical scene, in a fixed order: singles, then pairs of two different objects."""
    things = [Thing(*words) for words in product(SIZES, COLOURS, SHAPES)]
    for thing, place, background in product(things, PLACES, BACKGROUNDS):
        yield Scene((thing,), place, background)
    for first, second, relation, background in product(things, things, ("left of", "above"), BACKGROUNDS):
        if first != second:
            yield Scene((first, second), relation, background)


def _as_said(scene: Scene, rng: random.Random) -> Scene:
    """The scene told from a random one of its two ends."""
    if len(scene.things) == 2 and rng.random() < 0.5:
        return Scene(scene.things[::-1], _MIRRORED[scene.where], scene.background)
    return scene


def split(validation: int = 5000, single_share: float = 0.1, seed: int = 2024) -> tuple[list[str], list[Scene]]:
    """The fixed split: captions to validate on, and canonical scenes to train on.

    Args:
        validation: How many validation captions, each of another scene.
        single_share: Share of them that show one object.
        seed: Of the choice of scenes, phrasings and order.

    Returns:
        The validation captions in their order, and every canonical scene that none of them shows.
    """
    rng = random.Random(seed)
    singles: list[Scene] = []
    pairs: list[Scene] = []
    for scene in all_scenes():
        (singles if len(scene.things) == 1 else pairs).append(scene)
    single_count = round(validation * single_share)
    held_out = rng.sample(singles, single_count) + rng.sample(pairs, validation - single_count)
    rng.shuffle(held_out)
    captions = [_as_said(scene, rng).caption(rng.randrange(PHRASINGS)) for scene in held_out]
    gone = set(held_out)
    return captions, [scene for scene in singles + pairs if scene not in gone]


def training_captions(scenes: list[Scene], count: int, single_share: float, seed: int) -> list[tuple[str, Scene]]:
    """`count` random (caption, scene as said) pairs drawn from `scenes`, with the given share of single objects."""
    rng = random.Random(seed)
    singles = [scene for scene in scenes if len(scene.things) == 1]
    pairs = [scene for scene in scenes if len(scene.things) == 2]
    drawn = []
    for _ in range(count):
        scene = _as_said(rng.choice(singles if rng.random() < single_share else pairs), rng)
        drawn.append((scene.caption(rng.randrange(PHRASINGS)), scene))
    return drawn
