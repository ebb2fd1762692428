"""Cameras, and how two of them stand to each other, from ``sensor_msgs/CameraInfo`` (REP-104)."""

from __future__ import annotations

import re
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from feature_matcher_ros.datatypes import Camera, DistortionModel, Float
from feature_matcher_ros.errors import CalibrationError
from feature_matcher_ros.geometry import invert_pose, pose_from


class CameraInfoMessage(Protocol):
    """The fields of ``sensor_msgs/msg/CameraInfo`` that matter here."""

    height: int
    width: int
    distortion_model: str
    d: Any
    k: Any  # (9,)
    r: Any  # (9,)
    p: Any  # (12,)
    binning_x: int
    binning_y: int
    roi: Any  # x_offset, y_offset, width, height


_MODELS = {model.value: model for model in DistortionModel} | {"fisheye": DistortionModel.EQUIDISTANT}
_MADE_FLAT = re.compile(r"image_rect(_|$)")


def is_rectified(image_topic: str) -> bool:
    """Tell from a topic's name whether its images have been rectified: ``image_rect``, ``image_rect_color`` ..."""
    return any(_MADE_FLAT.match(part) for part in image_topic.split("/"))


def camera_from_info(info: CameraInfoMessage, topic: str, *, rectified: bool = False) -> Camera:
    """Build the camera of the images that come with ``info``, region of interest and binning applied.

    Raw images have the matrix K and the distortion D, rectified ones the matrix P and no distortion. A
    binned pixel covers several: its centre is the middle of theirs, so that binning by b moves the
    principal point c to ``(c + 0.5) / b - 0.5``.

    Raises:
        CalibrationError: the camera is not calibrated, or its lens model is unknown.
    """
    try:
        distortion, model = (np.zeros(0), DistortionModel.NONE) if rectified else _lens(info)
        matrix = _rectified_matrix(info) if rectified else np.asarray(info.k, np.float64).reshape(3, 3)
        if matrix[0, 0] == 0:
            raise CalibrationError("K[0] is 0, which says that the camera is not calibrated: give a calibration file.")
        return _cropped_and_binned(matrix, info, distortion, model)
    except CalibrationError as error:
        raise CalibrationError(f"CameraInfo on '{topic}': {error}") from error


def right_from_left(left: CameraInfoMessage, right: CameraInfoMessage, *, rectified: bool = False) -> Float | None:
    """Return the pose (4, 4) of a calibrated stereo pair in metres; None if the messages do not hold it.

    The fourth column of P holds the baseline between the rectified cameras (``Tx = -fx * baseline``), R turns
    each camera into its rectified one; images that are not rectified take both.
    """
    P_left, P_right = (np.asarray(info.p, np.float64).reshape(3, 4) for info in (left, right))
    if min(P_left[0, 0], P_left[1, 1], P_right[0, 0], P_right[1, 1]) <= 0:
        return None
    baseline = P_right[:2, 3] / P_right[[0, 1], [0, 1]] - P_left[:2, 3] / P_left[[0, 1], [0, 1]]
    if not np.any(baseline):
        return None
    flat_right_from_flat_left = pose_from(np.eye(3), [*baseline, 0.0])
    if rectified:
        return flat_right_from_flat_left
    return invert_pose(_rectification(right.r)) @ flat_right_from_flat_left @ _rectification(left.r)


def _lens(info: CameraInfoMessage) -> tuple[Float, DistortionModel]:
    coefficients = np.array(info.d, np.float64)
    name = info.distortion_model.strip().lower()
    model = DistortionModel.PLUMB_BOB if name == "" and not np.any(coefficients) else _MODELS.get(name)
    if model is None:
        known = ", ".join(member.value for member in DistortionModel)
        raise CalibrationError(
            f"distortion_model '{info.distortion_model}' with D = {coefficients.tolist()} is not supported: "
            f"it must be one of {known}."
        )
    if model is not DistortionModel.EQUIDISTANT and not np.any(coefficients):
        return np.zeros(0), DistortionModel.NONE
    return coefficients, model


def _rectified_matrix(info: CameraInfoMessage) -> Float:
    matrix = np.asarray(info.p, np.float64).reshape(3, 4)[:, :3]
    if matrix[0, 0] == 0 and np.any(info.d):
        raise CalibrationError("P[0] is 0 although the images are rectified: give a calibration file.")
    return np.asarray(info.k, np.float64).reshape(3, 3) if matrix[0, 0] == 0 else matrix


def _rectification(rotation: ArrayLike) -> Float:
    """The pose that turns points into the axes of the rectified camera; drivers of flat cameras leave R zero."""
    matrix = np.asarray(rotation, np.float64).reshape(3, 3)
    return pose_from(matrix, np.zeros(3)) if np.any(matrix) else np.eye(4)


def _cropped_and_binned(matrix: Float, info: CameraInfoMessage, distortion: Float, model: DistortionModel) -> Camera:
    roi, bins = info.roi, np.array([max(info.binning_x, 1), max(info.binning_y, 1)])
    size = np.array([roi.width or info.width, roi.height or info.height]) // bins
    K = np.eye(3)
    K[:2, :2] = matrix[:2, :2] / bins[:, None]
    K[:2, 2] = (matrix[:2, 2] - [roi.x_offset, roi.y_offset] + 0.5) / bins - 0.5
    return Camera(K, int(size[0]), int(size[1]), distortion, model)
