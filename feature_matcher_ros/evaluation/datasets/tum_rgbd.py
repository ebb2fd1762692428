"""TUM RGB-D: ``rgb.txt``, ``depth.txt`` and ``groundtruth.txt``, or just images named by their seconds.

Source of the form and of the three cameras: Sturm et al., A Benchmark for the Evaluation of RGB-D SLAM
Systems, IROS 2012, and the description of file formats that belongs to it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from feature_matcher_ros.datatypes import Camera, DistortionModel
from feature_matcher_ros.errors import CalibrationError, SourceError
from feature_matcher_ros.evaluation.calibration import Calibration, DepthCalibration, load_calibration
from feature_matcher_ros.evaluation.datasets.file_sequence import FileSequence, FrameFiles, Recording
from feature_matcher_ros.evaluation.image_files import list_images, stamp_from_name
from feature_matcher_ros.evaluation.sequences import Selection, SequenceInfo
from feature_matcher_ros.evaluation.text_tables import read_rows
from feature_matcher_ros.evaluation.trajectories import associate_stamps, read_tum, stamp_from_seconds

LOOKED_FOR = "rgb.txt, or groundtruth.txt beside a folder of images named by their seconds (TUM RGB-D)"
MAX_DEPTH_GAP_NS = 20_000_000
UNITS_PER_M = 5000.0

# Published by the benchmark: fx, fy, cx, cy and the lens (k1 k2 p1 p2 k3) of its three cameras.
_CAMERAS = {
    "1": ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "2": ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "3": ((535.4, 539.2, 320.1, 247.6), ()),
}

Stamped = list[tuple[int, Path]]


def matches(folder: Path) -> bool:
    """Tell whether a folder has this layout."""
    if (folder / "rgb.txt").is_file():
        return True
    return (folder / "groundtruth.txt").is_file() and bool(_stamped_folders(folder))


def open_tum_rgbd(folder: Path, selection: Selection) -> FileSequence:
    """Open a sequence; depth is paired by time, at most 20 ms apart.

    Raises:
        SourceError: a list is malformed, or several folders hold images.
        CalibrationError: the camera is none of the three published ones and no calibration is given.
    """
    images, depths = _list_files(folder)
    stamps = [stamp for stamp, _ in images]
    numbers, partners = associate_stamps(stamps, [stamp for stamp, _ in depths], MAX_DEPTH_GAP_NS)
    depth_of = {int(number): depths[int(partner)][1] for number, partner in zip(numbers, partners, strict=True)}
    files = [FrameFiles(stamp, path, depth=depth_of.get(number)) for number, (stamp, path) in enumerate(images)]
    truth = folder / "groundtruth.txt"
    calibration, assumption = _calibration(folder, selection)
    recording = Recording(
        name=folder.resolve().name,
        files=files,
        calibration=calibration,
        info=SequenceInfo("TUM RGB-D", _origins(images, depths), assumption),
        ground_truth=read_tum(truth) if truth.is_file() else None,
    )
    return FileSequence(recording, selection)


def _origins(images: Stamped, depths: Stamped) -> dict[str, str]:
    return {role: files[0][1].parent.name for role, files in (("image", images), ("depth", depths)) if files}


def _list_files(folder: Path) -> tuple[Stamped, Stamped]:
    if (folder / "rgb.txt").is_file():
        depth_list = folder / "depth.txt"
        return _read_list(folder / "rgb.txt"), _read_list(depth_list) if depth_list.is_file() else []
    folders = _stamped_folders(folder)
    depth_folders = [child for child in folders if child.name == "depth"]
    image_folders = [child for child in folders if child.name != "depth"]
    if len(image_folders) != 1:
        names = ", ".join(str(child) for child in image_folders)
        raise SourceError(f"'{folder}' has several folders of images ({names}) and no rgb.txt: keep one of them.")
    return _list_stamped(image_folders[0]), _list_stamped(depth_folders[0]) if depth_folders else []


def _read_list(path: Path) -> Stamped:
    """Rows ``seconds filename``, the name relative to the list."""
    return [_read_list_row(where, words, path.parent) for where, words in read_rows(path)]


def _read_list_row(where: str, words: list[str], folder: Path) -> tuple[int, Path]:
    try:
        return stamp_from_seconds(words[0]), folder / words[1]
    except (ValueError, IndexError) as error:
        raise SourceError(f"{where}: '{' '.join(words)}' is not 'seconds filename': correct it.") from error


def _stamped_folders(folder: Path) -> list[Path]:
    candidates = [folder, *sorted(child for child in folder.iterdir() if child.is_dir())]
    return [candidate for candidate in candidates if _list_stamped(candidate)]


def _list_stamped(folder: Path) -> Stamped:
    stamped = ((stamp_from_name(path), path) for path in list_images(folder))
    return [(stamp, path) for stamp, path in stamped if stamp is not None]


def _calibration(folder: Path, selection: Selection) -> tuple[Calibration, tuple[str, ...]]:
    if selection.calibration is not None:
        given = load_calibration(selection.calibration)
        return replace(given, depth=given.depth or DepthCalibration(units_per_m=UNITS_PER_M)), ()
    number = _camera_number(folder)
    if number is None:
        raise CalibrationError(
            f"which camera took '{folder}' cannot be told (neither its name nor its lists say freiburg1, 2 or 3): "
            "give its calibration with --calibration."
        )
    (fx, fy, cx, cy), lens = _CAMERAS[number]
    model = DistortionModel.PLUMB_BOB if lens else DistortionModel.NONE
    K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    camera = Camera(K, 640, 480, np.array(lens, dtype=np.float64), model)
    assumption = f"the camera is that published for freiburg{number}"
    return Calibration(camera, depth=DepthCalibration(units_per_m=UNITS_PER_M)), (assumption,)


def _camera_number(folder: Path) -> str | None:
    """The number of the camera by the name of the folder or of the bag that its lists were made from."""
    texts = [folder.resolve().name]
    for name in ("rgb.txt", "groundtruth.txt"):
        if (folder / name).is_file():
            with (folder / name).open(encoding="utf-8", errors="replace") as lines:
                texts += [line for _, line in zip(range(5), lines, strict=False) if line.startswith("#")]
    found = [match[1] for match in (re.search(r"(?:freiburg|fr)_?([123])(?!\d)", text) for text in texts) if match]
    return found[0] if found else None
