"""Why nothing arrives: one sentence for each topic that is awaited in vain, with the remedy."""

from __future__ import annotations

from collections.abc import Sequence

from feature_matcher_ros.evaluation.bag_topics import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE
from feature_matcher_ros.ros.camera_input import Arrivals, CameraInput
from feature_matcher_ros.ros.frame_ledger import DropReason, FrameCounts
from feature_matcher_ros.ros.graph import Endpoint, QosProfile
from feature_matcher_ros.ros.input_topics import InputTopic
from feature_matcher_ros.ros.live_rig import Role
from feature_matcher_ros.ros.names import similar_topics

_PARAMETERS = {
    (Role.IMAGE, False): "image_topic",
    (Role.RIGHT, False): "right_image_topic",
    (Role.DEPTH, False): "depth_topic",
    (Role.IMAGE, True): "camera_info_topic",
    (Role.RIGHT, True): "right_camera_info_topic",
    (Role.DEPTH, True): "depth_camera_info_topic",
}
AGE_REMEDY = (
    "with a bag play it with --clock and set use_sim_time, with a camera set the clocks of both computers, or give a "
    "larger limit"
)
_REASONS = {
    DropReason.TOO_OLD: f"they are older than node.max_frame_age_ms when they could be processed: {AGE_REMEDY}",
    DropReason.WITHOUT_STAMP: "their stamps are zero: the driver must fill in header.stamp",
    DropReason.OUT_OF_ORDER: "their stamps run backwards: publish the images in order",
    DropReason.WITHOUT_PARTNER: "no {second} has a stamp within {parameter}: synchronise the cameras, or allow more",
    DropReason.NOT_CALIBRATED: "their camera cannot be used, see the warning above",
    DropReason.NOT_DECODED: "they cannot be decoded, see the warning above",
    DropReason.FAILED: "the front-end failed, see the error above",
}


NOTHING = Arrivals(FrameCounts(0, 0, {}, 0), {})


def explain_silence(camera: CameraInput, endpoints: Sequence[Endpoint], before: Arrivals = NOTHING) -> list[str]:
    """Say of every input of a camera why nothing comes, or why what comes is of no use; [] if all is well.

    ``before`` is what had come when all was well: what counts is what came since.
    """
    sentences = []
    for wanted, subscription in camera.subscriptions().items():
        if _is_lacking(wanted, camera, before):
            was_heard = before.messages.get(wanted, 0) > 0
            sentences.append(explain_topic(wanted, subscription.qos, endpoints, was_heard=was_heard))
    counts = camera.ledger.counts()
    if not sentences and counts.received > before.counts.received:
        sentences.append(_explain_drops(counts, before.counts, camera.second))
    return sentences


def _is_lacking(wanted: InputTopic, camera: CameraInput, before: Arrivals) -> bool:
    """Tell whether a message is awaited in vain: of a camera's calibration one is enough for good."""
    if wanted.is_optional and not camera.awaits_depth_info():
        return False
    return camera.num_received(wanted) == (0 if wanted.is_info else before.messages.get(wanted, 0))


def explain_topic(
    wanted: InputTopic, qos: QosProfile, endpoints: Sequence[Endpoint], *, was_heard: bool = False
) -> str:
    """One sentence: what is expected, what is there instead, what to do; a topic that was heard has the right name."""
    expected = f"no {wanted.label} on {wanted.topic} ({wanted.type_name})"
    here = [endpoint for endpoint in endpoints if endpoint.topic == wanted.topic]
    if not here and was_heard:
        return f"{expected}: nobody publishes it any more: start the camera again."
    if not here:
        return f"{expected}: {_without_publisher(wanted, endpoints)}"
    fitting = [endpoint for endpoint in here if endpoint.type_name == wanted.type_name]
    if not fitting:
        return f"{expected}: it is published as {here[0].type_name}, {_other_type(wanted, here[0].type_name)}."
    deaf = [e.qos for e in fitting if e.qos is not None and not e.qos.is_heard_by(qos)]
    if len(deaf) == len(fitting):
        return (
            f"{expected}: its publisher is {deaf[0]} and the node asks for {qos}, which never connects: "
            "set node.qos to sensor_data or auto."
        )
    return f"{expected}: there is a publisher, but it sends nothing: start the camera, or let its simulation run."


