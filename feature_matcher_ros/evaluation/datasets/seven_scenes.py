"""7-Scenes: ``frame-N.color.png``, ``frame-N.depth.png`` and ``frame-N.pose.txt`` of a first-generation Kinect.

Source of the form: Shotton et al., Scene Coordinate Regression Forests, CVPR 2013, and its readme: depth
in millimetres, poses ``world_from_depth`` in metres, f = 585 and c = (320, 240) for the depth camera.

The colour images are not registered to the depth and their camera was never published. What is assumed
here, f = 525 and 2.5 cm between the two cameras, is the nominal Kinect. It was checked on a stretch of
the red kitchen: the image gradient at the edges of the depth map, projected into the image, is 2.6 times
that elsewhere with the colour camera to the right, 1.7 times with both at one place and 1.4 times with
it to the left; f = 517 gives 1.8 instead of 2.6. Over the given motions the reprojection error is least,
and equal to a hundredth of a pixel, for 517 and 525.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from feature_matcher_ros.datatypes import Camera, Float, Trajectory
from feature_matcher_ros.errors import SourceError
from feature_matcher_ros.evaluation.calibration import Calibration, DepthCalibration, load_calibration
from feature_matcher_ros.evaluation.datasets.file_sequence import FileSequence, FrameFiles, Recording
from feature_matcher_ros.evaluation.image_files import list_images, number_from_name
from feature_matcher_ros.evaluation.sequences import Selection, SequenceInfo
from feature_matcher_ros.evaluation.text_tables import read_rows
from feature_matcher_ros.evaluation.trajectories import trajectory_from
from feature_matcher_ros.geometry import invert_pose, pose_from

LOOKED_FOR = "frame-*.color.png or .jpg (7-Scenes)"
RATE_HZ = 30

# The true poses come from KinectFusion, which is good to about a centimetre and a degree.
_TRUTH_SIGMA_M = 0.01
_ASSUMPTIONS = (
    "the colour camera has f = 525, c = (320, 240) and is 2.5 cm to the right of the depth camera (f = 585)",
    f"the images were taken {RATE_HZ} times a second",
)


def matches(folder: Path) -> bool:
    """Tell whether a folder has this layout."""
    return any(_is_color(path) for path in folder.glob("frame-*.color.*"))


def open_seven_scenes(folder: Path, selection: Selection) -> FileSequence:
    """Open a sequence; a frame without a depth image makes no RGB-D frame, one without a pose has no truth.

    Raises:
        SourceError: a pose file is malformed.
    """
    images = [path for path in list_images(folder) if _is_color(path)]
    calibration = _calibration(selection)
    depth = calibration.depth or DepthCalibration()
    recording = Recording(
        name=_name(folder.resolve()),
        files=[FrameFiles(_stamp(path), path, depth=_depth_file(path)) for path in images],
        calibration=calibration,
        info=SequenceInfo("7-Scenes", {"image": "*.color.*", "depth": "*.depth.png"}, _ASSUMPTIONS, _TRUTH_SIGMA_M),
        ground_truth=_read_poses(images, invert_pose(depth.cam_from_depth)),
    )
    return FileSequence(recording, selection)


def kinect_calibration() -> Calibration:
    """Calibration that is assumed for the whole dataset."""
    depth = DepthCalibration(_pinhole(585.0), pose_from(np.eye(3), [-0.025, 0.0, 0.0]), units_per_m=1000.0)
    return Calibration(_pinhole(525.0), depth=depth)


def _calibration(selection: Selection) -> Calibration:
    assumed = kinect_calibration()
    if selection.calibration is None:
        return assumed
    given = load_calibration(selection.calibration)
    return replace(given, depth=given.depth or assumed.depth)


def _pinhole(focal_px: float) -> Camera:
    return Camera(np.array([[focal_px, 0.0, 320.0], [0.0, focal_px, 240.0], [0.0, 0.0, 1.0]]), 640, 480)


def _is_color(path: Path) -> bool:
    return re.fullmatch(r"frame-\d+\.color\.(png|jpe?g)", path.name) is not None


def _name(folder: Path) -> str:
    return f"{folder.parent.name}_{folder.name}" if re.fullmatch(r"seq-?\d+", folder.name) else folder.name


def _stamp(path: Path) -> int:
    """The stamp by the number in the name, so that a missing frame leaves its gap."""
    return (number_from_name(path) or 0) * 1_000_000_000 // RATE_HZ


def _depth_file(color: Path) -> Path | None:
    path = _beside(color, "depth.png")
    return path if path.is_file() else None


def _beside(color: Path, ending: str) -> Path:
    return color.with_name(f"{color.name.split('.')[0]}.{ending}")


def _read_poses(images: list[Path], depth_from_cam: Float) -> Trajectory | None:
    poses = []
    for image in images:
        path = _beside(image, "pose.txt")
        pose = _read_pose(path) if path.is_file() else None
        if pose is not None:
            poses.append((_stamp(image), pose @ depth_from_cam))
    return trajectory_from(poses) if poses else None


def _read_pose(path: Path) -> Float | None:
    """The pose (4, 4) of a file; None where tracking had failed and its numbers are not finite."""
    words = [word for _, row in read_rows(path) for word in row]
    try:
        numbers = np.array([float(word) for word in words])
    except ValueError as error:
        raise SourceError(f"'{path}' holds '{' '.join(words)[:60]}', not 16 numbers: correct it.") from error
    if len(numbers) != 16:
        raise SourceError(f"'{path}' holds {len(numbers)} numbers instead of 16: correct it.")
    return numbers.reshape(4, 4) if np.all(np.isfinite(numbers)) else None
