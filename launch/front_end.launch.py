"""The front-end on live cameras, with RViz if asked for; `ros2 launch feature_matcher_ros front_end.launch.py -s`."""

from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction
from launch_ros.actions import Node

from feature_matcher_ros.errors import SourceError
from feature_matcher_ros.node_config import load_live_config
from feature_matcher_ros.ros.launch_parameters import AUTO, IN_FILE, launch_parameters
from feature_matcher_ros.ros.rclpy_launch import (
    CONFIG,
    EVERY_FRAME,
    LOG_LEVEL,
    NAMESPACE,
    PACKAGE,
    SHARE,
    UNSCALED,
    choice,
    given_values,
    number,
    remapping_rules,
    require_rviz,
    switch,
    switch_in_file,
)
from feature_matcher_ros.ros.rclpy_search import find_topics
from feature_matcher_ros.ros.rviz_view import rviz_view

SENSORS = ["mono", "stereo", "rgbd"]
TRANSPORTS = [IN_FILE, "raw", "compressed"]

ARGUMENTS = [
    choice("sensor", "What the camera gives; config takes what the parameter file says.", [IN_FILE, *SENSORS]),
    DeclareLaunchArgument(
        "image",
        default_value=AUTO,
        description="Topic of the images, of the left camera with stereo; auto takes what the parameter file "
        "names, or else the only camera there is.",
    ),
    DeclareLaunchArgument(
        "second",
        default_value=AUTO,
        description="Topic of the right images with stereo, of depth with rgbd; auto finds it together with image.",
    ),
    choice("transport", "What to listen to where topics are named; auto finds out by itself.", TRANSPORTS),
    choice("depth_transport", "Likewise for depth; compressed is compressedDepth.", TRANSPORTS),
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
    switch_in_file("use_sim_time", "Follow /clock, of a simulation or of a bag that is played."),
    switch_in_file("autostart", "Configure and activate the node at once; false leaves that to a lifecycle manager."),
    UNSCALED,
    switch("rviz", "Open RViz with what the node publishes."),
    LOG_LEVEL,
]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """What is wrong is said before anything is started, for launch would leave that behind."""
    given = given_values(context, ARGUMENTS)
    require_rviz(given)
    rules, timeout_s = remapping_rules(given), number(given, "search_timeout_s")
    node_name = "/" + "/".join(filter(None, (given["namespace"].strip("/"), given["name"])))
    in_file = load_live_config(Path(given["config"]), node_name)
    try:
        parameters = launch_parameters(given, in_file, lambda sensor: find_topics(sensor, timeout_s))
    except SourceError as error:
        raise SourceError(f"the camera cannot be chosen: {error} (image:=TOPIC, second:=TOPIC)") from error
    node = Node(
        package=PACKAGE,
        executable="front_end_node",
        name=given["name"],
        namespace=given["namespace"],
        output="screen",
        parameters=[given["config"], *([parameters] if parameters else [])],
        remappings=rules,
        ros_arguments=["--log-level", given["log_level"]],
    )
    if given["rviz"] != "true":
        return [node]
    view = rviz_view(node_name, in_file | parameters)
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(SHARE / "config" / "front_end.rviz"), "-f", view.fixed_frame],
        remappings=view.remappings,
        parameters=[{"use_sim_time": parameters.get("use_sim_time", in_file.get("use_sim_time", False))}],
    )
    return [*([LogInfo(msg=view.note)] if view.note else []), node, rviz]
