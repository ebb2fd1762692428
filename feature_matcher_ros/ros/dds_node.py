"""The live node in a process without ROS: topics only, no services for parameters or lifecycle."""

from __future__ import annotations

import logging
import os
import sys

from feature_matcher_ros.ros.dds_graph import DdsGraph
from feature_matcher_ros.ros.node_options import NodeOptions
from feature_matcher_ros.ros.server import Server
from feature_matcher_ros.ros.stop_signals import LAST_FRAME_S, ignore_signals, stop_on_signals

_LOG = logging.getLogger(__name__)


def run_node(options: NodeOptions) -> None:
    """Run until SIGINT or SIGTERM. A frame that is still being processed then is not waited for.

    Raises:
        FeatureMatcherError: the node cannot start.
    """
    logging.getLogger("feature_matcher_ros").setLevel(options.log_level)
    stop = stop_on_signals()
    graph = DdsGraph(options.node, use_sim_time=options.use_sim_time)
    server = Server(graph, options.config)
    server.configure()
    server.activate()
    _LOG.info("%s listens to %s", graph.node_name, ", ".join(server.input_topics))
    stop.wait()
    is_idle = server.deactivate(LAST_FRAME_S)
    if not is_idle:
        # An extension module that is still computing would crash while Python is torn down around it.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)
    server.cleanup()
    graph.close()
    ignore_signals()
