"""The commands about live cameras: ``feature-matcher live`` and ``feature-matcher doctor``."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feature_matcher_ros.cli_console import console, print_table
from feature_matcher_ros.cli_options import ConfigOption, SetOption, values_of
from feature_matcher_ros.errors import RuntimeLoadError
from feature_matcher_ros.parameter_file import NODE_NAME

if TYPE_CHECKING:
    from feature_matcher_ros.ros.doctor import Examination
    from feature_matcher_ros.ros.graph import Graph
    from feature_matcher_ros.ros.node_options import NodeOptions

# Unknown arguments are left to the parser of ROS arguments, which says what is wrong with them.
CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True}


def live(context: typer.Context, config: ConfigOption = None, settings: SetOption = None) -> None:
    """Run the front-end on live cameras of a ROS 2 graph.

    It runs without ROS, and therefore has topics only, no parameter or lifecycle services.

    It takes the arguments of any node: --ros-args -r image:=/camera/image_raw -p node.qos:=reliable --params-file FILE.
    """
    from feature_matcher_ros.ros.node_options import node_options

    options = node_options(context.args, config=config, settings=values_of(settings))
    try:
        from feature_matcher_ros.ros.dds_node import run_node
    except ImportError as error:
        raise _no_dds(error) from error

    run_node(options)


def doctor(
    context: typer.Context,
    bag: Annotated[Path | None, typer.Option(help="Look into a bag instead of the live graph.")] = None,
    seconds: Annotated[float, typer.Option(help="How long to listen to the live graph.")] = 3.0,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Say what is installed, and which inputs the node would find.

    It looks at the live graph, or into a bag, and takes the arguments of live.

    Where ROS 2 is sourced, this is the graph that its nodes see, over their middleware. In a bag, the cameras are
    those that replay finds, unless parameters or remappings name them.
    """
    from feature_matcher_ros.ros.doctor import HEADER, environment_rows

    print_table(["", ""], environment_rows(), title="environment")
    examination = _examine(context.args, bag, seconds, config, settings)
    print_table(list(HEADER), examination.rows, title="live graph" if bag is None else str(bag))
    for note in examination.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    for problem in examination.problems:
        console.print(problem, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if examination.problems:
        raise typer.Exit(1)
    console.print("all inputs are there")


def front_end_node() -> None:
    """Run the node of rclpy, ``ros2 run feature_matcher_ros front_end_node``; exits with 1 where there is no ROS 2."""
    from feature_matcher_ros.ros.stop_signals import stop_on_signals

    stop = stop_on_signals()  # before imports that take seconds
    try:
        from feature_matcher_ros.ros.rclpy_node import main
    except ImportError as error:
        sys.stderr.write(
            f"front_end_node: the node needs ROS 2 ({error}): source an installation whose Python is "
            f"{sys.version_info.major}.{sys.version_info.minor}, or run feature-matcher live, which needs none.\n"
        )
        sys.exit(1)
    main(stop)


def _examine(
    arguments: list[str], bag: Path | None, seconds: float, config: Path | None, settings: list[str] | None
) -> Examination:
    from feature_matcher_ros.ros.doctor import examine_bag, examine_graph
    from feature_matcher_ros.ros.node_options import node_options

    options = node_options(arguments, config=config, settings=values_of(settings))
    if bag is not None:
        return examine_bag(bag, options.node, options.config.node)
    with _graph(options, arguments) as graph:
        return examine_graph(graph, options.config.node, seconds)


def _graph(options: NodeOptions, arguments: list[str]) -> AbstractContextManager[Graph]:
    """The graph of ROS 2 where it is sourced, otherwise one without ROS."""
    try:
        from feature_matcher_ros.ros.rclpy_graph import brief_graph
    except ImportError:
        try:
            from feature_matcher_ros.ros.dds_graph import DdsGraph
        except ImportError as error:
            raise _no_dds(error) from error
        return DdsGraph(options.node, use_sim_time=options.use_sim_time)
    return brief_graph(NODE_NAME, arguments)


def _no_dds(error: ImportError) -> RuntimeLoadError:
    return RuntimeLoadError(
        f"live topics without ROS need cyclonedds ({error}): run pip install 'feature_matcher_ros[dds]', which has "
        "wheels for Python 3.10 to 3.13 on x86-64."
    )
