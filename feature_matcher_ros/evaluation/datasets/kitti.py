"""KITTI odometry: rectified stereo with ``calib.txt``, ``times.txt`` and ``poses``.

Source of the form: Geiger et al., Are we ready for autonomous driving?, CVPR 2012, and the readme of the
odometry benchmark: P_i (3, 4) projects points of the rectified camera 0 into camera i, poses are those
of camera 0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from feature_matcher_ros.datatypes import Camera, Float, Trajectory
from feature_matcher_ros.errors import CalibrationError, SourceError
from feature_matcher_ros.evaluation.calibration import Calibration, RightCalibration, load_calibration
from feature_matcher_ros.evaluation.datasets.file_sequence import FileSequence, FrameFiles, Recording, first_image_size
from feature_matcher_ros.evaluation.image_files import list_images, number_from_name
from feature_matcher_ros.evaluation.sequences import Selection, SequenceInfo
from feature_matcher_ros.evaluation.text_tables import read_matrix, read_rows
from feature_matcher_ros.evaluation.trajectories import stamp_from_seconds, trajectory_from
from feature_matcher_ros.geometry import invert_pose, pose_from

LOOKED_FOR = "calib.txt beside image_0, image_2 or image_l (KITTI odometry)"
ASSUMED_RATE_HZ = 10

# Folders of left and right images, and the numbers of their cameras.
_PAIRS = (("image_0", "image_1", 0, 1), ("image_l", "image_r", 0, 1), ("image_2", "image_3", 2, 3))


def matches(folder: Path) -> bool:
    """Tell whether a folder has this layout."""
    return (folder / "calib.txt").is_file() and any((folder / left).is_dir() for left, *_ in _PAIRS)


def open_kitti(folder: Path, selection: Selection) -> FileSequence:
    """Open a sequence: the grey cameras where there are any, unless ``image_topic`` names the left folder.

    Raises:
        SourceError: a file is malformed or there are no images.
        CalibrationError: calib.txt does not hold the projection of a camera.
    """
    left, right, left_number, right_number = _choose_cameras(folder, selection)
    images = list_images(folder / left)
    if not images:
        raise SourceError(f"'{folder / left}' holds no image: check that the download is complete.")
    rights = {path.stem: path for path in list_images(folder / right)}
    stamps, assumptions = _stamps(folder, images)
    projections = _read_projections(folder / "calib.txt")
    recording = Recording(
        name=folder.resolve().name,
        files=[FrameFiles(stamp, path, rights.get(path.stem)) for stamp, path in zip(stamps, images, strict=True)],
        calibration=load_calibration(selection.calibration)
        if selection.calibration is not None
        else _calibration(projections, left_number, right_number if rights else None, first_image_size(images)),
        info=SequenceInfo("KITTI odometry", {"image": left, **({"right": right} if rights else {})}, assumptions),
        ground_truth=_read_poses(folder, _cam_from_cam0(_projection(projections, left_number))),
    )
    return FileSequence(recording, selection)


def _choose_cameras(folder: Path, selection: Selection) -> tuple[str, str, int, int]:
    present = [pair for pair in _PAIRS if (folder / pair[0]).is_dir()]
    chosen = [pair for pair in present if selection.image_topic in (None, pair[0])]
    if not chosen:
        names = " or ".join(pair[0] for pair in present)
        raise SourceError(f"'{folder}' has no left images '{selection.image_topic}': choose {names}.")
    return chosen[0]


def _calibration(projections: dict[int, Float], left: int, right: int | None, size: tuple[int, int]) -> Calibration:
    left_projection = _projection(projections, left)
    camera = Camera(left_projection[:, :3], *size)
    if right is None:
        return Calibration(camera)
    right_projection = _projection(projections, right)
    right_from_left = _cam_from_cam0(right_projection) @ invert_pose(_cam_from_cam0(left_projection))
    return Calibration(camera, RightCalibration(Camera(right_projection[:, :3], *size), right_from_left))


def _cam_from_cam0(projection: Float) -> Float:
    """P = K [I t], so t = K^-1 P[:, 3]; for P1 that is minus the baseline along x."""
    return pose_from(np.eye(3), np.linalg.solve(projection[:, :3], projection[:, 3]))


def _read_projections(path: Path) -> dict[int, Float]:
    """Rows ``P1: 12 numbers``; rows without a name are P0, P1 and so on; other names are left out."""
    projections: dict[int, Float] = {}
    for position, (where, words) in enumerate(read_rows(path)):
        label = words.pop(0).rstrip(":") if words[0][0].isalpha() else f"P{position}"
        if label in ("P0", "P1", "P2", "P3"):
            projections[int(label[1])] = read_matrix(where, words, 3, 4)
    return projections


def _projection(projections: dict[int, Float], number: int) -> Float:
    if number not in projections or projections[number][0, 0] <= 0 or projections[number][1, 1] <= 0:
        raise CalibrationError(f"calib.txt holds no usable projection P{number}: correct it, or give --calibration.")
    return projections[number]


def _stamps(folder: Path, images: list[Path]) -> tuple[list[int], tuple[str, ...]]:
    numbers = _frame_numbers(images)
    times = _read_times(folder)
    if times is None:
        assumption = f"there is no times.txt, so {ASSUMED_RATE_HZ} images a second are assumed"
        return [_assumed_stamp(number) for number in numbers], (assumption,)
    if max(numbers) >= len(times):
        raise SourceError(
            f"'{folder / 'times.txt'}' has {len(times)} lines but the last image is number {max(numbers)}: "
            "complete the file, or remove it to assume 10 images a second."
        )
    return [times[number] for number in numbers], ()


def _frame_numbers(images: list[Path]) -> list[int]:
    """Numbers by name, so that a part of a sequence keeps its times and poses; else by position."""
    numbers = [number for number in map(number_from_name, images) if number is not None]
    return numbers if len(numbers) == len(images) else list(range(len(images)))


def _assumed_stamp(number: int) -> int:
    return number * 1_000_000_000 // ASSUMED_RATE_HZ


def _read_times(folder: Path) -> list[int] | None:
    path = folder / "times.txt"
    if not path.is_file():
        return None
    try:
        return [stamp_from_seconds(words[0]) for _, words in read_rows(path)]
    except ValueError as error:
        raise SourceError(f"'{path}': {error}: each line must hold the seconds of one image.") from error


def _read_poses(folder: Path, cam_from_cam0: Float) -> Trajectory | None:
    """Poses of camera 0, one row per frame from the first on, as poses of the camera that is read."""
    resolved = folder.resolve()
    candidates = (folder / "poses.txt", resolved.parent.parent / "poses" / f"{resolved.name}.txt")
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        return None
    times = _read_times(folder)
    poses = []
    for number, (where, words) in enumerate(read_rows(path)):
        if times is not None and number >= len(times):
            break
        pose = np.vstack([read_matrix(where, words, 3, 4), [0.0, 0.0, 0.0, 1.0]])
        stamp_ns = _assumed_stamp(number) if times is None else times[number]
        poses.append((stamp_ns, pose @ invert_pose(cam_from_cam0)))
    return trajectory_from(poses) if poses else None
