"""Which topics of a live graph are the camera's, where only one answer is possible."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from feature_matcher_ros.errors import SourceError
from feature_matcher_ros.evaluation.bag_topics import COMPRESSED_IMAGE, IMAGE, right_name_of, strip_transport
from feature_matcher_ros.ros.graph import Endpoint

_OWN = "/matches_image"  # what this package publishes itself


@dataclass(frozen=True, slots=True)
class FoundTopics:
    """The topics of one camera, by the names of the raw images."""

    image: str
    second: str | None = None  # the right image, or depth
    is_compressed: bool = False
    is_second_compressed: bool = False

    def parameters(self, modality: str) -> dict[str, str]:
        """The parameters by which the node listens to them."""
        transports = {False: "raw", True: "compressed"}
        found = {"node.image_topic": self.image, "node.image_transport": transports[self.is_compressed]}
        if modality == "stereo" and self.second is not None:
            found["node.right_image_topic"] = self.second
        elif modality == "rgbd" and self.second is not None:
            found |= {"node.depth_topic": self.second, "node.depth_transport": transports[self.is_second_compressed]}
        return found


def search_topics(endpoints: Iterable[Endpoint], modality: str) -> FoundTopics:
    """Choose the camera of a graph; depth is known by its name, which is all that is known of a topic unheard.

    Raises:
        SourceError: there is none, or more than one; the sentence lists them.
    """
    streams = _streams(endpoints)
    depths = [name for name in streams if "depth" in name.lower()]
    images = [name for name in streams if name not in depths]
    rights = {right for name in images if (right := right_name_of(name, images)) is not None}
    if modality == "stereo":
        images = [name for name in images if right_name_of(name, images) is not None]
        image = _only(images, "pair of left and right images")
        second = right_name_of(image, list(streams))
        assert second is not None
        return FoundTopics(image, second, streams[image], streams[second])
    image = _only([name for name in images if name not in rights], "image")
    if modality == "mono":
        return FoundTopics(image, None, streams[image])
    depth = _only(depths, "depth")
    return FoundTopics(image, depth, streams[image], streams[depth])


def _streams(endpoints: Iterable[Endpoint]) -> dict[str, bool]:
    """Names of images, and whether there is nothing but compressed ones of them."""
    streams: dict[str, bool] = {}
    for endpoint in endpoints:
        if endpoint.type_name in (IMAGE, COMPRESSED_IMAGE) and _OWN not in endpoint.topic:
            name = strip_transport(endpoint.topic, endpoint.type_name)
            streams[name] = streams.get(name, True) and endpoint.type_name == COMPRESSED_IMAGE
    return dict(sorted(streams.items()))


def _only(names: list[str], what: str) -> str:
    if not names:
        raise SourceError(f"nobody publishes a topic that could be the {what}: start the camera, or name the topic.")
    if len(names) > 1:
        raise SourceError(f"{len(names)} topics could be the {what}, {', '.join(names)}: name the one that is meant.")
    return names[0]
