"""Images with their time and camera, and what gives them metric scale."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes.arrays import Float, Image
from feature_matcher_ros.datatypes.cameras import Camera
from feature_matcher_ros.errors import CalibrationError, FrameError, ImageError


class ScaleSource(str, Enum):
    """Where the length of a translation comes from; ``NONE`` means that it has no length."""

    NONE = "NONE"
    STEREO = "STEREO"
    DEPTH = "DEPTH"


@dataclass(frozen=True, slots=True, eq=False)
class StereoView:
    """The right image of a stereo pair, taken at the same time; not assumed to be rectified.

    Raises:
        ImageError: the image is empty, not 8-bit grey or BGR, or not of the size of its camera.
        CalibrationError: both cameras are at the same place.
    """

    image: Image  # (H, W) grey or (H, W, 3) BGR
    camera: Camera
    right_from_left: Float  # (4, 4), metres

    def __post_init__(self) -> None:
        _require_image_of(self.camera, self.image, "right image")
        baseline_m = float(np.linalg.norm(self.right_from_left[:3, 3]))
        if not 0.0 < baseline_m < np.inf:
            raise CalibrationError(
                f"a stereo baseline of {baseline_m} m gives no depth: correct the pose of the right camera, "
                "or that P[3] of its CameraInfo which is -fx times the baseline."
            )


@dataclass(frozen=True, slots=True, eq=False)
class DepthView:
    """A depth map taken at the same time, by the camera itself or by one beside it.

    Raises:
        ImageError: the map is not of a floating-point type, or not of the size of its camera.
    """

    depth_m: NDArray[np.float32]  # (H, W) along the optical axis; NaN where unknown
    camera: Camera
    cam_from_depth: Float  # (4, 4), metres; the identity for registered depth

    def __post_init__(self) -> None:
        if self.depth_m.dtype.kind != "f" or self.depth_m.ndim != 2:
            raise ImageError(
                f"a depth map of shape {self.depth_m.shape} and type {self.depth_m.dtype} cannot be used: "
                "give metres as floating-point numbers (H, W)."
            )
        _require_size_of(self.camera, self.depth_m, "depth map")


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image with its time and its camera, and what gives it metric scale.

    Raises:
        ImageError: the image is empty, not 8-bit grey or BGR, or not of the size of its camera.
        FrameError: the stamp is not an integer, as seconds are not.
    """

    stamp_ns: int
    image: Image  # (H, W) grey or (H, W, 3) BGR
    camera: Camera
    frame_id: str = "camera"
    stereo: StereoView | None = None
    depth: DepthView | None = None
    mask: Image | None = None  # (H, W); no features where 0

    def __post_init__(self) -> None:
        if not isinstance(self.stamp_ns, Integral):
            reason = "a stamp counts nanoseconds: give round(1e9 * seconds)."
            raise FrameError(self.stamp_ns, self.frame_id, reason)
        _require_image_of(self.camera, self.image, "image")

    @property
    def scale_source(self) -> ScaleSource:
        """What this frame brings to measure lengths with."""
        if self.stereo is not None:
            return ScaleSource.STEREO
        return ScaleSource.NONE if self.depth is None else ScaleSource.DEPTH


def _require_image_of(camera: Camera, image: Image, what: str) -> None:
    if image.dtype != np.uint8 or image.size == 0 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise ImageError(
            f"no {what} of shape {image.shape} and type {image.dtype} can be used: "
            "give 8-bit grey (H, W) or BGR (H, W, 3)."
        )
    _require_size_of(camera, image, what)


def _require_size_of(camera: Camera, pixels: NDArray[Any], what: str) -> None:
    if pixels.shape[:2] != (camera.height, camera.width):
        raise ImageError(
            f"the {what} has {pixels.shape[1]}x{pixels.shape[0]} pixels but its camera "
            f"{camera.width}x{camera.height}: publish the CameraInfo of this very image size."
        )
