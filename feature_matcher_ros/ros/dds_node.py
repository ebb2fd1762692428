"""The live node in a process without ROS: topics only, no services for parameters or lifecycle."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

from feature_matcher_ros.ros.dds_graph import DdsGraph
from feature_matcher_ros.ros.node_options import NodeOptions
from feature_matcher_ros.ros.server import Server

_LAST_FRAME_S = 0.5  # that a frame is given to come to its end
_LOG = logging.getLogger(__name__)


def run_node(options: NodeOptions) -> None:
    """Run until SIGINT or SIGTERM. A frame that is still being processed then is not waited for.

    Raises:
        FeatureMatcherError: the node cannot start.
    """
    logging.getLogger("feature_matcher_ros").setLevel(options.log_level)
    stop = _stop_on_signals()
    graph = DdsGraph(options.node, use_sim_time=options.use_sim_time)
    server = Server(graph, options.config)
    server.configure()
    server.activate()
    _LOG.info("%s listens to %s", graph.node_name, ", ".join(_inputs(server)))
    while not stop.wait(1.0):
        pass
    is_idle = server.deactivate(_LAST_FRAME_S)
    if not is_idle:
        # An extension module that is still computing would crash while Python is torn down around it.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)
    server.cleanup()
    graph.close()


def _stop_on_signals() -> threading.Event:
    """Both signals ask to stop; ``ros2 launch`` and a terminal may send one twice."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _inputs(server: Server) -> list[str]:
    return [wanted.topic for camera in server.cameras for wanted in camera.input.wanted if not wanted.is_info]
