from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from feature_matcher_ros.datatypes import Camera, DistortionModel
from feature_matcher_ros.errors import CalibrationError
from feature_matcher_ros.evaluation.calibration import load_calibration, scale_camera

OWN = "width: 640\nheight: 480\nK: [500, 0, 320, 0, 510, 240, 0, 0, 1]\n"
ROS = """
image_width: 640
image_height: 480
camera_name: narrow
camera_matrix: {rows: 3, cols: 3, data: [500, 0, 320, 0, 510, 240, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, -0.2, 0.001, 0.002, 0.05]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [500, 0, 320, 0, 0, 510, 240, 0, 0, 0, 1, 0]}
"""
EUROC = """%YAML:1.0
sensor_type: camera
T_BS:
  cols: 4
  rows: 4
  data: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
resolution: [640, 480]
camera_model: pinhole
intrinsics: [500, 510, 320, 240] #fu, fv, cu, cv
distortion_model: radial-tangential
distortion_coefficients: [0.1, -0.2, 0.001, 0.002]
"""
ECHOED = """header:
  stamp: {sec: 1, nanosec: 2}
  frame_id: camera
height: 480
width: 640
distortion_model: rational_polynomial
d: [0.1, -0.2, 0.001, 0.002, 0.05, 0.1, 0.2, 0.3]
k: [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]
r: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
p: [450.0, 0.0, 310.0, 0.0, 0.0, 450.0, 250.0, 0.0, 0.0, 0.0, 1.0, 0.0]
---
"""
KALIBR = """cam0:
  cam_overlaps: [1]
  camera_model: pinhole
  distortion_coeffs: [0.1, -0.2, 0.001, 0.002]
  distortion_model: equidistant
  intrinsics: [500, 510, 320, 240]
  resolution: [640, 480]
  rostopic: /cam0/image_raw
cam1:
  T_cn_cnm1:
  - [1, 0, 0, -0.11]
  - [0, 1, 0, 0.001]
  - [0, 0, 1, 0.002]
  - [0, 0, 0, 1]
  camera_model: pinhole
  distortion_coeffs: [0.2, -0.2, 0.001, 0.002]
  distortion_model: radtan
  intrinsics: [501, 511, 321, 241]
  resolution: [640, 480]
"""
FISHEYE = OWN + "fisheye_model: 1\ndistortion_coefficients: [0.1, -0.2, 0.001, 0.002]\n"
K = [[500, 0, 320], [0, 510, 240], [0, 0, 1]]


def _load(tmp_path: Path, text: str) -> Camera:
    path = tmp_path / "camera.yaml"
    path.write_text(text)
    return load_calibration(path).camera


@pytest.mark.parametrize(
    ("text", "coefficients", "model"),
    [
        (OWN, 0, DistortionModel.NONE),
        (OWN.replace("[500, 0, 320, 0, 510, 240, 0, 0, 1]", str(K)), 0, DistortionModel.NONE),
        (OWN + "D: [0.1, -0.2, 0.001, 0.002]\ndistortion_model: equidistant\n", 4, DistortionModel.EQUIDISTANT),
        (OWN + "D: []\ndistortion_model: plumb_bob\n", 0, DistortionModel.NONE),
        (OWN + "D: [1, 2, 3, 4, 5, 6, 7, 8]\n", 8, DistortionModel.RATIONAL_POLYNOMIAL),
        (ROS, 5, DistortionModel.PLUMB_BOB),
        (EUROC, 4, DistortionModel.PLUMB_BOB),
        (ECHOED, 8, DistortionModel.RATIONAL_POLYNOMIAL),
        (KALIBR, 4, DistortionModel.EQUIDISTANT),
        (FISHEYE, 4, DistortionModel.EQUIDISTANT),
    ],
)
def test_every_form_of_file(tmp_path: Path, text: str, coefficients: int, model: DistortionModel) -> None:
    camera = _load(tmp_path, text)
    np.testing.assert_array_equal(camera.K, K)
    assert (camera.width, camera.height) == (640, 480)
    assert (len(camera.distortion), camera.distortion_model) == (coefficients, model)


