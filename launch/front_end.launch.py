"""The front-end on live cameras, with RViz if asked for; `ros2 launch feature_matcher_ros front_end.launch.py -s`."""

import shlex

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node

from feature_matcher_ros.errors import FeatureMatcherError
from feature_matcher_ros.ros.rclpy_launch import (
    CONFIG,
    EVERY_FRAME,
    LOG_LEVEL,
    NAMESPACE,
    PACKAGE,
    SHARE,
    choice,
    given_values,
    refuse,
    switch,
)
from feature_matcher_ros.ros.rclpy_search import find_topics

AUTO = "auto"
# Topics that the RViz configuration shows, by their names below the node.
SHOWN = ("odometry", "path", "markers", "matches_image", "correspondences")

ARGUMENTS = [
    choice("sensor", "What the camera gives.", ["mono", "stereo", "rgbd"]),
    DeclareLaunchArgument(
        "image",
        default_value=AUTO,
        description="Topic of the images, of the left camera with stereo; auto takes the only camera there is.",
    ),
    DeclareLaunchArgument(
        "second",
        default_value=AUTO,
        description="Topic of the right images with stereo, of depth with rgbd; auto finds it together with image.",
    ),
    choice("transport", "What to listen to where topics are named; auto finds out by itself.", ["raw", "compressed"]),
    choice("depth_transport", "Likewise for depth; compressed is compressedDepth.", ["raw", "compressed"]),
    DeclareLaunchArgument(
        "search_timeout_s", default_value="10.0", description="How long auto waits for a camera, in seconds."
    ),
    CONFIG,
    DeclareLaunchArgument(
        "calibration", default_value="", description="YAML calibration, instead of CameraInfo; empty: CameraInfo."
    ),
    NAMESPACE,
    DeclareLaunchArgument("name", default_value="feature_matcher", description="Name of the node."),
    DeclareLaunchArgument(
        "remaps", default_value="", description="Further remapping rules, FROM:=TO, separated by spaces."
    ),
    EVERY_FRAME,
    switch("use_sim_time", "Follow /clock, of a simulation or of a bag that is played."),
    switch(
        "autostart", "Configure and activate the node at once; false leaves that to a lifecycle manager.", is_on=True
    ),
    switch("rviz", "Open RViz with what the node publishes."),
    LOG_LEVEL,
]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    given = given_values(context, ARGUMENTS)
    try:
        topics = _topics(given)
    except FeatureMatcherError as error:
        sentence = f"the camera cannot be chosen: {error} (image:=TOPIC, second:=TOPIC)"
        return refuse(sentence, "there is not exactly one camera")
    node = Node(
        package=PACKAGE,
        executable="front_end_node",
        name=given["name"],
        namespace=given["namespace"],
        output="screen",
        parameters=[given["config"], _parameters(given) | topics],
        remappings=[tuple(rule.split(":=", 1)) for rule in shlex.split(given["remaps"])],
        ros_arguments=["--log-level", given["log_level"]],
    )
    return [node, *_rviz(given)]


def _topics(given: dict[str, str]) -> dict[str, str]:
    """The parameters that name the topics of the camera."""
    sensor = given["sensor"]
    if given["image"] == AUTO:
        return find_topics(sensor, float(given["search_timeout_s"])).parameters(sensor)
    named = {"node.image_topic": given["image"], "node.image_transport": given["transport"]}
    second = {"stereo": "node.right_image_topic", "rgbd": "node.depth_topic"}.get(sensor)
    if second is not None and given["second"] != AUTO:
        named[second] = given["second"]
    if sensor == "rgbd":
        named["node.depth_transport"] = given["depth_transport"]
    return named


def _parameters(given: dict[str, str]) -> dict[str, object]:
    parameters: dict[str, object] = {
        "node.modality": given["sensor"],
        "node.process_every_frame": given["process_every_frame"] == "true",
        "use_sim_time": given["use_sim_time"] == "true",
        "autostart": given["autostart"] == "true",
    }
    return parameters | ({"node.calibration": given["calibration"]} if given["calibration"] else {})


def _rviz(given: dict[str, str]) -> list[LaunchDescriptionEntity]:
    if given["rviz"] != "true":
        return []
    prefix = "/".join(filter(None, ("", given["namespace"].strip("/"), given["name"])))
    return [
        Node(
            package="rviz2",
            executable="rviz2",
            arguments=["-d", str(SHARE / "config" / "front_end.rviz")],
            remappings=[(f"/feature_matcher/{topic}", f"{prefix}/{topic}") for topic in SHOWN],
            parameters=[{"use_sim_time": given["use_sim_time"] == "true"}],
        )
    ]
