"""The live node in a process without ROS: topics only, no services for parameters or lifecycle."""

from __future__ import annotations

import logging
import os
import sys
import threading

from feature_matcher_ros.ros.dds_graph import DdsGraph
from feature_matcher_ros.ros.node_options import NodeOptions
from feature_matcher_ros.ros.server import Server
from feature_matcher_ros.ros.stop_signals import LAST_FRAME_S, StopRequest, ignore_signals, stop_on_signals

_LOG = logging.getLogger(__name__)


def run_node(options: NodeOptions) -> None:
    """Run until a signal says stop. A frame that is still being processed then is not waited for.

    Raises:
        FeatureMatcherError: the node cannot start.
    """
    logging.getLogger("feature_matcher_ros").setLevel(options.log_level)
    stop = stop_on_signals()
    graph = DdsGraph(options.node, use_sim_time=options.use_sim_time)
    server = Server(graph, options.config)
    starting = _Start(server, graph.node_name, stop)
    starting.start()
    stop.wait()
    starting.join(LAST_FRAME_S)
    if starting.is_alive() or not server.deactivate(LAST_FRAME_S):
        # An extension module that is still computing would crash while Python is torn down around it.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)
    server.cleanup()
    graph.close()
    ignore_signals()
    if starting.error is not None:
        raise starting.error


class _Start(threading.Thread):
    """Configures and activates, in a thread because engines may take minutes in which no signal would be heard."""

    def __init__(self, server: Server, node_name: str, stop: StopRequest) -> None:
        super().__init__(name="start", daemon=True)
        self._server, self._node_name, self._stop_process = server, node_name, stop
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._server.configure()
            self._server.activate()
            _LOG.info("%s listens to %s", self._node_name, ", ".join(self._server.input_topics))
        except Exception as error:  # it is raised where the process ends
            self.error = error
            self._stop_process.set()
