"""Cameras from YAML files: this package's own form, and those of ROS, OpenCV, EuRoC and Kalibr.

The own form; all but the first three keys are optional, matrices are flat or nested rows:

    width: 640
    height: 480
    K: [525.0, 0, 319.5,  0, 525.0, 239.5,  0, 0, 1]
    distortion_model: plumb_bob          # none, plumb_bob, rational_polynomial or equidistant
    D: [0.1, -0.2, 0.0, 0.0, 0.05]
    right:                               # stereo: the right camera, with keys as above, and
      right_from_left: [16 numbers]      # the pose that maps points of the left camera, in metres
    depth:                               # RGB-D: empty where depth is registered to the image
      units_per_m: 1000                  # values of an integer depth image that make one metre
      cam_from_depth: [16 numbers]       # the identity where missing
      K: ...                             # the depth camera, where it is one of its own
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from feature_matcher_ros.datatypes import Camera, DistortionModel, Float
from feature_matcher_ros.errors import CalibrationError

# The names that calibration tools use for the four models.
_MODEL_NAMES = {
    "none": DistortionModel.NONE,
    "plumb_bob": DistortionModel.PLUMB_BOB,
    "radtan": DistortionModel.PLUMB_BOB,
    "radial-tangential": DistortionModel.PLUMB_BOB,
    "rational_polynomial": DistortionModel.RATIONAL_POLYNOMIAL,
    "equidistant": DistortionModel.EQUIDISTANT,
    "fisheye": DistortionModel.EQUIDISTANT,
}
# The names of K and D: here, in a CameraInfo of ROS 2 printed by its tools, in those of OpenCV and ROS, in Kalibr's.
_MATRIX_NAMES = ("K", "k", "camera_matrix")
_LENS_NAMES = ("D", "d", "distortion_coefficients", "distortion_coeffs")


@dataclass(frozen=True, slots=True, eq=False)
class RightCalibration:
    """The right camera of a stereo pair."""

    camera: Camera
    right_from_left: Float  # (4, 4), metres


@dataclass(frozen=True, slots=True, eq=False)
class DepthCalibration:
    """How depth images are to be read."""

    camera: Camera | None = None  # None: registered, so the camera of the image, scaled to the depth image
    cam_from_depth: Float = field(default_factory=lambda: np.eye(4))  # (4, 4), metres
    units_per_m: float = 1000.0  # of integer depth images; those of floating point hold metres


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The cameras of one rig."""

    camera: Camera
    right: RightCalibration | None = None
    depth: DepthCalibration | None = None


def load_calibration(path: Path) -> Calibration:
    """Read a calibration file in any of the forms.

    Raises:
        CalibrationError: the file cannot be read, or what it says is no calibration.
    """
    content = load_yaml(path)
    try:
        content = _from_camchain(content) if "cam0" in content else content
        camera = camera_from_mapping(content)
        right, depth = content.get("right"), content.get("depth")
        return Calibration(
            camera,
            None if right is None else _right_from_mapping(_mapping(right, "right")),
            _depth_from_mapping(_mapping(depth, "depth")) if "depth" in content else None,
        )
    except CalibrationError as error:
        raise CalibrationError(f"in '{path}': {error}") from error


def load_yaml(path: Path) -> Mapping[str, Any]:
    """Read a YAML file of named values, those written by OpenCV included.

    Raises:
        CalibrationError: the file cannot be read, or is no such YAML.
    """
    try:
        text = path.read_text(encoding="utf-8").lstrip("\ufeff")
        if text.startswith("%YAML:"):  # OpenCV's and EuRoC's header is not YAML
            text = text.partition("\n")[2]
        # A message printed by ROS's tools ends with a line that begins another document.
        content = next(yaml.safe_load_all(text.replace("!!opencv-matrix", "")), None)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise CalibrationError(
            f"the calibration '{path}' cannot be read ({reason}): give a YAML file with width, height and K."
        ) from error
    if not isinstance(content, dict) or not content:
        raise CalibrationError(f"the calibration '{path}' holds no named values: it needs width, height and K.")
    return content


