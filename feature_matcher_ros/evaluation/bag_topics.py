"""Which topics of a bag are the cameras, when nobody has said so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from feature_matcher_ros.errors import SourceError
from feature_matcher_ros.evaluation.sequences import Modality, Selection

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"

# Names that the left and the right camera of a pair have in ROS drivers and data sets.
_PAIRS = (("left", "right"), ("cam0", "cam1"), ("camera0", "camera1"), ("infra1", "infra2"), ("image_0", "image_1"))
_REGISTERED = re.compile(r"aligned|registered|to_color|to_rgb")


@dataclass(frozen=True, slots=True)
class ImageTopic:
    """One stream of images, whatever transports it was recorded with."""

    name: str  # of the raw images, "/camera/image_raw", also where only "/camera/image_raw/compressed" is there
    topic: str  # what is read
    type_name: str
    count: int
    encoding: str  # of a raw image, or the format of a compressed one
    frame_id: str

    @property
    def is_depth(self) -> bool:
        """Tell whether these are depth maps, by encoding; 16-bit grey only if the name says depth, too."""
        if self.type_name == COMPRESSED_IMAGE:
            return "compressedDepth" in self.encoding or self.encoding.startswith(("16UC1", "32FC1"))
        return self.encoding in ("16UC1", "32FC1") or (self.encoding == "mono16" and "depth" in self.name.lower())


@dataclass(frozen=True, slots=True)
class ChosenTopics:
    """What is read of a bag."""

    image: ImageTopic
    right: ImageTopic | None = None
    depth: ImageTopic | None = None

    @property
    def modality(self) -> Modality:
        if self.right is not None:
            return Modality.STEREO
        return Modality.MONO if self.depth is None else Modality.RGBD


def strip_transport(topic: str, type_name: str) -> str:
    """The name under which ``image_transport`` publishes the raw images of a compressed topic."""
    parent, _, last = topic.rpartition("/")
    return parent if type_name == COMPRESSED_IMAGE and parent and last.lower().startswith("compressed") else topic


def merge_transports(topics: Iterable[ImageTopic]) -> list[ImageTopic]:
    """Keep one topic of each camera: raw before compressed, lossless depth before pictures of it."""
    best: dict[str, ImageTopic] = {}
    for topic in sorted(topics, key=lambda topic: (topic.name, _transport_rank(topic), topic.topic)):
        best.setdefault(topic.name, topic)
    return list(best.values())


def choose_topics(streams: Sequence[ImageTopic], selection: Selection) -> ChosenTopics:
    """Decide what is read: what is selected, else what is there, if there is one way to read it.

    Raises:
        SourceError: there is no camera, a topic that was asked for is missing, or there is more than one
            candidate; the sentence lists them and names the option that decides.
    """
    cameras = merge_transports(streams)
    image = _choose_image(cameras, streams, selection)
    wanted = _wanted_modality(selection)
    right = _choose_right(image, cameras, streams, selection) if wanted in (None, Modality.STEREO) else None
    if wanted is None and right is not None and any(camera.is_depth for camera in cameras):
        raise SourceError(
            f"the bag holds depth, and {right.name} beside {image.name}: choose with --modality STEREO or RGBD."
        )
    depth = _choose_depth(image, cameras, streams, selection) if wanted in (None, Modality.RGBD) else None
    if wanted is Modality.STEREO and right is None:
        raise _missing("right image", f"beside {image.name}", "--right-topic TOPIC", cameras)
    if wanted is Modality.RGBD and depth is None:
        raise _missing("depth topic", f"beside {image.name}", "--depth-topic TOPIC", cameras)
    return ChosenTopics(image, right, depth)


def is_in_frame(depth: ImageTopic, image: ImageTopic) -> bool:
    """Tell whether depth is given in the frame of the image's own camera."""
    return depth.frame_id != "" and depth.frame_id == image.frame_id


def is_called_registered(depth: ImageTopic) -> bool:
    """Tell whether the topic's name says that depth is given for the pixels of a colour camera."""
    return bool(_REGISTERED.search(depth.name))


def right_name_of(left: str, names: Sequence[str]) -> str | None:
    """The topic among ``names`` whose name differs from that of the left camera in nothing but the side."""
    candidates = {left.replace(a, b) for a, b in _PAIRS if a in left}
    return next((name for name in names if name in candidates), None)


