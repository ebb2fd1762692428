"""The live node without its middleware: subscribe → latest slot → one worker → publish.

Two threads of its own: the worker, which owns the front-end, and the watch, which publishes diagnostics
once a second and says what is missing. The callbacks of the middleware only hand over.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import cv2
import numpy as np

from feature_matcher_ros.config import iterate_parameters
from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.front_end import FrontEnd
from feature_matcher_ros.matchers import create_matcher, follow_config
from feature_matcher_ros.matchers.matcher import Matcher
from feature_matcher_ros.node_config import LiveConfig
from feature_matcher_ros.ros.camera_input import CameraInput
from feature_matcher_ros.ros.graph import RELIABLE, Graph, Publisher
from feature_matcher_ros.ros.input_topics import camera_namespaces
from feature_matcher_ros.ros.live_camera import LiveCamera
from feature_matcher_ros.ros.node_diagnostics import CameraDiagnostics, diagnostics_array
from feature_matcher_ros.ros.run_time_parameters import fixed_changes
from feature_matcher_ros.ros.silence import Silence
from feature_matcher_ros.ros.start_progress import StartProgress
from feature_matcher_ros.ros.synchronizer import Bundle
from feature_matcher_ros.ros.topics import DIAGNOSTICS
from feature_matcher_ros.ros.turned_matcher import TurnedMatcher

_PERIOD_S = 1.0
_LOG = logging.getLogger(__name__)


class Server:
    """One node; its four methods are those of a lifecycle node, in that order and back."""

    def __init__(self, graph: Graph, config: LiveConfig) -> None:
        self._graph, self._config = graph, config
        self._changed = threading.Condition()  # images or calibration came, or the node stops
        self._cameras: list[LiveCamera] = []
        self._watched: list[CameraDiagnostics] = []
        self._matcher: Matcher | None = None
        self._diagnostics: Publisher | None = None
        self._worker: threading.Thread | None = None
        self._watcher: threading.Thread | None = None
        self._stop = threading.Event()

    @property
    def cameras(self) -> tuple[LiveCamera, ...]:
        return tuple(self._cameras)

    @property
    def input_topics(self) -> tuple[str, ...]:
        """What is listened to beside CameraInfo."""
        return tuple(wanted.topic for camera in self._cameras for wanted in camera.input.wanted if not wanted.is_info)

    def configure(self) -> None:
        """Load the networks, after building the engines that are wanted and missing; announce what will be published.

        Raises:
            FeatureMatcherError: a parameter, the calibration, the mask or a network cannot be used.
        """
        node = self._config.node
        self._diagnostics = self._graph.advertise(DIAGNOSTICS.name, DIAGNOSTICS.type_name, RELIABLE)
        with StartProgress(self._graph, self._diagnostics) as progress:
            # First, as errors here are found at once, and engines may take minutes.
            names = camera_namespaces(node.namespaces)
            sources = [CameraInput(self._graph, node, name, self._changed) for name in names]
            _build_engines(self._config, progress)
            self._matcher = matcher = create_matcher(self._config)
            follow_config(matcher, self._config.matcher)  # what was set while the networks were opened
            progress.begin("matches an image with itself, which takes longest the first time")
            _warm_up(matcher)
            if node.mount_rotation_deg:
                matcher = TurnedMatcher(matcher, node.mount_rotation_deg)
            for source in sources:
                self._cameras.append(LiveCamera(self._graph, node, source, FrontEnd(self._config, matcher)))
        matching = {"matcher": matcher.name, **progress.networks}
        self._watched = [CameraDiagnostics(camera, matching) for camera in self._cameras]

    def activate(self) -> None:
        """Listen and work; waits for a frame that was still being processed at the last ``deactivate``.

        If the middleware refuses a topic, nothing is listened to and the next call may succeed.
        """
        for thread in (self._watcher, self._worker):
            if thread is not None:
                thread.join()
        self._stop.clear()
        self._open_cameras()
        # Daemons: an extension module may be at a frame for longer than anybody waits for the process to end.
        self._worker = threading.Thread(target=self._work, name="worker", daemon=True)
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._worker.start()
        self._watcher.start()

    def deactivate(self, timeout_s: float = 1.0) -> bool:
        """Stop listening and working; False if the worker is still at a frame after ``timeout_s``."""
        deadline_s = time.monotonic() + timeout_s
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        _join(self._watcher, deadline_s)  # first, for it opens subscriptions
        for camera in self._cameras:
            camera.input.close()
        _join(self._worker, deadline_s)
        return not any(thread is not None and thread.is_alive() for thread in (self._watcher, self._worker))

    def cleanup(self) -> None:
        """Let go of networks and publishers."""
        for camera in self._cameras:
            camera.outputs.close()
        if self._diagnostics is not None:
            self._diagnostics.close()
        self._cameras, self._watched, self._diagnostics, self._matcher = [], [], None, None

    def follow(self, config: LiveConfig) -> None:
        """Take other parameters while frames are processed, those that ``run_time_parameters`` calls safe.

        Raises:
            ConfigError: others differ as well; nothing changes.
            MatcherError: the parameters do not fit the network; nothing changes.
        """
        fixed = fixed_changes(self._config, config)
        if fixed:
            raise ConfigError(f"{', '.join(fixed)} cannot change while the node is configured: clean it up before.")
        if self._matcher is not None:
            follow_config(self._matcher, config.matcher)
        for camera in self._cameras:
            camera.front_end.follow(config)
        self._config = config

    def report(self) -> dict[str, Any]:
        """What the node has to say about itself, in plain types: its parameters, and the state of every camera."""
        cameras = {camera.camera.namespace or "camera": camera.values(self._graph) for camera in self._watched}
        parameters = {entry.path: entry.default for entry in iterate_parameters(self._config)}
        return {"node": self._graph.node_name, "cameras": cameras, "parameters": parameters}

    def reset(self) -> None:
        """Forget keyframes and tracks of all cameras before their next frames."""
        for camera in self._cameras:
            camera.request_reset()

    def _open_cameras(self) -> None:
        try:
            for camera in self._cameras:
                camera.request_reset()
                camera.input.open()
        except Exception:
            for camera in self._cameras:
                camera.input.close()
            raise

    def _work(self) -> None:
        while not self._stop.is_set():
            with self._changed:
                ready = self._take()
                if ready is None:
                    self._changed.wait(_PERIOD_S)
                    continue
            camera, bundle = ready
            camera.process(bundle)

    def _take(self) -> tuple[LiveCamera, Bundle] | None:
        """The next frame of any camera; the camera that was served last comes last."""
        for camera in self._cameras:
            bundle = camera.input.take()
            if bundle is not None:
                self._cameras = [*(other for other in self._cameras if other is not camera), camera]
                return camera, bundle
        return None

    def _watch(self) -> None:
        timeout_s = self._config.node.startup_timeout_s
        silences = {watched: Silence(watched.camera, timeout_s) for watched in self._watched}
        while not self._stop.wait(_PERIOD_S):
            self._look_after(silences)

    def _look_after(self, silences: dict[CameraDiagnostics, Silence]) -> None:
        try:
            self._publish_diagnostics()
            for watched, silence in silences.items():
                watched.camera.input.follow_publishers()
                silence.follow(is_paused=self._graph.is_time_paused())
                watched.missing = silence.explain(self._graph)
        except Exception:  # one bad look must not be the last
            _LOG.exception("the node could not look after itself")

    def _publish_diagnostics(self) -> None:
        for watched in self._watched:
            watched.follow()
        if self._diagnostics is not None and self._diagnostics.has_subscribers():
            self._diagnostics.publish(diagnostics_array(self._graph, self._watched))


def _build_engines(config: LiveConfig, progress: StartProgress) -> None:
    """Where onnx is missing nothing can be built; what is opened then says which command to run where it is."""
    if "tensorrt" not in (config.matcher.runtime, config.extractor.runtime):
        return
    try:
        from feature_matcher_ros.export.missing_engines import build_missing_engines
    except ModuleNotFoundError:
        return
    build_missing_engines(config, on_progress=progress.on_engine)


def _warm_up(matcher: Matcher) -> None:
    """Match an image with itself: a network takes longer the first time, and says now if it cannot be run at all."""
    noise = np.random.default_rng(0).integers(0, 256, (480, 640), np.uint8)
    features = matcher.extract(np.asarray(cv2.GaussianBlur(noise, (0, 0), 2.0), np.uint8))
    matcher.match(features, features)


def _join(thread: threading.Thread | None, deadline_s: float) -> None:
    if thread is not None:
        thread.join(max(0.0, deadline_s - time.monotonic()))
