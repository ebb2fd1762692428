"""For how long a camera has given no frame, whether that is to be explained, and the explanation."""

from __future__ import annotations

import logging
import time

from feature_matcher_ros.ros.graph import Graph
from feature_matcher_ros.ros.live_camera import LiveCamera
from feature_matcher_ros.ros.startup_check import explain_silence

_STUCK_S = 30.0  # that the front-end may take for a frame before it is asked what it does
_LOG = logging.getLogger(__name__)


class Silence:
    """Follows whether frames of a camera are processed."""

    def __init__(self, camera: LiveCamera, timeout_s: float) -> None:
        self._camera, self._timeout_s = camera, timeout_s
        self._before = camera.input.arrivals()  # until a frame was last seen to be processed
        self._since_s = time.monotonic()
        self._is_long = self._is_news = False  # it is to be explained; it was not so before

    def follow(self, *, is_paused: bool) -> None:
        """Look at the counters."""
        now_s, arrivals = time.monotonic(), self._camera.input.arrivals()
        if arrivals.counts.processed != self._before.counts.processed:
            if self._is_long:
                _LOG.info("%sframes are processed again", self._camera.prefix)
            self._before, self._since_s, self._is_long = arrivals, now_s, False
        lasted_s = now_s - self._since_s
        is_at_work = self._camera.is_at_work and lasted_s < _STUCK_S
        is_due = lasted_s >= self._timeout_s and not is_at_work and not (is_paused and arrivals.counts.processed)
        self._is_news = is_due and not self._is_long
        self._is_long = self._is_long or is_due

    def explain(self, graph: Graph) -> str:
        """Why nothing is processed, "" if that has not lasted; what is news is logged as well."""
        if not self._is_long:
            return ""
        sentences = explain_silence(self._camera.input, graph.publishers(), self._before)
        for sentence in sentences if self._is_news else ():
            _LOG.warning("%s%s", self._camera.prefix, sentence)
        return " ".join(sentences)
