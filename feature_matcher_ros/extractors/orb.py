"""ORB points with binary descriptors (Rublee et al. 2011), by OpenCV."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from feature_matcher_ros.config import ExtractorConfig
from feature_matcher_ros.datatypes import Features, Image, Pixels
from feature_matcher_ros.extractors.opencv_points import choose_points, pixels_of, to_features

_SCALE_FACTOR = 1.2
_NUM_LEVELS = 8
# Half of OpenCV's default: fewer corners than this are not enough in poorly lit rooms.
_FAST_THRESHOLD = 10
# ORB itself keeps the best of the whole image; to spread them, there must be more to choose from.
_CANDIDATES_PER_KEYPOINT = 4
_DESCRIPTOR_BYTES = 32


class Orb:
    """Oriented FAST corners; descriptors (N, 32) are uint8, 256 bits, compared by Hamming distance."""

    def __init__(self, config: ExtractorConfig) -> None:
        self._config = config
        self._orb = cv2.ORB.create(
            nfeatures=_CANDIDATES_PER_KEYPOINT * config.max_keypoints,
            scaleFactor=_SCALE_FACTOR,
            nlevels=_NUM_LEVELS,
            fastThreshold=_FAST_THRESHOLD,
        )

    @property
    def name(self) -> str:
        return "orb"

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        points = choose_points(image, mask, self._config, self._orb, _located)
        if not points.found:
            return to_features(points, np.zeros((0, _DESCRIPTOR_BYTES), dtype=np.uint8))
        for number, point in enumerate(points.found):
            point.class_id = number
        described, descriptors = self._orb.compute(points.grey, points.found)
        # OpenCV describes one pyramid level after the other, and returns points and descriptors in that order.
        order = np.argsort([point.class_id for point in described])
        return to_features(points, np.asarray(descriptors, dtype=np.uint8)[order])


def _located(found: Sequence[cv2.KeyPoint], size: tuple[int, int]) -> Pixels:
    """Undo OpenCV's way from pyramid level to image, which errs by up to 1.5 px on the upper levels.

    It multiplies a level's pixels by the nominal scale, although pixel centres lie at integers and the
    level has a whole number of pixels.
    """
    scale = _SCALE_FACTOR ** np.array([point.octave for point in found], dtype=np.float64)[:, None]
    level_size = np.rint(np.array(size) / scale)
    return ((pixels_of(found) / scale + 0.5) * (size / level_size) - 0.5).astype(np.float32)