def _without_publisher(wanted: InputTopic, endpoints: Sequence[Endpoint]) -> str:
    elsewhere = _other_transport(wanted, endpoints)
    if elsewhere:
        return f"nobody publishes it, only {elsewhere}."
    others = sorted({endpoint.topic for endpoint in endpoints if endpoint.type_name == wanted.type_name})
    parameter = _PARAMETERS[wanted.role, wanted.is_info]
    if others:
        named = similar_topics(wanted.topic, others)
        rest = f" and {len(others) - len(named)} more" if len(others) > len(named) else ""
        remedy = f"-r {wanted.name}:={named[0]}, or node.{parameter}"
        return f"nobody publishes it; of this type there are {', '.join(named)}{rest}: remap it with {remedy}."
    if wanted.type_name == CAMERA_INFO:
        return "nobody publishes any: let the driver publish it, or set node.calibration."
    other_images = sorted({e.topic for e in endpoints if e.type_name in (IMAGE, COMPRESSED_IMAGE)})
    if other_images:
        kind = "compressed" if wanted.type_name == IMAGE else "raw"
        there = ", ".join(similar_topics(wanted.topic, other_images))
        return f"of this type there is nothing, only {there}, {kind}: set {_transport(wanted)} to {kind}, and remap it."
    if not endpoints:
        return (
            "no node of any kind can be seen: start the camera, with the same ROS_DOMAIN_ID and on a network that "
            "CYCLONEDDS_URI reaches."
        )
    return "nobody publishes images of any kind: start the camera."


def _other_transport(wanted: InputTopic, endpoints: Sequence[Endpoint]) -> str:
    """Where the same images are: below the raw topic that nobody publishes, or above the compressed one."""
    for endpoint in endpoints:
        kinds, parent = (wanted.type_name, endpoint.type_name), endpoint.topic.rpartition("/")[0]
        if kinds == (IMAGE, COMPRESSED_IMAGE) and parent == wanted.topic:
            return f"{endpoint.topic} below it: set {_transport(wanted)} to compressed"
        if kinds == (COMPRESSED_IMAGE, IMAGE) and endpoint.topic == wanted.topic.rpartition("/")[0]:
            return f"{endpoint.topic} above it, which is raw: set {_transport(wanted)} to raw"
    return ""


def _other_type(wanted: InputTopic, type_name: str) -> str:
    if type_name == COMPRESSED_IMAGE:
        return f"name the topic above it and set {_transport(wanted)} to compressed"
    return f"name another topic with node.{_PARAMETERS[wanted.role, wanted.is_info]}"


def _transport(wanted: InputTopic) -> str:
    return f"node.{'depth' if wanted.role is Role.DEPTH else 'image'}_transport"


def _explain_drops(counts: FrameCounts, before: FrameCounts, second: Role | None) -> str:
    came = f"{counts.received - before.received} images came"
    new = {reason: counts.dropped.get(reason, 0) - before.dropped.get(reason, 0) for reason in _REASONS}
    worst = max(_REASONS, key=lambda reason: new[reason])
    if not new[worst]:
        return f"{came} and none is processed yet: the front-end may still be at the first one."
    parameter = "node.stereo_max_skew_ms" if second is Role.RIGHT else "node.depth_max_skew_ms"
    reason = _REASONS[worst].format(second="" if second is None else second.value, parameter=parameter)
    since = "since the last one that could be used" if before.processed else "and none could be used"
    return f"{came} {since}: {reason}."
