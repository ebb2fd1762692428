"""SIFT points (Lowe 2004) with RootSIFT descriptors (Arandjelovic and Zisserman 2012), by OpenCV."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.config import ExtractorConfig
from feature_matcher_ros.datatypes import Features, Image, Pixels
from feature_matcher_ros.extractors.opencv_points import choose_points, pixels_of, to_features

# A quarter of OpenCV's default. It finds 1900 to 3900 points in ordinary 640x480 images, so that 1024 can be
# chosen; in poorly lit rooms the default finds too few, and lower values add points but no inliers.
_CONTRAST_THRESHOLD = 0.01
_DESCRIPTOR_LENGTH = 128


class Sift:
    """Scale-invariant points; descriptors (N, 128) are float32 of unit length, compared by L2."""

    def __init__(self, config: ExtractorConfig) -> None:
        self._config = config
        # Without precise upscaling OpenCV's points lie 0.25 px off, to the right and below.
        self._sift = cv2.SIFT.create(nfeatures=0, contrastThreshold=_CONTRAST_THRESHOLD, enable_precise_upscale=True)

    @property
    def name(self) -> str:
        return "sift"

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        points = choose_points(image, mask, self._config, self._sift, _located)
        if not points.found:
            return to_features(points, np.zeros((0, _DESCRIPTOR_LENGTH), dtype=np.float32))
        _, descriptors = self._sift.compute(points.grey, points.found)
        return to_features(points, _to_root_sift(np.asarray(descriptors, dtype=np.float32)))


def _located(found: Sequence[cv2.KeyPoint], size: tuple[int, int]) -> Pixels:
    return pixels_of(found)


def _to_root_sift(descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Square root of the L1-normalised descriptors (N, 128): L2 then compares them as histograms."""
    positive = descriptors + np.float32(1e-6)  # a patch without gradients too gets a vector of unit length
    return np.sqrt(positive / positive.sum(axis=1, keepdims=True))