def camera_from_mapping(content: Mapping[str, Any]) -> Camera:
    """Build a camera from the values of one of the forms.

    Raises:
        CalibrationError: a value is missing, or is not what it should be.
    """
    width, height = _image_size(content)
    distortion, model = _distortion(content)
    return Camera(_camera_matrix(content), width, height, distortion, model)


def matrix_from(value: object, rows: int, columns: int, name: str) -> Float:
    """Turn nested rows, a flat list or a mapping with ``data`` into a matrix (rows, columns).

    Raises:
        CalibrationError: it does not have that many finite numbers.
    """
    numbers = value.get("data") if isinstance(value, dict) else value
    try:
        matrix = np.array(numbers, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"{name} = {numbers} is no list of numbers: give {rows * columns} numbers.") from error
    if matrix.size != rows * columns or not np.all(np.isfinite(matrix)):
        raise CalibrationError(f"{name} = {numbers} is no {rows}x{columns} matrix: give {rows * columns} numbers.")
    return matrix.reshape(rows, columns)


def pose_matrix_from(value: object, name: str) -> Float:
    """Turn a value into a pose (4, 4).

    Raises:
        CalibrationError: it is no rigid motion (translation in metres, rotation to three digits).
    """
    pose = matrix_from(value, 4, 4, name)
    rotation = pose[:3, :3]
    rigid = np.allclose(rotation @ rotation.T, np.eye(3), atol=5e-3) and np.linalg.det(rotation) > 0
    if not rigid or not np.allclose(pose[3], [0, 0, 0, 1]):
        raise CalibrationError(
            f"{name} = {pose.round(4).tolist()} is no rigid motion: give rows of [R t; 0 0 0 1] with a rotation R."
        )
    return pose


def distortion_model_from(name: object) -> DistortionModel:
    """Find a lens model by the name that ROS, EuRoC or Kalibr give it.

    Raises:
        CalibrationError: the model is not one of those supported; it is never taken for a pinhole.
    """
    model = _MODEL_NAMES.get(str(name).lower())
    if model is None:
        known = ", ".join(member.value for member in DistortionModel)
        raise CalibrationError(f"the distortion model '{name}' is not supported: it must be one of {known}.")
    return model


def scale_camera(camera: Camera, width: int, height: int) -> Camera:
    """Return the camera of the same image resized to ``width`` x ``height``.

    Raises:
        CalibrationError: the other size has another shape, so that it is not the same image resized.
    """
    if (width, height) == (camera.width, camera.height):
        return camera
    scale_x, scale_y = width / camera.width, height / camera.height
    if not 0.98 < scale_x / scale_y < 1.02:  # sizes are rounded to whole pixels
        raise CalibrationError(
            f"{width}x{height} pixels are not {camera.width}x{camera.height} pixels resized: "
            "give the camera of that image its own K, width and height in the calibration."
        )
    # Half a pixel, because the centre, not the corner, of the top-left pixel is (0, 0).
    resize = np.array([[scale_x, 0, scale_x / 2 - 0.5], [0, scale_y, scale_y / 2 - 0.5], [0, 0, 1]])
    return Camera(resize @ camera.K, width, height, camera.distortion, camera.distortion_model)


def _from_camchain(chain: Mapping[str, Any]) -> Mapping[str, Any]:
    """Kalibr's ``camchain.yaml`` in our own form: ``T_cn_cnm1`` maps points of the camera before into that camera."""
    left = dict(_mapping(chain["cam0"], "cam0"))
    if "cam1" in chain:
        right = _mapping(chain["cam1"], "cam1")
        if "T_cn_cnm1" not in right:
            raise CalibrationError("cam1 holds no T_cn_cnm1, the pose of the camera: calibrate both together.")
        left["right"] = {**right, "right_from_left": right["T_cn_cnm1"]}
    return left


