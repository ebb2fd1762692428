"""What the launch files have in common: arguments of the same name mean the same in each of them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_package_share_directory
from launch import LaunchContext
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration

from feature_matcher_ros.errors import ConfigError
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


def number(given: Mapping[str, str], name: str) -> float:
    """The value of an argument that is a number above zero.

    Raises:
        ConfigError: it is none.
    """
    try:
        value = float(given[name])
    except ValueError:
        value = 0.0
    if not value > 0.0:
        raise ConfigError(f"{name}:={given[name]} is no number above zero: write for example {name}:=2.0.")
    return value


def remapping_rules(given: Mapping[str, str]) -> list[tuple[str, str]]:
    """The rules of ``remaps``.

    Raises:
        ConfigError: one has not the form of a rule.
    """
    rules = [rule.partition(":=") for rule in shlex.split(given["remaps"])]
    if not all(source and target for source, _, target in rules):
        raise ConfigError(f"remaps:='{given['remaps']}' holds what has not the form FROM:=TO.")
    return [(source, target) for source, _, target in rules]


def require_rviz(given: Mapping[str, str]) -> None:
    """Look for RViz where it is asked for: found missing later, launch would end and leave the node behind.

    Raises:
        ConfigError: it is not installed.
    """
    if given["rviz"] == "true":
        try:
            get_package_prefix("rviz2")
        except PackageNotFoundError as error:
            raise ConfigError("rviz2 is not installed: install it, or say rviz:=false.") from error
