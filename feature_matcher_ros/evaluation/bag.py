"""Frames of ROS bags: ROS 1, and ROS 2 with sqlite3 or MCAP."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import DepthView, Frame, Image, StereoView, Trajectory
from feature_matcher_ros.errors import ImageError, SourceError
from feature_matcher_ros.evaluation.bag_file import TF_TYPES, BagFile, RawMessage
from feature_matcher_ros.evaluation.bag_ground_truth import TruthSource, find_ground_truth, read_ground_truth
from feature_matcher_ros.evaluation.bag_rig import Rig, RigReader, Size
from feature_matcher_ros.evaluation.bag_topics import (
    COMPRESSED_IMAGE,
    IMAGE,
    ChosenTopics,
    ImageTopic,
    choose_topics,
    strip_transport,
)
from feature_matcher_ros.evaluation.bag_transforms import TransformTree, clean_frame_id
from feature_matcher_ros.evaluation.sequences import Selection, SequenceInfo
from feature_matcher_ros.evaluation.stamp_pairing import Paired, StampPairer
from feature_matcher_ros.ros.depth_decoder import decode_compressed_depth, decode_depth
from feature_matcher_ros.ros.image_decoder import decode_compressed_image, decode_image
from feature_matcher_ros.ros.messages import stamp_ns_of

_LOOKED_AT = 30  # images whose distance in time is taken for that of all
# Two images further apart than this are no stereo pair, however slow the cameras.
_MAX_STEREO_SKEW_NS = 5_000_000


def open_bag(path: Path, selection: Selection) -> BagSequence:
    """Find the cameras of a bag and what it says about them.

    Raises:
        SourceError: the bag cannot be read, or what to read of it is not clear.
        CalibrationError: a camera is not calibrated, or its calibration does not fit its images.
    """
    with BagFile(path) as bag:
        topics = choose_topics(_image_streams(bag), selection)
        fixed = _fixed_transforms(bag)
        rig = RigReader(bag, topics, selection, fixed).read(lambda topic: _image_size(bag, topic))
        truth, note = find_ground_truth(bag, topics.image.frame_id, fixed, selection.ground_truth_topic)
        notes = [*rig.assumptions, *([note] if note else []), *([truth.note] if truth and truth.note else [])]
        info = SequenceInfo(bag.layout, _origins(topics, truth), tuple(notes))
        period_ns = max(bag.end_ns - bag.start_ns, 1) / max(topics.image.count - 1, 1)
        tolerance_ns = round(_usual_period_ns(bag, topics.image.topic, period_ns) / 2)
        if topics.right is not None:
            tolerance_ns = min(tolerance_ns, _MAX_STEREO_SKEW_NS)
        return BagSequence(_Contents(path, selection, topics, rig, fixed, truth, info, period_ns, tolerance_ns))


def camera_topics(path: Path, selection: Selection) -> ChosenTopics:
    """The topics that ``open_bag`` would read, without asking for a calibration.

    Raises:
        SourceError: the bag cannot be read, or what to read of it is not clear.
    """
    with BagFile(path) as bag:
        return choose_topics(_image_streams(bag), selection)


@dataclass(frozen=True, slots=True, eq=False)
class _Contents:
    """What was found out about a bag."""

    path: Path
    selection: Selection
    topics: ChosenTopics
    rig: Rig
    fixed: TransformTree
    truth: TruthSource | None
    info: SequenceInfo
    period_ns: float  # mean time between two images, pauses included
    tolerance_ns: int  # between an image and the right one, or depth


class BagSequence:
    """A ``Sequence`` that reads its bag while it is iterated, one frame at a time.

    Stamps are those of the headers. An image without its partner (the right image, depth) is skipped and
    counted, as the synchroniser of a node would.
    """

    def __init__(self, contents: _Contents) -> None:
        self._contents = contents
        self.name = contents.path.stem if contents.path.is_file() else contents.path.resolve().name
        self.info = contents.info
        self.modality = contents.topics.modality
        self.skipped: Counter[str] = Counter()

    @cached_property
    def ground_truth(self) -> Trajectory | None:
        """Poses ``world_from_cam`` of the left or colour camera, read when first asked for."""
        contents = self._contents
        if contents.truth is None:
            return None
        with BagFile(contents.path) as bag:
            return read_ground_truth(bag, contents.truth, contents.topics.image.frame_id, contents.fixed)

    def __len__(self) -> int:
        """Count the images, or, of a stretch, estimate how many there are."""
        selection, count = self._contents.selection, self._contents.topics.image.count
        before = round(selection.start_s * 1e9 / self._contents.period_ns)
        remaining = max(count - before, 0)
        if selection.duration_s is not None and math.isfinite(selection.duration_s):
            remaining = min(remaining, round(selection.duration_s * 1e9 / self._contents.period_ns))
        return math.ceil(remaining / selection.stride)

    def frames(self) -> Iterator[Frame]:
        """Decode the frames one at a time; each call starts again.

        Raises:
            SourceError: the bag is damaged from some place on, or not one frame could be made of it.
        """
        self.skipped.clear()
        some = False
        with BagFile(self._contents.path) as bag:
            for pair in self._pairs(bag):
                frame = self._frame_or_skip(bag, pair)
                if frame is not None:
                    some = True
                    yield frame
        if not some:
            reason = self.skipped.most_common(1)[0][0] if self.skipped else "none lies in the selected stretch"
            raise SourceError(f"no frame of '{self._contents.path}' could be used: {reason}.")

    def _pairs(self, bag: BagFile) -> Iterator[Paired[RawMessage, RawMessage]]:
        """The selected images with their partners, undecoded."""
        topics = self._contents.topics
        second = topics.right or topics.depth
        pairer = StampPairer[RawMessage, RawMessage](self._contents.tolerance_ns)
        stretch = _Stretch(self._contents.selection)
        for message in bag.messages([topics.image.topic, *([second.topic] if second else [])]):
            stamp_ns = self._stamp_or_skip(bag, message)
            if stamp_ns is None:
                continue
            if message.topic != topics.image.topic:
                yield from pairer.add_second(stamp_ns, message)
            elif stretch.selects(stamp_ns):
                if second is None:
                    yield Paired(stamp_ns, message, None)
                else:
                    yield from pairer.add_first(stamp_ns, message)
            elif stretch.is_over(stamp_ns) and not pairer.is_waiting:
                break
        yield from pairer.finish()

    def _stamp_or_skip(self, bag: BagFile, message: RawMessage) -> int | None:
        try:
            return _stamp_ns(bag, message)
        except SourceError as error:
            self.skipped[str(error).rstrip(".")] += 1
            return None

    def _frame_or_skip(self, bag: BagFile, pair: Paired[RawMessage, RawMessage]) -> Frame | None:
        try:
            return self._decode(bag, pair)
        except ImageError as error:
            self.skipped[str(error).rstrip(".")] += 1
            return None

    def _decode(self, bag: BagFile, pair: Paired[RawMessage, RawMessage]) -> Frame:
        topics, rig, color = self._contents.topics, self._contents.rig, self._contents.selection.color
        stereo, depth = None, None
        second = topics.right or topics.depth
        if second is not None and pair.partner is None:
            raise ImageError(
                f"no message on {second.topic} lies within {self._contents.tolerance_ns / 1e6:.1f} ms of the image"
            )
        if second is not None and pair.partner is not None:
            assert rig.second is not None and rig.second_pose is not None
            message = bag.decode(pair.partner)
            if topics.right is not None:
                stereo = StereoView(_decode_image(second, message, color), rig.second, rig.second_pose)
                _check_shape(stereo.image, rig.second.width, rig.second.height, second)
            else:
                depth = DepthView(_decode_depth(second, message, rig.units_per_m), rig.second, rig.second_pose)
                _check_shape(depth.depth_m, rig.second.width, rig.second.height, second)
        image = _decode_image(topics.image, bag.decode(pair.item), color)
        return Frame(pair.stamp_ns, image, rig.camera, clean_frame_id(topics.image.frame_id) or "camera", stereo, depth)


class _Stretch:
    """Follows which images lie in the selected stretch."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._first_ns: int | None = None
        self._number = -1

    def selects(self, stamp_ns: int) -> bool:
        if self._first_ns is None:
            self._first_ns = stamp_ns
        if not self._selection.covers(stamp_ns - self._first_ns):
            return False
        self._number += 1
        return self._number % self._selection.stride == 0

    def is_over(self, stamp_ns: int) -> bool:
        """Tell whether an image that is not selected lies behind the stretch."""
        assert self._first_ns is not None
        return self._selection.is_over(stamp_ns - self._first_ns)


