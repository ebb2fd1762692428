"""Looking for the camera in the ROS graph before the node is started; for launch files."""

from __future__ import annotations

import time

from feature_matcher_ros.errors import SourceError
from feature_matcher_ros.ros.rclpy_graph import RclpyGraph, brief_graph
from feature_matcher_ros.ros.topic_search import FoundTopics, search_topics

_SETTLED_S = 1.0  # what is found must be the only candidate for so long, for others may be slower to appear
_POLL_S = 0.1


def find_topics(modality: str, timeout_s: float) -> FoundTopics:
    """Wait for the one camera of the graph.

    Raises:
        SourceError: after ``timeout_s`` there is none, or more than one.
    """
    with brief_graph("camera_search") as graph:
        return _wait(graph, modality, time.monotonic() + timeout_s)


def _wait(graph: RclpyGraph, modality: str, deadline_s: float) -> FoundTopics:
    found: FoundTopics | None = None
    since_s = 0.0
    while True:
        now_s = time.monotonic()
        try:
            candidate = search_topics(graph.publishers(), modality)
        except SourceError:
            if now_s >= deadline_s:
                raise
            candidate = None
        if candidate != found:
            found, since_s = candidate, now_s
        if found is not None and (now_s - since_s >= _SETTLED_S or now_s >= deadline_s):
            return found
        time.sleep(_POLL_S)
