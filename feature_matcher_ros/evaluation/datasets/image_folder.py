"""Plain images: in one folder, in ``left`` and ``right``, or in ``rgb`` and ``depth``.

The calibration lies beside them, or is given. Times come from ``times.txt`` (one line per image) or from
the names; where neither says them, 30 images a second are assumed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from feature_matcher_ros.errors import CalibrationError, SourceError
from feature_matcher_ros.evaluation.calibration import Calibration, DepthCalibration, load_calibration
from feature_matcher_ros.evaluation.datasets.file_sequence import FileSequence, FrameFiles, Recording
from feature_matcher_ros.evaluation.image_files import (
    DEPTH_SUFFIXES,
    list_images,
    number_from_name,
    stamp_from_name,
    stamp_from_text,
)
from feature_matcher_ros.evaluation.sequences import Selection, SequenceInfo
from feature_matcher_ros.evaluation.text_tables import read_rows
from feature_matcher_ros.evaluation.trajectories import associate_stamps, read_tum

LOOKED_FOR = "images, or folders left and right, or rgb and depth (plain images)"
ASSUMED_RATE_HZ = 30
MAX_PARTNER_GAP_NS = 20_000_000

_CALIBRATION_NAMES = tuple(
    f"{name}.{ending}" for name in ("calibration", "camera", "camera_info") for ending in ("yaml", "yml")
)
_TIMES_NAMES = ("times.txt", "timestamps.txt")
_IMAGE_FOLDERS = ("rgb", "color", "image", "images")


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the images of each kind lie."""

    image: Path
    right: Path | None = None
    depth: Path | None = None


def matches(folder: Path) -> bool:
    """Tell whether a folder has this layout; one folder that holds the images is looked into."""
    return bool(_candidates(folder))


def open_image_folder(folder: Path, selection: Selection) -> FileSequence:
    """Open a folder of images.

    Raises:
        SourceError: several folders hold images, or the times do not fit the images.
        CalibrationError: there is no calibration, or more than one.
    """
    folders = _choose_folders(folder)
    images = list_images(folders.image)
    stamps, assumptions = _stamps(folder, folders.image, images)
    rights = _partners(images, list_images(folders.right)) if folders.right else {}
    depths = _partners(images, list_images(folders.depth, DEPTH_SUFFIXES)) if folders.depth else {}
    calibration = load_calibration(_calibration_file(folder, folders.image, selection))
    if depths and calibration.depth is None:
        calibration = replace(calibration, depth=DepthCalibration())
        assumptions += ("depth is registered to the image and, where it is an integer, in millimetres",)
    truth = folder / "groundtruth.txt"
    recording = Recording(
        name=folder.resolve().name,
        files=[
            FrameFiles(stamp, path, rights.get(path), depths.get(path))
            for stamp, path in zip(stamps, images, strict=True)
        ],
        calibration=_check_right(folders, calibration, selection),
        info=SequenceInfo("image folder", _origins(folders), assumptions),
        ground_truth=read_tum(truth) if truth.is_file() else None,
    )
    return FileSequence(recording, selection)


def _origins(folders: Folders) -> dict[str, str]:
    roles = (("image", folders.image), ("right", folders.right), ("depth", folders.depth))
    return {role: place.name for role, place in roles if place is not None}


def _candidates(folder: Path) -> list[Folders]:
    """Every way to read a folder: the images in it, the known pairs of folders, or any folder of images."""
    if list_images(folder):
        return [Folders(folder)]
    holding = {child.name: child for child in sorted(folder.iterdir()) if child.is_dir() and list_images(child)}
    if "left" in holding and "right" in holding:
        return [Folders(holding["left"], right=holding["right"], depth=_depth_folder(folder))]
    named = [Folders(holding[name], depth=_depth_folder(folder)) for name in _IMAGE_FOLDERS if name in holding]
    return named or [Folders(child) for child in holding.values()]


def _depth_folder(folder: Path) -> Path | None:
    depth = folder / "depth"
    return depth if list_images(depth, DEPTH_SUFFIXES) else None


def _choose_folders(folder: Path) -> Folders:
    candidates = _candidates(folder)
    if not candidates:
        raise SourceError(f"'{folder}' holds no image: looked for {LOOKED_FOR}.")
    if len(candidates) > 1:
        names = ", ".join(f"'{candidate.image}'" for candidate in candidates)
        raise SourceError(f"'{folder}' has images in several folders: give one of {names}.")
    return candidates[0]


def _calibration_file(folder: Path, image_folder: Path, selection: Selection) -> Path:
    if selection.calibration is not None:
        return selection.calibration
    places = dict.fromkeys([folder, image_folder])
    found = [place / name for place in places for name in _CALIBRATION_NAMES if (place / name).is_file()]
    if not found:
        raise CalibrationError(
            f"there is no calibration for '{folder}': give one with --calibration, or put calibration.yaml into it."
        )
    if len(found) > 1:
        names = ", ".join(f"'{path}'" for path in found)
        raise CalibrationError(f"there are several calibrations, {names}: choose one with --calibration.")
    return found[0]


def _check_right(folders: Folders, calibration: Calibration, selection: Selection) -> Calibration:
    if folders.right is not None and calibration.right is None and selection.modality is None:
        raise CalibrationError(
            f"there are right images in '{folders.right}' but the calibration has no right camera: add right with K, "
            "width, height and right_from_left, or choose --modality MONO."
        )
    return calibration


def _partners(images: list[Path], others: list[Path]) -> dict[Path, Path]:
    """The image of the same time, or of the same number or name."""
    image_stamps, other_stamps = _named_stamps(images), _named_stamps(others)
    if image_stamps is not None and other_stamps is not None:
        numbers, partners = associate_stamps(image_stamps, other_stamps, MAX_PARTNER_GAP_NS)
        return {images[number]: others[partner] for number, partner in zip(numbers, partners, strict=True)}
    by_key = {_partner_key(path): path for path in others}
    return {path: by_key[_partner_key(path)] for path in images if _partner_key(path) in by_key}


def _partner_key(path: Path) -> int | str:
    number = number_from_name(path)
    return path.stem if number is None else number


def _stamps(folder: Path, image_folder: Path, images: list[Path]) -> tuple[list[int], tuple[str, ...]]:
    places = dict.fromkeys([folder, image_folder])
    files = [place / name for place in places for name in _TIMES_NAMES if (place / name).is_file()]
    if files:
        return _read_times(files[0], len(images)), ()
    named = _named_stamps(images)
    if named is not None:
        return named, ()
    assumption = f"neither the names nor a times.txt say the times, so {ASSUMED_RATE_HZ} images a second are assumed"
    return [number * 1_000_000_000 // ASSUMED_RATE_HZ for number in range(len(images))], (assumption,)


def _named_stamps(images: list[Path]) -> list[int] | None:
    stamps = [stamp for stamp in map(stamp_from_name, images) if stamp is not None]
    return stamps if len(stamps) == len(images) else None


def _read_times(path: Path, num_images: int) -> list[int]:
    rows = read_rows(path)
    if len(rows) != num_images:
        raise SourceError(f"'{path}' has {len(rows)} times for {num_images} images: give one line for each image.")
    try:
        return [stamp_from_text(words[0]) for _, words in rows]
    except ValueError as error:
        raise SourceError(f"'{path}': {error}: begin each line with the time of one image.") from error
