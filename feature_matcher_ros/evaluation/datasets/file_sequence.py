"""Frames whose images lie in files of their own: what every dataset layout comes down to."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Camera, DepthView, Frame, Image, StereoView, Trajectory
from feature_matcher_ros.errors import CalibrationError, ImageError, SourceError
from feature_matcher_ros.evaluation.calibration import Calibration, DepthCalibration, scale_camera
from feature_matcher_ros.evaluation.image_files import read_depth, read_image
from feature_matcher_ros.evaluation.sequences import Modality, Selection, SequenceInfo

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FrameFiles:
    """The files of one frame."""

    stamp_ns: int
    image: Path
    right: Path | None = None
    depth: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """What a layout found out about a folder."""

    name: str
    files: Sequence[FrameFiles]
    calibration: Calibration
    info: SequenceInfo
    ground_truth: Trajectory | None = None


class FileSequence:
    """A ``Sequence`` that decodes one frame's files after the other.

    Raises:
        SourceError: the modality is not to be had, nothing is selected or no image can be decoded.
        CalibrationError: the calibration does not fit the first images.
    """

    def __init__(self, recording: Recording, selection: Selection) -> None:
        self.name = recording.name
        self.ground_truth = recording.ground_truth
        self.info = _with_omissions(recording)
        self.skipped: Counter[str] = Counter()
        self.modality = choose_modality(recording, selection.modality)
        self._files = select_files(recording, selection)
        self._color = selection.color
        self._calibration = self._fit(recording.calibration)

    def __len__(self) -> int:
        return len(self._files)

    def frames(self) -> Iterator[Frame]:
        self.skipped.clear()
        for files in self._files:
            frame = self._frame_or_skip(files)
            if frame is not None:
                yield frame

    def _frame_or_skip(self, files: FrameFiles) -> Frame | None:
        try:
            return self._decode(files)
        except ImageError as error:
            _LOG.debug("skipped %s: %s (%s)", files.image, error, error.__cause__)
            self.skipped[str(error)] += 1
            return None

    def _decode(self, files: FrameFiles) -> Frame:
        camera = self._calibration.camera
        image = _decode_image(files.image, "image", camera, self._color)
        stereo = self._decode_right(files.right) if self.modality is Modality.STEREO else None
        depth = self._decode_depth(files.depth) if self.modality is Modality.RGBD else None
        return Frame(files.stamp_ns, image, camera, stereo=stereo, depth=depth)

    def _decode_right(self, path: Path | None) -> StereoView:
        right = self._calibration.right
        if path is None or right is None:
            raise ImageError("there is no right image of the same time")
        image = _decode_image(path, "right image", right.camera, self._color)
        return StereoView(image, right.camera, right.right_from_left)

    def _decode_depth(self, path: Path | None) -> DepthView:
        depth = self._calibration.depth
        if path is None or depth is None or depth.camera is None:
            raise ImageError("there is no depth image of the same time")
        depth_m = _decode_depth(path, depth.units_per_m)
        _check_size(depth_m.shape, depth.camera, "depth image")
        return DepthView(depth_m, depth.camera, depth.cam_from_depth)

    def _fit(self, calibration: Calibration) -> Calibration:
        """Check the calibration against the first images, and give registered depth its camera."""
        size = first_image_size(files.image for files in self._files)
        _check_calibration(size, calibration.camera, "image")
        right, depth = calibration.right, calibration.depth
        if self.modality is Modality.STEREO and right is not None:
            size = first_image_size(files.right for files in self._files if files.right is not None)
            _check_calibration(size, right.camera, "right image")
        if self.modality is Modality.RGBD:
            depth = depth or DepthCalibration()
            depth = replace(depth, camera=self._depth_camera(calibration.camera, depth))
        return replace(calibration, right=right, depth=depth)

    def _depth_camera(self, camera: Camera, depth: DepthCalibration) -> Camera:
        paths = [files.depth for files in self._files if files.depth is not None]
        width, height = _first_size(paths, lambda path: read_depth(path, 1.0).shape, "depth images")
        if depth.camera is not None:
            _check_calibration((width, height), depth.camera, "depth image")
            return depth.camera
        try:
            return scale_camera(camera, width, height)
        except CalibrationError as error:
            raise CalibrationError(f"the depth images are not registered to the images: {error}") from error


def choose_modality(recording: Recording, wanted: Modality | None) -> Modality:
    """Decide what is read of a recording.

    Raises:
        SourceError: it does not offer what is wanted, or offers stereo and depth and nothing is said.
    """
    offered = _offered(recording)
    if wanted is None:
        if len(offered) == 3:
            raise SourceError(f"'{recording.name}' offers STEREO and RGBD: choose one of them with --modality.")
        return offered[-1]
    if wanted not in offered:
        names = " or ".join(modality.value for modality in offered)
        reason = ""
        if wanted is Modality.STEREO and any(files.right is not None for files in recording.files):
            reason = " (the calibration has no right camera)"
        raise SourceError(f"'{recording.name}' does not offer {wanted.value}{reason}: choose --modality {names}.")
    return wanted


def select_files(recording: Recording, selection: Selection) -> list[FrameFiles]:
    """Return the files of the selected stretch.

    Raises:
        SourceError: nothing is selected.
    """
    files = recording.files
    if not files:
        raise SourceError(f"'{recording.name}' lists no image: check that the download is complete.")
    first_ns = files[0].stamp_ns
    selected = [one for one in files if selection.covers(one.stamp_ns - first_ns)][:: selection.stride]
    if not selected:
        length_s = (files[-1].stamp_ns - first_ns) / 1e9
        raise SourceError(
            f"no frame of '{recording.name}' lies in the selected stretch from {selection.start_s:g} s on: "
            f"it is {length_s:.2f} s long, choose an earlier start or a longer duration."
        )
    return selected


def first_image_size(paths: Iterable[Path]) -> tuple[int, int]:
    """Width and height of the first image that can be decoded.

    Raises:
        SourceError: none can be.
    """
    return _first_size(list(paths), lambda path: read_image(path).shape, "images")


def _first_size(paths: Sequence[Path], read_shape: Callable[[Path], tuple[int, ...]], what: str) -> tuple[int, int]:
    reasons = []
    for path in paths:
        try:
            height, width = read_shape(path)[:2]
        except ImageError as error:
            reasons.append(str(error))
            continue
        return width, height
    if not reasons:
        raise SourceError(f"there are no {what} in the selected stretch: choose a longer one, or --modality MONO.")
    raise SourceError(f"not one of the {len(paths)} {what} can be used; of the first: {reasons[0]}")


def _with_omissions(recording: Recording) -> SequenceInfo:
    if recording.calibration.right is None and any(files.right is not None for files in recording.files):
        omission = "the right images are left out, because the calibration has no right camera"
        return replace(recording.info, assumptions=(*recording.info.assumptions, omission))
    return recording.info


def _offered(recording: Recording) -> list[Modality]:
    offered = [Modality.MONO]
    if recording.calibration.right is not None and any(files.right is not None for files in recording.files):
        offered.append(Modality.STEREO)
    if any(files.depth is not None for files in recording.files):
        offered.append(Modality.RGBD)
    return offered


def _decode_image(path: Path, what: str, camera: Camera, color: bool) -> Image:
    try:
        image = read_image(path, color)
    except ImageError as error:
        raise ImageError(f"the {what} is missing or cannot be decoded") from error
    _check_size(image.shape, camera, what)
    return image


def _decode_depth(path: Path, units_per_m: float) -> NDArray[np.float32]:
    try:
        return read_depth(path, units_per_m)
    except ImageError as error:
        raise ImageError(
            "the depth image is missing, damaged, or not one channel of 16 bits or of floating point"
        ) from error


def _check_size(shape: tuple[int, ...], camera: Camera, what: str) -> None:
    if shape[:2] != (camera.height, camera.width):
        raise ImageError(
            f"the {what} has {shape[1]}x{shape[0]} pixels but its calibration {camera.width}x{camera.height}"
        )


def _check_calibration(size: tuple[int, int], camera: Camera, what: str) -> None:
    if size != (camera.width, camera.height):
        raise CalibrationError(
            f"the {what} has {size[0]}x{size[1]} pixels but its calibration {camera.width}x{camera.height}: "
            "give the calibration of this image size with --calibration."
        )
