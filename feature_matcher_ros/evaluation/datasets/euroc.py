"""EuRoC MAV, the ASL layout: ``mav0/cam0`` and ``mav0/cam1`` with ``sensor.yaml``, and a ground truth.

Source of the form: Burri et al., The EuRoC micro aerial vehicle datasets, IJRR 2016. ``T_BS`` is
``body_from_sensor``; the ground truth of every source is the pose of that source's own sensor.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from feature_matcher_ros.datatypes import Float, Trajectory
from feature_matcher_ros.errors import CalibrationError, SourceError
from feature_matcher_ros.evaluation.calibration import (
    Calibration,
    RightCalibration,
    load_calibration,
    load_yaml,
    pose_matrix_from,
)
from feature_matcher_ros.evaluation.datasets.file_sequence import FileSequence, FrameFiles, Recording
from feature_matcher_ros.evaluation.image_files import list_images, stamp_from_name
from feature_matcher_ros.evaluation.sequences import Selection, SequenceInfo
from feature_matcher_ros.evaluation.text_tables import read_matrix, read_rows
from feature_matcher_ros.evaluation.trajectories import associate_stamps, stamp_from_nanoseconds, trajectory_from
from feature_matcher_ros.geometry import invert_pose, pose_from, rotation_from_quaternion

LOOKED_FOR = "mav0/cam0 with sensor.yaml (EuRoC, ASL layout)"
MAX_STEREO_GAP_NS = 5_000_000

# Where poses stand: the estimate of the whole state is better than the raw tracker.
_GROUND_TRUTHS = ("state_groundtruth_estimate0", "vicon0", "mocap0")


def matches(folder: Path) -> bool:
    """Tell whether a folder has this layout."""
    return _sensors(folder) is not None


def open_euroc(folder: Path, selection: Selection) -> FileSequence:
    """Open a sequence; left and right are paired by time, at most 5 ms apart.

    Raises:
        SourceError: a file is malformed.
        CalibrationError: a sensor.yaml does not hold a camera.
    """
    sensors = _sensors(folder)
    if sensors is None:
        raise SourceError(f"'{folder}' is no EuRoC sequence: it has no mav0/cam0.")
    lefts = _list_images(sensors / "cam0")
    rights = _list_images(sensors / "cam1") if (sensors / "cam1" / "sensor.yaml").is_file() else []
    numbers, partners = associate_stamps(
        [stamp for stamp, _ in lefts], [stamp for stamp, _ in rights], MAX_STEREO_GAP_NS
    )
    right_of = {int(number): rights[int(partner)][1] for number, partner in zip(numbers, partners, strict=True)}
    recording = Recording(
        name=(sensors.resolve().parent if sensors.name == "mav0" else sensors.resolve()).name,
        files=[FrameFiles(stamp, path, right_of.get(number)) for number, (stamp, path) in enumerate(lefts)],
        calibration=load_calibration(selection.calibration)
        if selection.calibration is not None
        else _calibration(sensors, stereo=bool(rights)),
        info=SequenceInfo("EuRoC", {"image": "cam0", **({"right": "cam1"} if rights else {})}),
        ground_truth=_read_ground_truth(sensors),
    )
    return FileSequence(recording, selection)


def _sensors(folder: Path) -> Path | None:
    return next((place for place in (folder / "mav0", folder) if (place / "cam0" / "sensor.yaml").is_file()), None)


def _list_images(camera: Path) -> list[tuple[int, Path]]:
    """Rows ``nanoseconds,filename`` of data.csv, or the images themselves where there is none."""
    if not (camera / "data.csv").is_file():
        stamped = ((stamp_from_name(path), path) for path in list_images(camera / "data"))
        return [(stamp, path) for stamp, path in stamped if stamp is not None]
    return [_list_row(where, words, camera / "data") for where, words in read_rows(camera / "data.csv")]


def _list_row(where: str, words: list[str], folder: Path) -> tuple[int, Path]:
    try:
        return stamp_from_nanoseconds(words[0]), folder / words[1]
    except (ValueError, IndexError) as error:
        raise SourceError(f"{where}: '{' '.join(words)}' is not 'nanoseconds,filename': correct it.") from error


def _calibration(sensors: Path, stereo: bool) -> Calibration:
    camera = load_calibration(sensors / "cam0" / "sensor.yaml").camera
    if not stereo:
        return Calibration(camera)
    right = load_calibration(sensors / "cam1" / "sensor.yaml").camera
    right_from_left = invert_pose(_body_from_sensor(sensors / "cam1")) @ _body_from_sensor(sensors / "cam0")
    return Calibration(camera, RightCalibration(right, right_from_left))


def _body_from_sensor(sensor: Path) -> Float:
    path = sensor / "sensor.yaml"
    if not path.is_file():
        raise CalibrationError(f"'{path}' with T_BS, the pose of the sensor on the body, is missing: add it.")
    content = load_yaml(path)
    if "T_BS" not in content:
        raise CalibrationError(f"'{path}' has no T_BS, the pose of the sensor on the body: add it.")
    try:
        return pose_matrix_from(content["T_BS"], "T_BS")
    except CalibrationError as error:
        raise CalibrationError(f"in '{path}': {error}") from error


def _read_ground_truth(sensors: Path) -> Trajectory | None:
    """Poses of camera 0: rows of nanoseconds, position, quaternion w x y z, and more."""
    source = next((sensors / name for name in _GROUND_TRUTHS if (sensors / name / "data.csv").is_file()), None)
    if source is None:
        return None
    sensor_from_cam = invert_pose(_body_from_sensor(source)) @ _body_from_sensor(sensors / "cam0")
    poses = [_pose_from_row(where, words) for where, words in read_rows(source / "data.csv")]
    return trajectory_from((stamp_ns, world_from_sensor @ sensor_from_cam) for stamp_ns, world_from_sensor in poses)


def _pose_from_row(where: str, words: list[str]) -> tuple[int, Float]:
    x, y, z, qw, qx, qy, qz = read_matrix(where, words[1:8], 1, 7)[0]
    try:
        stamp_ns = stamp_from_nanoseconds(words[0])
    except ValueError as error:
        raise SourceError(f"{where}: {error}: begin each line with nanoseconds.") from error
    if not 0.5 < np.linalg.norm([qw, qx, qy, qz]) < 2.0:
        raise SourceError(f"{where}: '{qw} {qx} {qy} {qz}' is no unit quaternion: correct or remove the line.")
    return stamp_ns, pose_from(rotation_from_quaternion([qx, qy, qz, qw]), [x, y, z])
