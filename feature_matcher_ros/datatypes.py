"""The records that travel between the parts of the front-end.

Three conventions hold everywhere:

1. **Poses.** ``b_from_a`` maps points, ``x_b = b_from_a @ x_a``, so that neighbours cancel:
   ``c_from_a = c_from_b @ b_from_a``. A camera looks along +z, x to the right, y down.
2. **Pixels.** ``(x, y)``, float32, in the original image; the centre of the top-left pixel is
   ``(0, 0)``. Index 0 is the keyframe, index 1 the current frame.
3. **Time.** ``stamp_ns``, integer nanoseconds from the message header. Seconds exist only in TUM files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.errors import CalibrationError, ImageError

Float = NDArray[np.float64]
Pixels = NDArray[np.float32]
Image = NDArray[np.uint8]


class Status(str, Enum):
    """What became of one frame. A result carries a pose if, and only if, this is ``OK``."""

    OK = "OK"
    FIRST_FRAME = "FIRST_FRAME"  # became the first keyframe, there is nothing to match it with
    REPEATED_STAMP = "REPEATED_STAMP"  # the time of the frame before, nothing was done with it
    GATED = "GATED"  # the gate saw too little change for a match to be worth its time
    TOO_FEW_FEATURES = "TOO_FEW_FEATURES"
    TOO_FEW_MATCHES = "TOO_FEW_MATCHES"
    TOO_FEW_INLIERS = "TOO_FEW_INLIERS"
    DEGENERATE = "DEGENERATE"  # the correspondences leave more than one motion possible


class TrackingState(str, Enum):
    """How the stream as a whole is doing."""

    INITIALIZING = "INITIALIZING"
    OK = "OK"
    LOST = "LOST"  # the newest frame could not be connected to any recent keyframe
    RECOVERED = "RECOVERED"  # connected again to an old keyframe after being lost


class MotionType(str, Enum):
    """What kind of two-view geometry the correspondences show."""

    GENERAL = "GENERAL"
    PLANAR = "PLANAR"  # the camera translated, the points lie on one plane
    ROTATION_ONLY = "ROTATION_ONLY"  # no measurable translation
    STATIC = "STATIC"  # no measurable motion at all
    UNKNOWN = "UNKNOWN"


class ScaleSource(str, Enum):
    """Where the length of a translation comes from; ``NONE`` means that it has no length."""

    NONE = "NONE"
    STEREO = "STEREO"
    DEPTH = "DEPTH"


class KeyframeReason(str, Enum):
    """Why the current frame became the keyframe."""

    FIRST_FRAME = "FIRST_FRAME"
    PARALLAX = "PARALLAX"
    SURVIVAL = "SURVIVAL"  # too few of the keyframe's points are still seen
    ROTATION = "ROTATION"
    TIME = "TIME"
    RECOVERY = "RECOVERY"  # connected to an old keyframe after being lost
    RESTART = "RESTART"  # lost for good: a new, unconnected beginning
    TIME_JUMP = "TIME_JUMP"  # stamps ran backwards: likewise


class StopReason(str, Enum):
    """Why a matcher with layers ran no further one."""

    LAST_LAYER = "LAST_LAYER"
    CONFIDENT = "CONFIDENT"  # further layers would hardly change a match
    NOTHING_MATCHABLE = "NOTHING_MATCHABLE"  # no point is left that could have a partner
    BUDGET = "BUDGET"  # the next layer would have taken longer than there was time for


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
    """A calibrated camera.

    Raises:
        CalibrationError: the matrix is not a camera matrix, the image size is not positive, or the
            number of distortion coefficients does not belong to the model.
    """

    K: Float  # (3, 3), pixels
    width: int
    height: int
    distortion: Float = field(default_factory=lambda: np.zeros(0))  # OpenCV's order of coefficients
    distortion_model: DistortionModel = DistortionModel.NONE

    def __post_init__(self) -> None:
        K = np.asarray(self.K)
        if K.shape != (3, 3) or not np.all(np.isfinite(K)) or K[0, 0] <= 0 or K[1, 1] <= 0:
            raise CalibrationError(
                f"K = {np.asarray(K).tolist()} is no camera matrix (the focal lengths must be positive): "
                "calibrate the camera, or give a calibration file."
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
    """

    stamp_ns: int
    image: Image  # (H, W) grey or (H, W, 3) BGR
    camera: Camera
    frame_id: str = "camera"
    stereo: StereoView | None = None
    depth: DepthView | None = None
    mask: Image | None = None  # (H, W); no features where 0

    def __post_init__(self) -> None:
        _require_image_of(self.camera, self.image, "image")

    @property
    def scale_source(self) -> ScaleSource:
        """What this frame brings to measure lengths with."""
        if self.stereo is not None:
            return ScaleSource.STEREO
        return ScaleSource.NONE if self.depth is None else ScaleSource.DEPTH


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What an extractor found in one image. Only its own matcher looks inside."""

    keypoints: Pixels  # (N, 2)
    keypoint_scores: NDArray[np.float32]  # (N,), larger is better
    descriptors: NDArray[np.float32] | NDArray[np.uint8]  # (N, D)
    image_size: tuple[int, int]  # (width, height)
    scales: NDArray[np.float32] | None = None  # (N,), diameter in pixels
    orientations: NDArray[np.float32] | None = None  # (N,), radians, clockwise from +x

    def __len__(self) -> int:
        return len(self.keypoints)


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Correspondences of one pair, and what it cost to find them."""

    points0: Pixels  # (M, 2), in the keyframe
    points1: Pixels  # (M, 2), in the current frame
    scores: NDArray[np.float32]  # (M,), in [0, 1], larger is better
    indices: NDArray[np.int32] | None = None  # (M, 2), keypoint numbers; None if detector-free
    layers_run: int | None = None  # None where the matcher has no layers
    stop_reason: StopReason | None = None  # likewise
    points_per_stage: NDArray[np.int32] | None = None  # (stages run, 2), points of either image that entered the stage
    stages_ms: Mapping[str, float] | None = None  # of the steps "embed", "stage1", ..., "head"

    def __len__(self) -> int:
        return len(self.points0)


