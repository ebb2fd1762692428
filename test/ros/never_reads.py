"""A consumer that asks for every message and reads none but the first. ``python never_reads.py TOPIC TYPE...``"""

import sys
import threading
from typing import Any

from feature_matcher_ros.ros import dds_endpoints
from feature_matcher_ros.ros.dds_graph import DdsGraph
from feature_matcher_ros.ros.graph import QosProfile
from feature_matcher_ros.ros.names import NodeName


def stall(_: Any) -> None:
    sys.stdout.write("asleep\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    dds_endpoints._MAX_KEPT = 4  # so that it is full soon
    graph = DdsGraph(NodeName("sleeper"))
    for topic, type_name in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        graph.subscribe(topic, type_name, QosProfile(is_reliable=True, depth=0), stall, lambda _: None)
    threading.Event().wait()
