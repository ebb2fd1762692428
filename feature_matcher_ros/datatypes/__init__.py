"""The records that travel between the parts of the front-end.

Three conventions hold everywhere:

1. **Poses.** ``b_from_a`` maps points, ``x_b = b_from_a @ x_a``, so that neighbours cancel:
   ``c_from_a = c_from_b @ b_from_a``. A camera looks along +z, x to the right, y down.
2. **Pixels.** ``(x, y)``, float32, in the original image; the centre of the top-left pixel is
   ``(0, 0)``. Index 0 is the keyframe, index 1 the current frame.
3. **Time.** ``stamp_ns``, integer nanoseconds from the message header. Seconds exist only in TUM files.
"""

from feature_matcher_ros.datatypes.arrays import Float, Image, Pixels
from feature_matcher_ros.datatypes.cameras import Camera, DistortionModel
from feature_matcher_ros.datatypes.frames import DepthView, Frame, ScaleSource, StereoView
from feature_matcher_ros.datatypes.matches import Features, Matches, StopReason
from feature_matcher_ros.datatypes.poses import Estimator, MetricPoints, MotionType, Odometry, RelativePose, Trajectory
from feature_matcher_ros.datatypes.results import (
    FrontEndResult,
    GateMeasurement,
    KeyframeReason,
    PoseEstimate,
    Status,
    TrackingState,
)

__all__ = [
    "Camera",
    "DepthView",
    "DistortionModel",
    "Estimator",
    "Features",
    "Float",
    "Frame",
    "FrontEndResult",
    "GateMeasurement",
    "Image",
    "KeyframeReason",
    "Matches",
    "MetricPoints",
    "MotionType",
    "Odometry",
    "Pixels",
    "PoseEstimate",
    "RelativePose",
    "ScaleSource",
    "Status",
    "StereoView",
    "StopReason",
    "TrackingState",
    "Trajectory",
]