def _image_streams(bag: BagFile) -> list[ImageTopic]:
    streams = []
    for topic in bag.topics.values():
        if topic.type_name in (IMAGE, COMPRESSED_IMAGE):
            message = bag.first(topic.name)
            encoding = message.encoding if topic.type_name == IMAGE else message.format
            name = strip_transport(topic.name, topic.type_name)
            streams.append(
                ImageTopic(name, topic.name, topic.type_name, topic.count, encoding, message.header.frame_id)
            )
    return streams


def _usual_period_ns(bag: BagFile, topic: str, mean_ns: float) -> float:
    """Time between two images, whatever pauses there are and how long the bag goes on without the camera."""
    stamps = []
    for message in islice(bag.messages([topic]), _LOOKED_AT):
        with suppress(SourceError):
            stamps.append(_stamp_ns(bag, message))
    steps = np.abs(np.diff(stamps))
    return float(np.median(steps[steps > 0])) if np.any(steps) else mean_ns


def _stamp_ns(bag: BagFile, message: RawMessage) -> int:
    """The time in the header, or that of the recording where the header has none."""
    return stamp_ns_of(bag.decode(message).header) or message.recorded_ns


def _fixed_transforms(bag: BagFile) -> TransformTree:
    """``/tf_static``, under whatever namespace."""
    tree = TransformTree()
    names = [t.name for t in bag.topics.values() if t.type_name in TF_TYPES and t.name.endswith("tf_static")]
    for message in bag.messages(names) if names else ():
        tree.add(bag.decode(message).transforms, are_fixed=True)
    return tree


