"""The steps that all detectors of OpenCV share: shrink, detect, choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.config import ExtractorConfig
from feature_matcher_ros.datatypes import Features, Image, Pixels
from feature_matcher_ros.extractors.selection import drop_repeated, inside_mask, require_mask_of, select_spread
from feature_matcher_ros.images import image_size, shrink_to_fit, to_grey, to_original_pixels

# OpenCV's detectors fail on images of a few pixels, and no patch fits into one that is smaller than this.
_MIN_SIDE_PX = 16

Locate = Callable[[Sequence[cv2.KeyPoint], tuple[int, int]], Pixels]


@dataclass(frozen=True, slots=True, eq=False)
class ChosenPoints:
    """The points to describe, best first: as OpenCV needs them, and where they lie in the original image."""

    grey: Image  # the image they were found in, possibly shrunk
    found: tuple[cv2.KeyPoint, ...]  # pixels of ``grey``
    keypoints: Pixels  # (N, 2), pixels of the original image
    original_size: tuple[int, int]  # (width, height)


def choose_points(
    image: Image, mask: Image | None, config: ExtractorConfig, detector: cv2.Feature2D, locate: Locate
) -> ChosenPoints:
    """Detect points and keep the best, spread over the image, one at each place, none where the mask is 0.

    ``locate`` says where detected points lie, given the (width, height) of the image they were found in.

    Raises:
        MatcherError: the mask is not of the size of the image.
    """
    require_mask_of(image, mask)
    grey = shrink_to_fit(to_grey(image), config.max_image_px)
    found = detector.detect(grey, None) if min(grey.shape) >= _MIN_SIDE_PX else ()
    keypoints = to_original_pixels(locate(found, image_size(grey)), image_size(grey), image_size(image))
    candidates = drop_repeated(keypoints)
    if mask is not None:
        candidates = candidates[inside_mask(keypoints[candidates], mask)]
    scores = _responses(found)[candidates]
    best = select_spread(keypoints[candidates], scores, config.max_keypoints, config.grid_cell_px)
    kept = candidates[best]
    return ChosenPoints(grey, tuple(found[i] for i in kept), keypoints[kept], image_size(image))


def to_features(points: ChosenPoints, descriptors: NDArray[np.float32] | NDArray[np.uint8]) -> Features:
    """Put together what is known about the points; sizes are brought to the scale of the original image."""
    scale = max(points.original_size) / max(image_size(points.grey))
    return Features(
        keypoints=points.keypoints,
        keypoint_scores=_responses(points.found),
        descriptors=descriptors,
        image_size=points.original_size,
        scales=np.array([point.size * scale for point in points.found], dtype=np.float32),
        orientations=np.radians(np.array([point.angle for point in points.found], dtype=np.float32)),
    )


def pixels_of(found: Sequence[cv2.KeyPoint]) -> Pixels:
    """Pixels (N, 2) as OpenCV reports them."""
    return np.array([point.pt for point in found], dtype=np.float32).reshape(-1, 2)


def _responses(found: Sequence[cv2.KeyPoint]) -> NDArray[np.float32]:
    return np.array([point.response for point in found], dtype=np.float32)
