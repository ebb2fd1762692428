"""A bag played to the front-end, with RViz; `ros2 launch feature_matcher_ros replay.launch.py -s` lists arguments."""

from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource

from feature_matcher_ros.evaluation.bag import camera_topics
from feature_matcher_ros.evaluation.sequences import Modality, Selection
from feature_matcher_ros.ros.launch_parameters import IN_FILE
from feature_matcher_ros.ros.rclpy_launch import (
    CONFIG,
    EVERY_FRAME,
    LOG_LEVEL,
    NAMESPACE,
    SHARE,
    UNSCALED,
    choice,
    given_values,
    number,
    require_rviz,
    switch,
)

SENSORS = {"auto": None, "mono": Modality.MONO, "stereo": Modality.STEREO, "rgbd": Modality.RGBD}
DELAY_S = 4.0  # before the bag begins, for the node to load its networks and for both to find each other
LAST_FRAMES_S = 2.0  # that it is given when the bag has ended

ARGUMENTS = [
    DeclareLaunchArgument("bag", description="Folder or file of the ROS 2 bag."),
    choice("sensor", "What to take of the bag; auto takes the richest that it offers.", list(SENSORS)),
    DeclareLaunchArgument("image", default_value="", description="Topic of the images, where the bag holds several."),
    DeclareLaunchArgument("second", default_value="", description="Topic of the right images or of depth, likewise."),
    DeclareLaunchArgument("rate", default_value="1.0", description="How many times as fast as recorded to play."),
    switch("loop", "Begin again when the bag has ended."),
    EVERY_FRAME,
    CONFIG,
    NAMESPACE,
    UNSCALED,
    switch(
        "rviz",
        "Open RViz with what the node publishes, which then includes what has no length unless publish_unscaled is "
        "given; without RViz everything ends with the bag.",
        is_on=True,
    ),
    LOG_LEVEL,
]
PASSED_ON = ("process_every_frame", "config", "namespace", "publish_unscaled", "rviz", "log_level")


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    given = given_values(context, ARGUMENTS)
    require_rviz(given)
    number(given, "rate")
    arguments = {name: given[name] for name in PASSED_ON} | _topics(given) | {"use_sim_time": "true"}
    if given["rviz"] == "true" and given["publish_unscaled"] == IN_FILE:
        arguments["publish_unscaled"] = "true"  # nobody but RViz listens to a bag's odometry
    player = _player(given)
    actions: list[LaunchDescriptionEntity] = [
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(SHARE / "launch" / "front_end.launch.py")),
            launch_arguments=list(arguments.items()),
        ),
        player,
    ]
    if given["rviz"] != "true":
        end = TimerAction(period=LAST_FRAMES_S, actions=[Shutdown(reason="the bag has ended")])
        actions.append(RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[end])))
    return actions


def _topics(given: dict[str, str]) -> dict[str, str]:
    """The launch arguments that name the topics of the bag's camera."""
    sensor = SENSORS[given["sensor"]]
    second = given["second"] or None
    selection = Selection(
        modality=sensor,
        image_topic=given["image"] or None,
        right_topic=second if sensor is Modality.STEREO else None,
        depth_topic=second if sensor is Modality.RGBD else None,
    )
    chosen = camera_topics(Path(given["bag"]), selection)
    partner = chosen.right or chosen.depth
    transports = [
        "raw" if topic is None or topic.topic == topic.name else "compressed" for topic in (chosen.image, chosen.depth)
    ]
    return {
        "sensor": chosen.modality.value.lower(),
        "image": chosen.image.name,
        "second": "auto" if partner is None else partner.name,
        "transport": transports[0],
        "depth_transport": transports[1],
    }


def _player(given: dict[str, str]) -> ExecuteProcess:
    command = ["ros2", "bag", "play", given["bag"], "--clock", "200", "--rate", given["rate"], "--delay", str(DELAY_S)]
    return ExecuteProcess(cmd=[*command, *(["--loop"] if given["loop"] == "true" else [])], output="screen")