def _right_from_mapping(content: Mapping[str, Any]) -> RightCalibration:
    if "right_from_left" not in content:
        raise CalibrationError("right holds no right_from_left: give the 16 numbers of the pose, in metres.")
    pose = pose_matrix_from(content["right_from_left"], "right_from_left")
    return RightCalibration(camera_from_mapping(content), pose)


def _depth_from_mapping(content: Mapping[str, Any]) -> DepthCalibration:
    own_camera = any(key in content for key in (*_MATRIX_NAMES, "intrinsics"))
    pose = pose_matrix_from(content["cam_from_depth"], "cam_from_depth") if "cam_from_depth" in content else np.eye(4)
    units_per_m = content.get("units_per_m", 1000.0)
    if not isinstance(units_per_m, (int, float)) or not 0 < units_per_m < float("inf"):
        raise CalibrationError(f"units_per_m = {units_per_m} must be a positive number, 1000 for millimetres.")
    return DepthCalibration(camera_from_mapping(content) if own_camera else None, pose, float(units_per_m))


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CalibrationError(f"{name} = {value} must hold named values.")
    return value


def _image_size(content: Mapping[str, Any]) -> tuple[int, int]:
    if "resolution" in content:
        size = content["resolution"]
    else:
        size = [content.get("width", content.get("image_width")), content.get("height", content.get("image_height"))]
    if not isinstance(size, list) or len(size) != 2 or not all(type(number) is int for number in size):
        raise CalibrationError(f"the image size {size} is not given by two integers: set width and height, in pixels.")
    return size[0], size[1]


def _camera_matrix(content: Mapping[str, Any]) -> Float:
    projection = content.get("camera_model", "pinhole")
    if projection != "pinhole":
        raise CalibrationError(
            f"the camera_model '{projection}' is not supported: calibrate it as pinhole, with the distortion model "
            "equidistant where the lens is wide."
        )
    if "intrinsics" in content:
        fx, fy, cx, cy = matrix_from(content["intrinsics"], 1, 4, "intrinsics")[0]
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    value = _named(content, _MATRIX_NAMES)
    if value is None:
        raise CalibrationError("there is no camera matrix: give K, nine numbers in pixels.")
    return matrix_from(value, 3, 3, "K")


def _distortion(content: Mapping[str, Any]) -> tuple[Float, DistortionModel]:
    value = _named(content, _LENS_NAMES)
    numbers = value.get("data") if isinstance(value, dict) else value
    count = np.size(np.array(numbers, dtype=object)) if numbers is not None else 0
    coefficients = matrix_from(numbers, 1, count, "D")[0] if count else np.zeros(0)
    model = _distortion_model(content, count)
    if value is None:
        _refuse_lens_without_coefficients(content, model)
    flat = not count and model is not DistortionModel.EQUIDISTANT
    return (np.zeros(0), DistortionModel.NONE) if flat else (coefficients, model)


def _distortion_model(content: Mapping[str, Any], count: int) -> DistortionModel:
    if "distortion_model" in content:
        return distortion_model_from(content["distortion_model"])
    # OpenCV writes no name but for a fisheye; the number of coefficients says which of its other two models it is.
    if content.get("fisheye_model"):
        return DistortionModel.EQUIDISTANT
    if not count:
        return DistortionModel.NONE
    return DistortionModel.PLUMB_BOB if count in (4, 5) else DistortionModel.RATIONAL_POLYNOMIAL


def _refuse_lens_without_coefficients(content: Mapping[str, Any], model: DistortionModel) -> None:
    """A lens that is spoken of, but whose coefficients stand under another name, must not become a pinhole."""
    if model is not DistortionModel.NONE:
        raise CalibrationError(f"the distortion model is {model.value} but there are no coefficients: give D.")
    unknown = [key for key in content if str(key).lower().startswith("dist") and key != "distortion_model"]
    if unknown:
        raise CalibrationError(f"'{unknown[0]}' is not known: call the distortion coefficients D.")


def _named(content: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The value under any of the names, None where there is none."""
    return next((content[name] for name in names if content.get(name) is not None), None)