def test_a_chain_of_kalibr_holds_the_right_camera(tmp_path: Path) -> None:
    path = tmp_path / "camchain.yaml"
    path.write_text(KALIBR)
    right = load_calibration(path).right
    assert right is not None and right.camera.distortion_model is DistortionModel.PLUMB_BOB
    np.testing.assert_array_equal(right.camera.distortion, [0.2, -0.2, 0.001, 0.002])
    np.testing.assert_array_equal(right.camera.K, [[501, 0, 321], [0, 511, 241], [0, 0, 1]])
    np.testing.assert_array_equal(right.right_from_left[:3], [[1, 0, 0, -0.11], [0, 1, 0, 0.001], [0, 0, 1, 0.002]])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (OWN + "distortion_model: plumb_bob\n", "plumb_bob"),
        (OWN + "distortion_model: equidistant\nD: []\n", "equidistant"),
        (OWN + "dist_coeffs: [0.1, -0.2, 0, 0]\n", "dist_coeffs"),
        (OWN.replace("320, 0, 510, 240, 0, 0,", "0, 0, 510, 0, 320, 240,"), "transpose"),
        (KALIBR.replace("camera_model: pinhole", "camera_model: ds"), "ds"),
    ],
)
def test_a_lens_is_never_dropped_without_a_word(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(CalibrationError, match=named):
        _load(tmp_path, text)


def test_a_file_written_by_opencv(tmp_path: Path) -> None:
    path = tmp_path / "camera.yml"
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    storage.write("image_width", 640)
    storage.write("image_height", 480)
    storage.write("camera_matrix", np.array(K, dtype=np.float64))
    storage.write("distortion_coefficients", np.array([[0.1, -0.2, 0.001, 0.002, 0.05]]))
    storage.release()
    camera = load_calibration(path).camera
    np.testing.assert_array_equal(camera.K, K)
    np.testing.assert_allclose(camera.distortion, [0.1, -0.2, 0.001, 0.002, 0.05])
    assert camera.distortion_model is DistortionModel.PLUMB_BOB


def test_stereo_and_depth_sections(tmp_path: Path) -> None:
    right_from_left = np.eye(4)
    right_from_left[0, 3] = -0.12
    content = yaml.safe_load(OWN)
    content["right"] = {**content, "right_from_left": right_from_left.tolist()}
    content["depth"] = {"units_per_m": 5000, "cam_from_depth": right_from_left.ravel().tolist()}
    path = tmp_path / "rig.yaml"
    path.write_text(yaml.safe_dump(content))
    calibration = load_calibration(path)
    assert calibration.right is not None and calibration.depth is not None
    np.testing.assert_array_equal(calibration.right.right_from_left, right_from_left)
    np.testing.assert_array_equal(calibration.depth.cam_from_depth, right_from_left)
    assert calibration.depth.units_per_m == 5000 and calibration.depth.camera is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no named values"),
        ("[1, 2", "cannot be read"),
        ("- 1\n", "holds no named values"),
        ("width: 640\nheight: 480\n", "no camera matrix"),
        ("K: [500, 0, 320, 0, 510, 240, 0, 0, 1]\n", "set width and height"),
        (OWN.replace("640", "640.5"), "two integers"),
        (OWN.replace("640", "-640"), "cannot have -640x480"),
        (OWN.replace("500, 0, 320", "0, 0, 0"), "focal lengths must be positive"),
        (OWN.replace("500, 0, 320", "500, 0"), "no 3x3 matrix"),
        (OWN.replace("500", "wide"), "no list of numbers"),
        (OWN.replace("500", ".nan"), "no 3x3 matrix"),
        (OWN + "D: [1, 2, 3]\ndistortion_model: plumb_bob\n", "3 distortion coefficients do not fit"),
        (OWN + "D: [1, 2, 3, 4]\ndistortion_model: omni\n", "model 'omni' is not supported"),
        (OWN + "distortion_model: omni\n", "model 'omni' is not supported"),
        (OWN + "right: 5\n", "must hold named values"),
        (OWN + "right: {width: 640, height: 480, K: [1, 0, 0, 0, 1, 0, 0, 0, 1]}\n", "no right_from_left"),
        (OWN + "depth: {cam_from_depth: [2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1]}\n", "no rigid motion"),
        (OWN + "depth: {units_per_m: 0}\n", "must be a positive number"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_with_the_file(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(CalibrationError, match=said) as caught:
        _load(tmp_path, text)
    assert "camera.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"none\.yaml"):
        load_calibration(tmp_path / "none.yaml")


def test_a_resized_image_sees_the_same_rays_at_the_same_places() -> None:
    camera = Camera(np.array([[500.0, 0, 319.5], [0, 510.0, 239.5], [0, 0, 1]]), 640, 480)
    half = scale_camera(camera, 320, 240)
    # The centre of the first pixel of the half image is where four pixels of the full one meet.
    ray = np.linalg.solve(half.K, [0, 0, 1])
    np.testing.assert_allclose(camera.K @ ray, [0.5, 0.5, 1], atol=1e-12)
    assert scale_camera(camera, 640, 480) is camera


def test_another_shape_is_not_a_resized_image() -> None:
    camera = Camera(np.array(K, dtype=np.float64), 640, 480)
    with pytest.raises(CalibrationError, match="640x400 pixels are not 640x480 pixels resized"):
        scale_camera(camera, 640, 400)
