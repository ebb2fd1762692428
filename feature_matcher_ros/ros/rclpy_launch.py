"""What the launch files have in common: arguments of the same name mean the same in each of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, LogInfo, Shutdown
from launch.substitutions import LaunchConfiguration

from feature_matcher_ros.ros.launch_parameters import IN_FILE

PACKAGE = "feature_matcher_ros"
SHARE = Path(get_package_share_directory(PACKAGE))


def choice(name: str, description: str, values: Sequence[str]) -> DeclareLaunchArgument:
    """An argument of a few values, the first of which is the default."""
    return DeclareLaunchArgument(name, default_value=values[0], choices=list(values), description=description)


def switch(name: str, description: str, *, is_on: bool = False) -> DeclareLaunchArgument:
    """An argument that is true or false."""
    return choice(name, description, ["true", "false"] if is_on else ["false", "true"])


def switch_in_file(name: str, description: str) -> DeclareLaunchArgument:
    """An argument that is true or false, and else what the file of the parameters says."""
    return choice(name, description, [IN_FILE, "true", "false"])


CONFIG = DeclareLaunchArgument(
    "config", default_value=str(SHARE / "config" / "front_end.yaml"), description="YAML file of the parameters."
)
NAMESPACE = DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node.")
EVERY_FRAME = switch_in_file("process_every_frame", "Process all images, however late, not only the newest; for bags.")
UNSCALED = switch_in_file(
    "publish_unscaled", "Publish odometry, path and markers also where no length is known, as with one camera alone."
)
LOG_LEVEL = choice("log_level", "What the node logs.", ["info", "debug", "warn", "error", "fatal"])


def given_values(context: LaunchContext, arguments: Sequence[DeclareLaunchArgument]) -> dict[str, str]:
    """What each argument is, by name."""
    return {entry.name: LaunchConfiguration(entry.name).perform(context) for entry in arguments}


def refuse(sentence: str, reason: str) -> list[LaunchDescriptionEntity]:
    """Say what is wrong, and end the launch."""
    return [LogInfo(msg=sentence), Shutdown(reason=reason)]