def info_topic_of(image: str, infos: Sequence[str]) -> str | None:
    """The CameraInfo topic that belongs to an image topic: its sibling, else a child of it."""
    names = (f"{image.rpartition('/')[0]}/camera_info", f"{image}/camera_info")
    return next((name for name in names if name in infos), None)


def _transport_rank(topic: ImageTopic) -> int:
    return 0 if topic.type_name == IMAGE else 1 if "compressedDepth" in topic.encoding else 2


def _wanted_modality(selection: Selection) -> Modality | None:
    """What was asked for, possibly by naming a topic."""
    if selection.modality is not None or (selection.right_topic is None and selection.depth_topic is None):
        return selection.modality
    return Modality.RGBD if selection.right_topic is None else Modality.STEREO


def _choose_image(cameras: Sequence[ImageTopic], streams: Sequence[ImageTopic], selection: Selection) -> ImageTopic:
    if selection.image_topic is not None:
        return _find(selection.image_topic, streams, cameras, "--image-topic")
    images = _images(cameras)
    rights = [partner for camera in images if (partner := _partner(camera, images)) is not None]
    candidates = [camera for camera in images if camera not in rights]
    if selection.modality is Modality.STEREO and selection.right_topic is None:
        candidates = [camera for camera in candidates if _partner(camera, images) is not None]
        if images and not candidates:
            raise SourceError(
                f"no two cameras of the bag are called left and right, there is {_listed(images)}: name both with "
                "--image-topic and --right-topic, or choose --modality MONO."
            )
    if not candidates:
        raise _missing("camera topic", "in the bag", "--image-topic TOPIC", cameras)
    return _only(candidates, "cameras", "--image-topic")


def _choose_right(
    image: ImageTopic, cameras: Sequence[ImageTopic], streams: Sequence[ImageTopic], selection: Selection
) -> ImageTopic | None:
    if selection.right_topic is not None:
        return _find(selection.right_topic, streams, cameras, "--right-topic")
    return _partner(image, _images(cameras))


def _choose_depth(
    image: ImageTopic, cameras: Sequence[ImageTopic], streams: Sequence[ImageTopic], selection: Selection
) -> ImageTopic | None:
    if selection.depth_topic is not None:
        return _find(selection.depth_topic, streams, cameras, "--depth-topic")
    candidates = [camera for camera in cameras if camera.is_depth and camera.name != image.name]
    for fits in (lambda camera: is_in_frame(camera, image), is_called_registered):
        fitting = [camera for camera in candidates if fits(camera)]
        candidates = fitting if len(fitting) == 1 else candidates
    return _only(candidates, "depth topics", "--depth-topic") if candidates else None


def _images(cameras: Sequence[ImageTopic]) -> list[ImageTopic]:
    """Cameras that are no depth, and no pictures made of depth where there are others."""
    images = [camera for camera in cameras if not camera.is_depth]
    return [camera for camera in images if "depth" not in camera.name.lower()] or images


def _partner(left: ImageTopic, cameras: Sequence[ImageTopic]) -> ImageTopic | None:
    """The right camera of a pair, whose name differs from the left one's in nothing but the side."""
    name = right_name_of(left.name, [camera.name for camera in cameras])
    return next((camera for camera in cameras if camera.name == name), None)


def _find(name: str, streams: Sequence[ImageTopic], cameras: Sequence[ImageTopic], option: str) -> ImageTopic:
    matches: list[Callable[[ImageTopic], bool]] = [lambda topic: topic.topic == name, lambda topic: topic.name == name]
    for group, match in ((streams, matches[0]), (cameras, matches[1])):
        for topic in group:
            if match(topic):
                return topic
    raise SourceError(f"there is no image on '{name}': give {option} one of {_listed(streams)}.")


def _only(candidates: Sequence[ImageTopic], what: str, option: str) -> ImageTopic:
    if len(candidates) > 1:
        raise SourceError(
            f"the bag holds {len(candidates)} {what}, {_listed(candidates)}: choose one with {option} TOPIC."
        )
    return candidates[0]


def _missing(what: str, where: str, option: str, cameras: Sequence[ImageTopic]) -> SourceError:
    found = f"only {_listed(cameras)}" if cameras else "no image at all"
    return SourceError(f"there is no {what} {where}, {found}: record the camera's topic, or name one with {option}.")


def _listed(topics: Sequence[ImageTopic]) -> str:
    return ", ".join(f"{topic.topic} ({topic.encoding}, {topic.count} messages)" for topic in topics)