def _image_size(bag: BagFile, topic: ImageTopic) -> Size | None:
    """Width and height of a topic's first image; None if it cannot be decoded."""
    message = bag.first(topic.topic)
    try:
        pixels = _decode_depth(topic, message, 1.0) if topic.is_depth else _decode_image(topic, message, False)
    except ImageError:
        return None
    return pixels.shape[1], pixels.shape[0]


def _decode_image(topic: ImageTopic, message: Any, color: bool) -> Image:
    return decode_image(message, color) if topic.type_name == IMAGE else decode_compressed_image(message, color)


def _decode_depth(topic: ImageTopic, message: Any, units_per_m: float) -> NDArray[np.float32]:
    decode = decode_depth if topic.type_name == IMAGE else decode_compressed_depth
    return decode(message, units_per_m)


def _check_shape(pixels: NDArray[Any], width: int, height: int, topic: ImageTopic) -> None:
    if pixels.shape[:2] != (height, width):
        raise ImageError(
            f"an image on {topic.topic} has {pixels.shape[1]}x{pixels.shape[0]} pixels "
            f"but its calibration {width}x{height}"
        )


def _origins(topics: ChosenTopics, truth: TruthSource | None) -> dict[str, str]:
    origins = {"image": topics.image.topic}
    for name, topic in (("right", topics.right), ("depth", topics.depth)):
        if topic is not None:
            origins[name] = topic.topic
    return origins if truth is None else origins | {"ground_truth": truth.origin}
