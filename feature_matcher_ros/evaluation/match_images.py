"""One pair of image files: match, estimate, draw."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import poselib

from feature_matcher_ros.config import FrontEndConfig, PoseConfig
from feature_matcher_ros.datatypes import Camera, Image, Matches, PoseEstimate
from feature_matcher_ros.drawing import draw_matches
from feature_matcher_ros.errors import ImageError, OutputError
from feature_matcher_ros.evaluation.calibration import load_calibration
from feature_matcher_ros.geometry import rotation_angle_deg
from feature_matcher_ros.matchers import create_matcher
from feature_matcher_ros.relative_pose import estimate_relative_pose


def match_images(
    image0: Path, image1: Path, output: Path, config: FrontEndConfig, calibration: Path | None = None
) -> str:
    """Match two image files, write the picture and return one line that says what was found.

    With a calibration the inliers are those of the relative pose; without one, those of a fundamental
    matrix, and there is no pose: the camera is not guessed.

    Raises:
        ImageError: an image cannot be read, or is not of the size of the calibration.
        CalibrationError: the calibration cannot be used.
        OutputError: the picture cannot be written.
    """
    pictures = [_read(path) for path in (image0, image1)]
    matcher = create_matcher(config)
    features0, features1 = (matcher.extract(picture) for picture in pictures)
    matches = matcher.match(features0, features1)
    if calibration is None:
        inliers = _fundamental_inliers(matches, config.pose)
        caption = f"{len(matches)} matches, {np.count_nonzero(inliers)} on epipolar lines; no calibration, so no pose"
    else:
        camera = load_calibration(calibration).camera
        _check_size(camera, pictures)
        estimate = estimate_relative_pose(matches.points0, matches.points1, camera, camera, config.pose)
        inliers, caption = estimate.inliers, _caption(matches, estimate)
    picture = draw_matches(pictures[0], pictures[1], matches, inliers=inliers, caption=caption)
    _write(output, picture)
    return caption


def _caption(matches: Matches, estimate: PoseEstimate) -> str:
    counts = f"{len(matches)} matches, {estimate.num_inliers} inliers, {estimate.motion_type.value}"
    if estimate.pose is None:
        return f"{counts}, no pose: {estimate.status.value}"
    turned = f"{counts}, turned by {rotation_angle_deg(estimate.pose.rotation):.2f} deg"
    if estimate.pose.direction is None:
        return f"{turned}, no translation"
    return f"{turned}, direction {np.round(estimate.pose.direction, 3).tolist()}"


def _read(path: Path) -> Image:
    data = np.frombuffer(path.read_bytes(), np.uint8) if path.is_file() else np.zeros(0, np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if picture is None:
        raise ImageError(f"cannot read the image {path}: give a PNG, JPEG or other file that OpenCV reads.")
    return picture


def _write(path: Path, picture: Image) -> None:
    coded, data = cv2.imencode(path.suffix or ".png", picture) if path.suffix in (".png", ".jpg") else (False, None)
    if not coded or data is None:
        raise OutputError(f"cannot write {path}: name a .png or .jpg file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror}): choose another --output.") from error


def _check_size(camera: Camera, pictures: list[Image]) -> None:
    for picture in pictures:
        if picture.shape[:2] != (camera.height, camera.width):
            raise ImageError(
                f"the image has {picture.shape[1]}x{picture.shape[0]} pixels but the calibration "
                f"{camera.width}x{camera.height}: give the calibration of this very image size."
            )


def _fundamental_inliers(matches: Matches, config: PoseConfig) -> np.ndarray:
    if len(matches) < config.min_matches:
        return np.zeros(len(matches), np.bool_)
    options = {"max_epipolar_error": config.max_epipolar_error_px, "seed": config.seed}
    _, info = poselib.estimate_fundamental(matches.points0, matches.points1, options, {})
    return np.asarray(info["inliers"], np.bool_)
