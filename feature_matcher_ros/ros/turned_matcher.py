"""A matcher for cameras that are mounted turned: networks know the world upright."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from feature_matcher_ros.datatypes import Features, Image, Matches, Pixels
from feature_matcher_ros.matchers.matcher import Matcher

_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


class TurnedMatcher:
    """Shows a matcher every image turned clockwise by some degrees; pixels stay those of the image as it is."""

    def __init__(self, matcher: Matcher, rotation_deg: int) -> None:
        self._matcher, self._rotation_deg = matcher, rotation_deg

    @property
    def name(self) -> str:
        return self._matcher.name

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        return self._matcher.extract(self._turn(image), None if mask is None else self._turn(mask))

    def match(self, features0: Features, features1: Features) -> Matches:
        matches = self._matcher.match(features0, features1)
        return replace(
            matches,
            points0=self._turn_back(matches.points0, features0.image_size),
            points1=self._turn_back(matches.points1, features1.image_size),
        )

    def _turn(self, image: Image) -> Image:
        return np.asarray(cv2.rotate(image, _TURNS[self._rotation_deg]), np.uint8)

    def _turn_back(self, points: Pixels, turned_size: tuple[int, int]) -> Pixels:
        """Map pixels (N, 2) of a turned image of (width, height) to the image as it is."""
        width, height = turned_size
        x, y = points[:, 0], points[:, 1]
        if self._rotation_deg == 90:  # the left column was the bottom row
            columns = [y, width - 1 - x]
        elif self._rotation_deg == 180:
            columns = [width - 1 - x, height - 1 - y]
        else:
            columns = [height - 1 - y, x]
        return np.stack(columns, axis=1).astype(np.float32)
