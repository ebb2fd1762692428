"""Recorded frames, whatever they are stored in: one protocol, and one function that opens them all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Protocol

from feature_matcher_ros.datatypes import Frame, Trajectory
from feature_matcher_ros.errors import ConfigError, SourceError

BAG_SUFFIXES = (".bag", ".db3", ".mcap")


class Modality(str, Enum):
    """What a frame holds beside its image, and so where metric scale can come from."""

    MONO = "MONO"
    STEREO = "STEREO"
    RGBD = "RGBD"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which part of a source is read, and what its files leave open; the default reads all there is.

    Raises:
        ConfigError: a number is out of its range.
    """

    modality: Modality | None = None  # None: the richest the source offers
    layout: str | None = None  # name of a dataset layout, where the files fit several
    image_topic: str | None = None  # bags: the colour, or the left, image
    camera_info_topic: str | None = None  # bags: of the image
    right_topic: str | None = None
    right_camera_info_topic: str | None = None
    depth_topic: str | None = None
    depth_camera_info_topic: str | None = None
    ground_truth_topic: str | None = None
    calibration: Path | None = None  # takes the place of what the source says
    color: bool = False  # decode BGR; grey is all that the matchers need
    start_s: float = 0.0  # after the first frame
    duration_s: float | None = None  # None: to the end
    stride: int = 1  # every n-th frame of that stretch

    def __post_init__(self) -> None:
        if not 0.0 <= self.start_s < float("inf"):
            raise ConfigError(f"start = {self.start_s} s cannot be: give seconds after the first frame, 0 or more.")
        if self.duration_s is not None and not self.duration_s > 0.0:
            raise ConfigError(f"duration = {self.duration_s} s selects nothing: give more than 0 seconds.")
        if self.stride < 1:
            raise ConfigError(f"stride = {self.stride} selects nothing: 1 takes every frame, 2 every other one.")

    def covers(self, elapsed_ns: int) -> bool:
        """Tell whether a frame this long after the first one lies in the selected stretch.

        Without a start no frame comes too early, not even one whose stamp lies before the first.
        """
        start_ns = round(self.start_s * 1e9)
        if start_ns > 0 and elapsed_ns < start_ns:
            return False
        if self.duration_s is None or self.duration_s == float("inf"):
            return True
        return elapsed_ns < start_ns + round(self.duration_s * 1e9)

    def is_over(self, elapsed_ns: int) -> bool:
        """Tell whether a frame this long after the first one lies behind the selected stretch."""
        return elapsed_ns > self.start_s * 1e9 and not self.covers(elapsed_ns)


TOPICS = tuple(entry.name for entry in fields(Selection) if entry.name.endswith("_topic"))


@dataclass(frozen=True, slots=True)
class SequenceInfo:
    """What a person should know about a source before trusting what comes out of it."""

    layout: str  # "TUM RGB-D", "ROS 2 bag", ...
    origins: Mapping[str, str] = field(default_factory=dict)  # "image" -> topic or folder, likewise right, depth ...
    assumptions: tuple[str, ...] = ()  # one sentence for each thing the files do not say
    truth_sigma_m: float | None = None  # noise of the true positions, where it is known


class Sequence(Protocol):
    """Recorded frames in the order they are stored.

    A frame that cannot be read is counted in ``skipped``, by reason, and the others still come.
    """

    @property
    def name(self) -> str: ...

    @property
    def modality(self) -> Modality: ...

    @property
    def info(self) -> SequenceInfo: ...

    @property
    def ground_truth(self) -> Trajectory | None:
        """Poses ``world_from_cam`` of the left or colour camera itself."""

    @property
    def skipped(self) -> Counter[str]:
        """Reason, as a sentence fit to be shown, to number of frames; grows while iterating."""

    def __len__(self) -> int:
        """Count the frames to expect, the unreadable ones included."""

    def frames(self) -> Iterator[Frame]:
        """Decode the frames one at a time; each call starts again."""


def open_sequence(path: Path, selection: Selection | None = None) -> Sequence:
    """Open a bag, a dataset folder or a video file.

    Raises:
        SourceError: nothing there can be read, or there are several candidates to choose from.
        CalibrationError: the camera is unknown, or does not fit the images.
        ConfigError: the selection names what such a source does not have.
    """
    try:
        return _open(path, selection or Selection())
    except OSError as error:
        reason = error.strerror or str(error)
        raise SourceError(f"'{path}' cannot be read ({reason}): check its permissions and the disk.") from error


def _open(path: Path, selection: Selection) -> Sequence:
    if not path.exists():
        raise SourceError(f"'{path}' does not exist: give a bag, a dataset folder or a video file.")
    if is_bag(path):
        refuse_names(path, selection, ["layout"])
        # Imported here, so that reading a folder of images does not need the bag libraries.
        from feature_matcher_ros.evaluation.bag import open_bag

        return open_bag(path, selection)
    # Imported here, because every layout imports the records above.
    from feature_matcher_ros.evaluation.datasets.layouts import open_dataset

    return open_dataset(path, selection)


def refuse_names(path: Path, selection: Selection, names: Iterable[str]) -> None:
    """Refuse a selection by what such a source does not have.

    Raises:
        ConfigError: one of the fields of these names is set.
    """
    for name in names:
        value = getattr(selection, name)
        if value is not None:
            raise ConfigError(f"--{name.replace('_', '-')} {value} means nothing for '{path}': leave it out.")


def is_bag(path: Path) -> bool:
    """Tell whether a path is a ROS 1 bag, a ROS 2 storage file or the folder of a ROS 2 bag.

    A bag whose recording was killed has no metadata; its files differ in nothing but their number, as files of several
    recordings in one folder do not.
    """
    if path.is_file():
        return path.suffix in BAG_SUFFIXES
    metadata = path / "metadata.yaml"
    if metadata.is_file() and b"rosbag2_bagfile_information" in metadata.read_bytes():
        return True
    return len({re.sub(r"_\d+$", "", child.stem) for child in path.iterdir() if child.suffix in (".db3", ".mcap")}) == 1
