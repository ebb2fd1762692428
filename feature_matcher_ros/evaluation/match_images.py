"""One pair of image files: match, estimate, draw; by one matcher, or by two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import poselib
from numpy.typing import NDArray

from feature_matcher_ros.config import FrontEndConfig, PoseConfig, override
from feature_matcher_ros.datatypes import Camera, Image, Matches, PoseEstimate
from feature_matcher_ros.drawing import draw_matches
from feature_matcher_ros.errors import ImageError, OutputError
from feature_matcher_ros.evaluation.calibration import load_calibration
from feature_matcher_ros.evaluation.image_files import read_image
from feature_matcher_ros.evaluation.low_texture import low_texture_mask
from feature_matcher_ros.extractors.selection import inside_mask
from feature_matcher_ros.geometry import rotation_angle_deg
from feature_matcher_ros.matchers import create_matcher
from feature_matcher_ros.relative_pose import estimate_relative_pose

_OUTLINE_COLOUR = (0, 220, 255)  # BGR


@dataclass(frozen=True, slots=True, eq=False)
class _Matched:
    """What one matcher makes of two images."""

    matcher: str
    matches: Matches
    inliers: NDArray[np.bool_]
    caption: str


def match_images(
    image0: Path,
    image1: Path,
    output: Path,
    config: FrontEndConfig,
    calibration: Path | None = None,
    table: Path | None = None,
) -> str:
    """Match two image files, write the picture and return one line that says what was found.

    With a calibration the inliers are those of the relative pose; without one, those of a fundamental
    matrix, and there is no pose: the camera is not guessed. ``table`` is a CSV file to write, with a row for each
    match: its pixels in both images, its score, and 1 if it is an inlier.

    Raises:
        ImageError: an image cannot be read, or is not of the size of the calibration.
        CalibrationError: the calibration cannot be used.
        OutputError: the picture or the table cannot be written.
    """
    _refuse_replacing((image0, image1), (output, table))
    pictures = [read_image(path, color=True) for path in (image0, image1)]
    found = _matched(pictures, config, calibration)
    if table is not None:
        _write_bytes(table, _rows(found).encode(), "--csv")
    _write(output, draw_matches(pictures[0], pictures[1], found.matches, inliers=found.inliers, caption=found.caption))
    return found.caption


def compare_matchers(
    image0: Path,
    image1: Path,
    output: Path,
    config: FrontEndConfig,
    other: str,
    calibration: Path | None = None,
) -> str:
    """Match two image files by the matcher of the configuration and by another one, and draw one above the other.

    What is drawn and counted are the matches where the first image shows little, which is outlined. The other matcher
    takes the network that ships.

    Raises:
        ImageError, CalibrationError, OutputError: as ``match_images``.
        ConfigError: there is no matcher of that name.
    """
    _refuse_replacing((image0, image1), (output,))
    pictures = [read_image(path, color=True) for path in (image0, image1)]
    mask = low_texture_mask(pictures[0])
    rows, captions = [], []
    for part in (config, override(config, {"matcher.name": other, "matcher.graphs": ""})):
        found = _matched(pictures, part, calibration)
        lies_there = inside_mask(found.matches.points0, mask)
        good = found.inliers & lies_there
        captions.append(
            f"{found.matcher}: {np.count_nonzero(good)} matches on epipolar lines where texture is low, "
            f"{np.count_nonzero(found.inliers)} everywhere"
        )
        points0, points1, scores = found.matches.points0, found.matches.points1, found.matches.scores
        there = Matches(points0[lies_there], points1[lies_there], scores[lies_there])
        rows.append(draw_matches(pictures[0], pictures[1], there, inliers=good[lies_there], caption=captions[-1]))
        outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(rows[-1], outlines, -1, _OUTLINE_COLOUR, 1)
    _write(output, np.vstack(rows))
    return "\n".join(captions)


def _refuse_replacing(images: Sequence[Path], outputs: Sequence[Path | None]) -> None:
    for path in outputs:
        if path is not None and path.resolve() in [image.resolve() for image in images]:
            raise OutputError(f"{path} is one of the images, which would be replaced: choose another --output.")


def _matched(pictures: Sequence[Image], config: FrontEndConfig, calibration: Path | None) -> _Matched:
    matcher = create_matcher(config)
    features0, features1 = (matcher.extract(picture) for picture in pictures)
    matches = matcher.match(features0, features1)
    if calibration is None:
        inliers = _fundamental_inliers(matches, config.pose)
        caption = f"{len(matches)} matches, {np.count_nonzero(inliers)} on epipolar lines; no calibration, so no pose"
        return _Matched(matcher.name, matches, inliers, caption)
    camera = load_calibration(calibration).camera
    _check_size(camera, pictures)
    estimate = estimate_relative_pose(matches.points0, matches.points1, camera, camera, config.pose)
    return _Matched(matcher.name, matches, estimate.inliers, _caption(matches, estimate))


def _caption(matches: Matches, estimate: PoseEstimate) -> str:
    counts = f"{len(matches)} matches, {estimate.num_inliers} inliers, {estimate.motion_type.value}"
    if estimate.pose is None:
        return f"{counts}, no pose: {estimate.status.value}"
    turned = f"{counts}, turned by {rotation_angle_deg(estimate.pose.rotation):.2f} deg"
    if estimate.pose.direction is None:
        return f"{turned}, no translation"
    return f"{turned}, direction {np.round(estimate.pose.direction, 3).tolist()}"


def _write(path: Path, picture: Image) -> None:
    coded, data = cv2.imencode(path.suffix or ".png", picture) if path.suffix in (".png", ".jpg") else (False, None)
    if not coded or data is None:
        raise OutputError(f"cannot write {path}: name a .png or .jpg file.")
    _write_bytes(path, data.tobytes(), "--output")


def _rows(found: _Matched) -> str:
    """Shortest decimals that give the same single-precision numbers again."""
    matches = found.matches
    numbers = np.column_stack((matches.points0, matches.points1, matches.scores))
    rows = [",".join([*map(str, row), str(int(inlier))]) for row, inlier in zip(numbers, found.inliers, strict=True)]
    return "\n".join(["x0,y0,x1,y1,score,inlier", *rows]) + "\n"


def _write_bytes(path: Path, content: bytes, option: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror}): choose another {option}.") from error


def _check_size(camera: Camera, pictures: Sequence[Image]) -> None:
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
