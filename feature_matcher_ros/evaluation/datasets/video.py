"""A video file, decoded by OpenCV. Times come from the file, its calibration from a YAML file beside it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2

from feature_matcher_ros.datatypes import Camera, Frame, Trajectory
from feature_matcher_ros.errors import CalibrationError, ImageError, SourceError
from feature_matcher_ros.evaluation.calibration import load_calibration
from feature_matcher_ros.evaluation.sequences import BAG_SUFFIXES, Modality, Selection, SequenceInfo

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg")
ASSUMED_RATE_HZ = 30.0


def open_video(path: Path, selection: Selection) -> VideoSequence:
    """Open a video file.

    Raises:
        SourceError: it cannot be decoded, or has no selected frame.
        CalibrationError: there is no calibration, or it does not fit the images.
    """
    if selection.modality not in (None, Modality.MONO):
        raise SourceError(f"the video '{path}' does not offer {selection.modality.value}: choose --modality MONO.")
    return VideoSequence(path, load_calibration(_calibration_file(path, selection)).camera, selection)


class VideoSequence:
    """The frames of a video as a ``Sequence``.

    Raises:
        SourceError: the video cannot be decoded, or has no selected frame.
        CalibrationError: the camera does not fit the first image.
    """

    modality = Modality.MONO
    ground_truth: Trajectory | None = None

    def __init__(self, path: Path, camera: Camera, selection: Selection) -> None:
        self.name = path.stem
        self.skipped: Counter[str] = Counter()
        self._path = path
        self._camera = camera
        self._selection = selection
        with _open_capture(path) as capture:
            _check_first_image(path, capture, camera)
            rate_hz = capture.get(cv2.CAP_PROP_FPS)
            self._announced = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        known = math.isfinite(rate_hz) and rate_hz > 0
        self._rate_hz = rate_hz if known else ASSUMED_RATE_HZ
        assumptions = () if known else (f"the video does not say its rate, so {ASSUMED_RATE_HZ:g} Hz are assumed",)
        self.info = SequenceInfo("video", {"image": str(path)}, assumptions)
        if self._announced and not len(self):
            raise SourceError(
                f"no frame of '{path}' lies in the selected stretch from {selection.start_s:g} s on: "
                f"it is {self._announced / self._rate_hz:.2f} s long, choose an earlier start or a longer duration."
            )

    def __len__(self) -> int:
        """Frames to expect by what the file announces, which can be wrong; 0 where it announces nothing."""
        numbers = range(self._announced)
        covered = sum(self._selection.covers(self._regular_stamp(number)) for number in numbers)
        return math.ceil(covered / self._selection.stride)

    def frames(self) -> Iterator[Frame]:
        self.skipped.clear()
        with _open_capture(self._path) as capture:
            covered = 0
            for stamp_ns in self._grab(capture):
                if self._selection.is_over(stamp_ns):
                    break
                if not self._selection.covers(stamp_ns):
                    continue
                covered += 1
                if (covered - 1) % self._selection.stride == 0:
                    frame = self._decode(capture, stamp_ns)
                    if frame is not None:
                        yield frame

    def _grab(self, capture: cv2.VideoCapture) -> Iterator[int]:
        """Step through the frames without decoding them to images; yields their times."""
        number = 0
        while capture.grab():
            yield self._stamp(capture, number)
            number += 1
        if number < self._announced:
            self.skipped["the video ends before its announced number of frames"] += self._announced - number

    def _decode(self, capture: cv2.VideoCapture, stamp_ns: int) -> Frame | None:
        decoded, image = capture.retrieve()
        if not decoded:
            self.skipped["the image cannot be decoded"] += 1
            return None
        if not self._selection.color and image.ndim == 3:
            image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        try:
            return Frame(stamp_ns, image, self._camera)
        except ImageError as error:
            self.skipped[str(error)] += 1
            return None

    def _stamp(self, capture: cv2.VideoCapture, number: int) -> int:
        """Nanoseconds by the file; by the number of the frame where OpenCV's backend does not tell."""
        position_ms = capture.get(cv2.CAP_PROP_POS_MSEC)
        return round(position_ms * 1e6) if position_ms > 0 else self._regular_stamp(number)

    def _regular_stamp(self, number: int) -> int:
        return round(number * 1e9 / self._rate_hz)


@contextmanager
def _open_capture(path: Path) -> Iterator[cv2.VideoCapture]:
    capture = cv2.VideoCapture(str(path))
    try:
        yield capture
    finally:
        capture.release()


def _check_first_image(path: Path, capture: cv2.VideoCapture, camera: Camera) -> None:
    decoded, image = capture.read()
    if not decoded:
        raise SourceError(
            f"'{path}' cannot be decoded as a video: give a video that OpenCV reads, a dataset folder or a bag "
            f"({', '.join(BAG_SUFFIXES)})."
        )
    height, width = image.shape[:2]
    if (width, height) != (camera.width, camera.height):
        raise CalibrationError(
            f"the video has {width}x{height} pixels but its calibration {camera.width}x{camera.height}: "
            "give the calibration of this image size with --calibration."
        )


def _calibration_file(path: Path, selection: Selection) -> Path:
    if selection.calibration is not None:
        return selection.calibration
    candidates = (path.with_suffix(".yaml"), path.with_suffix(".yml"), path.with_name(f"{path.name}.yaml"))
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        raise CalibrationError(
            f"there is no calibration for '{path}': give one with --calibration, or put '{candidates[0].name}' "
            "beside it."
        )
    return found
