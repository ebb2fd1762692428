"""Where images show little, and which matches lie there: the reason for matching without detected points."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from feature_matcher_ros.datatypes import Image, Matches
from feature_matcher_ros.evaluation.metrics import symmetric_epipolar_errors
from feature_matcher_ros.evaluation.pair_sets import ImagePair
from feature_matcher_ros.extractors.selection import inside_mask
from feature_matcher_ros.geometry import normalize_points
from feature_matcher_ros.images import image_size, to_grey

AREA_SHARE = 1.0 / 3.0  # of an image that counts as low in texture
_WINDOW_SHARE = 1.0 / 20.0  # of the longer side: how far around a pixel texture helps it
_NOISE_SIGMA_PX = 1.0  # a blur that takes most of the noise and little of the texture


@dataclass(frozen=True, slots=True)
class LowTexture:
    """Matches whose point in the first image lies where that shows little."""

    num_matches: int
    num_correct: int


def low_texture_mask(image: Image) -> Image:
    """255 in the third (H, W) of an image around whose pixels the squared gradient is least, in the mean of a window.

    It asks no detector and no network, so that it favours none of them.
    """
    grey = cv2.GaussianBlur(to_grey(image).astype(np.float32), (0, 0), _NOISE_SIGMA_PX)
    energy = cv2.Sobel(grey, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(grey, cv2.CV_32F, 0, 1) ** 2
    side = 2 * max(1, round(max(image_size(image)) * _WINDOW_SHARE / 2.0)) + 1
    around = cv2.boxFilter(energy, -1, (side, side), borderType=cv2.BORDER_REFLECT)
    return np.where(around <= np.quantile(around, AREA_SHARE), 255, 0).astype(np.uint8)


def low_texture_matches(pair: ImagePair, image0: Image, matches: Matches, max_error: float) -> LowTexture:
    """Count them; correct is what agrees with the true motion, whose translation has to be above zero.

    ``max_error`` is that of ``symmetric_epipolar_errors``.
    """
    lies_there = inside_mask(matches.points0, low_texture_mask(image0))
    rays0 = normalize_points(matches.points0, pair.camera0)
    rays1 = normalize_points(matches.points1, pair.camera1)
    is_correct = symmetric_epipolar_errors(pair.cam1_from_cam0, rays0, rays1) < max_error
    return LowTexture(int(np.count_nonzero(lies_there)), int(np.count_nonzero(lies_there & is_correct)))
