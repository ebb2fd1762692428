"""Calibrated cameras."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike

from feature_matcher_ros.datatypes.arrays import Float
from feature_matcher_ros.errors import CalibrationError


class DistortionModel(str, Enum):
    """Lens models, by the names of ``sensor_msgs/distortion_models.hpp``; ``NONE`` is a pinhole."""

    NONE = "none"
    PLUMB_BOB = "plumb_bob"
    RATIONAL_POLYNOMIAL = "rational_polynomial"
    EQUIDISTANT = "equidistant"


_DISTORTION_LENGTHS = {
    DistortionModel.NONE: (0,),
    DistortionModel.PLUMB_BOB: (4, 5),
    DistortionModel.RATIONAL_POLYNOMIAL: (8, 12, 14),
    DistortionModel.EQUIDISTANT: (4,),
}


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """A calibrated camera; numbers may be given as lists or as OpenCV returns them, and the model by its name.

    Raises:
        CalibrationError: the matrix is not a camera matrix, the image size is not positive, the model is unknown, a
            distortion coefficient is not finite, or their number does not belong to the model.
    """

    K: Float  # (3, 3), pixels
    width: int
    height: int
    distortion: Float = field(default_factory=lambda: np.zeros(0))  # OpenCV's order of coefficients
    distortion_model: DistortionModel = DistortionModel.NONE

    def __post_init__(self) -> None:
        K = _numbers(self.K, "K")
        object.__setattr__(self, "K", K)
        object.__setattr__(self, "distortion", _numbers(self.distortion, "D").ravel())
        object.__setattr__(self, "distortion_model", _model(self.distortion_model))
        if K.shape != (3, 3) or not np.all(np.isfinite(K)) or K[0, 0] <= 0 or K[1, 1] <= 0:
            raise CalibrationError(
                f"K = {K.tolist()} is no camera matrix (the focal lengths must be positive): "
                "calibrate the camera, or give a calibration file."
            )
        if K[1, 0] != 0 or np.any(K[2] != [0, 0, 1]):
            raise CalibrationError(
                f"K = {K.tolist()} is no camera matrix (row by row it must be fx, 0, cx, 0, fy, cy, 0, 0, 1): "
                "correct it, or transpose it."
            )
        if self.width <= 0 or self.height <= 0:
            raise CalibrationError(
                f"a camera cannot have {self.width}x{self.height} pixels: set width and height in the calibration."
            )
        if len(self.distortion) not in _DISTORTION_LENGTHS[self.distortion_model]:
            allowed = " or ".join(map(str, _DISTORTION_LENGTHS[self.distortion_model]))
            raise CalibrationError(
                f"{len(self.distortion)} distortion coefficients do not fit the model "
                f"'{self.distortion_model.value}', which takes {allowed}: correct D or distortion_model."
            )
        if not np.all(np.isfinite(self.distortion)):
            raise CalibrationError(
                f"D = {self.distortion.tolist()} holds what is no number: calibrate the camera, or give a "
                "calibration file."
            )

    def is_same_as(self, other: Camera) -> bool:
        """Whether both project alike, to half a pixel, as the cameras of registered images do."""
        same_size = (self.width, self.height) == (other.width, other.height)
        if not same_size or not np.allclose(self.K, other.K, atol=0.5):
            return False
        if self._bends_nothing() or other._bends_nothing():
            return self._bends_nothing() and other._bends_nothing()
        return self.distortion_model is other.distortion_model and np.array_equal(self.distortion, other.distortion)

    def _bends_nothing(self) -> bool:
        return self.distortion_model is not DistortionModel.EQUIDISTANT and not np.any(self.distortion)


def _numbers(value: ArrayLike, name: str) -> Float:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"{name} = {value!r} does not consist of numbers: correct it.") from error


def _model(name: str) -> DistortionModel:
    try:
        return DistortionModel(name)
    except ValueError as error:
        known = ", ".join(model.value for model in DistortionModel)
        raise CalibrationError(f"the distortion model '{name}' is not supported: it must be one of {known}.") from error