@dataclass(frozen=True, slots=True, eq=False)
class MetricPoints:
    """Places of some pixels of one image in metres, measured by stereo or depth."""

    points: Float  # (M, 3), in the axes of the camera; NaN where unknown
    sigma_m: Float  # (M,), standard deviation of the depth; NaN where unknown
    scale_source: ScaleSource


@dataclass(frozen=True, slots=True, eq=False)
class RelativePose:
    """The motion between two frames, and how well it is known.

    ``covariance`` belongs to a small motion applied after the pose, in the axes of camera 1. Its order
    is that of REP-103, translation before rotation: (6, 6) where there is a ``direction`` and (3, 3),
    rotation alone, where there is none. Units are metres and radians; without a ``scale_source`` the
    translation part is that of the unit direction, of rank 2, and says nothing about length.
    """

    rotation: Float  # (3, 3), cam1_from_cam0
    direction: Float | None  # (3,), unit; where camera 0 lies seen from camera 1; None without translation
    baseline_m: float | None  # length of the translation; None without a scale source
    scale_source: ScaleSource
    motion_type: MotionType
    covariance: Float

    @property
    def cam1_from_cam0(self) -> Float:
        """(4, 4): metric if ``baseline_m`` is known, else with a translation of unit or zero length."""
        pose = np.eye(4)
        pose[:3, :3] = self.rotation
        if self.direction is not None:
            pose[:3, 3] = self.direction * (1.0 if self.baseline_m is None else self.baseline_m)
        return pose


@dataclass(frozen=True, slots=True, eq=False)
class PoseEstimate:
    """The outcome of ``estimate_relative_pose``: a pose, or the reason why there is none."""

    status: Status
    pose: RelativePose | None  # None if, and only if, status is not OK
    motion_type: MotionType
    inliers: NDArray[np.bool_]  # (M,), the matches that agree with the motion

    @property
    def num_inliers(self) -> int:
        return int(np.count_nonzero(self.inliers))

    @property
    def inlier_ratio(self) -> float:
        return self.num_inliers / len(self.inliers) if len(self.inliers) else 0.0


@dataclass(frozen=True, slots=True)
class GateMeasurement:
    """What optical flow from the keyframe shows, at a fraction of the price of a match."""

    parallax_px: float  # median displacement left after the best rotation is taken away
    displacement_px: float  # median displacement
    survival: float  # share of the keyframe's points that are still seen, in [0, 1]
    rotation_deg: float


@dataclass(frozen=True, slots=True, eq=False)
class Odometry:
    """The place of one frame in the world of its segment (the first frame of a segment is its origin)."""

    world_from_cam: Float  # (4, 4)
    scale_source: ScaleSource  # NONE: one unknown scale for the whole segment
    segment: int


@dataclass(frozen=True, slots=True, eq=False)
class FrontEndResult:
    """All there is to say about one frame."""

    stamp_ns: int
    frame_id: str
    status: Status
    state: TrackingState
    motion_type: MotionType
    keyframe_stamp_ns: int | None  # of the keyframe this frame was compared with
    keyframe_reason: KeyframeReason | None  # why this frame is the new keyframe; None if it is not
    gate: GateMeasurement | None
    matches: Matches | None
    inliers: NDArray[np.bool_] | None  # (M,)
    track_ids: NDArray[np.uint32] | None  # (M,), the same id for the same point across keyframes
    pose: RelativePose | None
    odometry: Odometry | None
    stages_ms: Mapping[str, float]

    @property
    def is_keyframe(self) -> bool:
        return self.keyframe_reason is not None


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """Poses over time, stamps strictly increasing."""

    stamps_ns: NDArray[np.int64]  # (N,)
    world_from_cam: Float  # (N, 4, 4)

    def __len__(self) -> int:
        return len(self.stamps_ns)
