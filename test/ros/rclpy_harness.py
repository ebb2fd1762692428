"""What the live tests need of rclpy inside the test's own process; to be imported where ROS 2 is sourced."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosidl_runtime_py.utilities import get_message

from feature_matcher_ros.ros.graph import QosProfile
from feature_matcher_ros.ros.rclpy_endpoints import rclpy_qos
from feature_matcher_ros.ros.rclpy_graph import RclpyGraph


@contextmanager
def spun_node(name: str, *, use_sim_time: bool = False) -> Iterator[Node]:
    """A node whose callbacks are served by threads of their own."""
    context = Context()
    rclpy.init(context=context)
    overrides = [Parameter("use_sim_time", value=use_sim_time)]
    node = Node(name, context=context, parameter_overrides=overrides)
    executor = MultiThreadedExecutor(4, context=context)
    executor.add_node(node)
    spinning = threading.Thread(target=executor.spin)
    spinning.start()
    try:
        yield node
    finally:
        executor.shutdown()
        spinning.join()
        node.destroy_node()
        rclpy.shutdown(context=context)


@contextmanager
def rclpy_graph(name: str, *, use_sim_time: bool = False) -> Iterator[RclpyGraph]:
    with spun_node(name, use_sim_time=use_sim_time) as node:
        yield RclpyGraph(node)


@contextmanager
def raw_publisher(topic: str, type_name: str, qos: QosProfile) -> Iterator[Any]:
    """A publisher of rclpy, which sends whatever bytes it is given."""
    with spun_node("raw") as node:
        yield node.create_publisher(get_message(type_name), topic, rclpy_qos(qos))
