"""The images of a scene: a photograph lying in space, or a room hung with photographs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from feature_matcher_ros.datatypes import Image
from feature_matcher_ros.training.config import DataConfig
from feature_matcher_ros.training.flat_scenes import flat_pictures
from feature_matcher_ros.training.photographs import procedural_photograph, read_photograph
from feature_matcher_ros.training.rendered_scenes import draw_photographs, rendered_pictures
from feature_matcher_ros.training.views import Picture

_NUM_PROCEDURAL = 256
_PHOTOGRAPHS_PER_ROOM = 40


def scene_pictures(
    config: DataConfig, photographs: Sequence[Path], number: int, rng: np.random.Generator, device: str = "cpu"
) -> list[Picture]:
    """All images of a scene; without photographs, procedural images take their place. A ``device`` renders rooms."""
    if not config.is_rendered(number):
        photograph = _photograph(photographs, number)
        return flat_pictures(photograph, config.views_per_scene, config.image_size, rng)
    chosen = rng.integers(0, len(photographs) or _NUM_PROCEDURAL, _PHOTOGRAPHS_PER_ROOM)
    draw = draw_photographs([_photograph(photographs, int(choice)) for choice in chosen], rng)
    return rendered_pictures(draw, config.views_per_scene, config.image_size, rng, device)


def _photograph(photographs: Sequence[Path], number: int) -> Image:
    if not photographs:
        return _procedural(number % _NUM_PROCEDURAL)
    return _read(photographs[number % len(photographs)])


_read = lru_cache(maxsize=512)(read_photograph)
_procedural = lru_cache(maxsize=_NUM_PROCEDURAL)(procedural_photograph)
