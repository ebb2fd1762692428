"""OpenCV's robust essential matrix, for comparison with ``estimate_relative_pose`` on the same matches."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.config import PoseConfig
from feature_matcher_ros.datatypes import Camera, Float
from feature_matcher_ros.geometry import mean_focal_length, normalize_points


def estimate_relative_pose_opencv(
    points0: NDArray[np.floating],
    points1: NDArray[np.floating],
    camera0: Camera,
    camera1: Camera,
    config: PoseConfig,
) -> tuple[Float, Float, NDArray[np.bool_]] | None:
    """Estimate rotation (3, 3), unit direction (3,) and inliers (M,) from pixels (M, 2); None if OpenCV finds none.

    The points are undistorted first, so that every lens is treated alike. USAC draws its samples with a fixed seed of
    its own.
    """
    if len(points0) < 5:
        return None
    x0, x1 = normalize_points(points0, camera0), normalize_points(points1, camera1)
    threshold = config.max_epipolar_error_px / ((mean_focal_length(camera0) + mean_focal_length(camera1)) / 2.0)
    E, mask = cv2.findEssentialMat(
        x0,
        x1,
        np.eye(3),
        method=cv2.USAC_MAGSAC,
        prob=config.success_probability,
        threshold=threshold,
        maxIters=config.max_iterations,
    )
    if E is None or E.shape != (3, 3):
        return None
    _, rotation, direction, mask = cv2.recoverPose(E, x0, x1, np.eye(3), mask=mask)
    return rotation, direction.ravel(), mask.ravel() > 0
