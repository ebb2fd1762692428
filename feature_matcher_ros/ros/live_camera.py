"""One live camera from its messages to what is published: the path of a frame through the node."""

from __future__ import annotations

import logging
import time

from feature_matcher_ros.datatypes import Frame, FrontEndResult
from feature_matcher_ros.errors import CalibrationError, FeatureMatcherError, FrameError, ImageError
from feature_matcher_ros.front_end import FrontEnd
from feature_matcher_ros.node_config import NodeConfig
from feature_matcher_ros.ros.camera_input import CameraInput
from feature_matcher_ros.ros.frame_builder import FrameBuilder
from feature_matcher_ros.ros.frame_ledger import DropReason
from feature_matcher_ros.ros.frame_statistics import FrameRecord, FrameStatistics
from feature_matcher_ros.ros.graph import Graph
from feature_matcher_ros.ros.outputs import Outputs
from feature_matcher_ros.ros.synchronizer import Bundle

_OTHER_CLOCK_MS = 3_600_000.0  # stamps an hour from the node's clock are of another clock
_MAX_SENTENCES = 100  # that are remembered so as not to be said again
_OTHER_CLOCK = (
    "the stamps of the images are of another clock than the node's, so their age cannot be limited: with a bag play it "
    "with --clock and set use_sim_time, with a camera set the clock of its computer."
)
_NO_CLOCK = (
    "nothing has come on /clock yet, so the age of the images cannot be limited: play the bag with --clock, start the "
    "simulation, or do without use_sim_time."
)
_LOG = logging.getLogger(__name__)


class LiveCamera:
    """Receives, processes and publishes one camera; all but ``process`` may be called from any thread."""

    def __init__(self, graph: Graph, config: NodeConfig, source: CameraInput, front_end: FrontEnd) -> None:
        self.namespace = source.namespace
        self.input = source
        self.outputs = Outputs(graph, config, source.namespace)
        self.statistics = FrameStatistics()
        self.has_other_clock = False  # whether stamps and the node's clock do not belong together
        self.front_end = front_end
        self._graph, self._config = graph, config
        self._builder = FrameBuilder(config, source.rig, source.second)
        self._size: tuple[int, ...] | None = None
        self._is_reset_due = False
        self._is_processing = False
        self._said: set[str] = set()

    def request_reset(self) -> None:
        """Forget keyframes and tracks before the next frame."""
        self._is_reset_due = True

    @property
    def is_at_work(self) -> bool:
        """Whether a frame is being processed, or waits for that."""
        return self._is_processing or self.input.has_frame()

    @property
    def prefix(self) -> str:
        """What stands before all that is logged of this camera."""
        return f"{self.namespace}: " if self.namespace else ""

    def process(self, bundle: Bundle) -> None:
        """Process and publish one frame, or count why not; for the worker alone."""
        ledger = self.input.ledger
        self._is_processing = True
        try:
            age_ms = self._age_ms(bundle)
            if age_ms is not None and is_too_old(age_ms, self._config):
                ledger.drop(DropReason.TOO_OLD)
                return
            frame = self._builder.build(bundle)
            self._reset_if_due(frame)
            result = self.front_end.process(frame)
            self.outputs.publish(frame, result)
        except FeatureMatcherError as error:
            ledger.drop(_reason_of(error))
            # Bad frames in a row have the same reason, and each of them a stamp of its own.
            self._say_once(str(error), error.reason if isinstance(error, FrameError) else str(error))
        except Exception as error:  # the node lives on; the next frame may well go through
            ledger.drop(DropReason.FAILED)
            self._is_reset_due = True
            if self._is_new(type(error).__name__):
                _LOG.exception("%sa frame could not be processed: %r", self.prefix, error)
        else:
            ledger.process()
            self._remember(bundle, result)
        finally:
            self._is_processing = False

    def _age_ms(self, bundle: Bundle) -> float | None:
        age_ms = (self._graph.now_ns() - bundle.stamp_ns) * 1e-6
        self.has_other_clock = abs(age_ms) > _OTHER_CLOCK_MS
        if not self.has_other_clock:
            return age_ms
        if not self._config.process_every_frame:
            sentence = _OTHER_CLOCK if self._graph.now_ns() else _NO_CLOCK
            self._say_once(sentence, sentence)
        return None

    def _reset_if_due(self, frame: Frame) -> None:
        """Begin anew when asked to, or when images of another size come: they cannot be followed by flow."""
        if self._is_reset_due or self._size not in (None, frame.image.shape):
            self._is_reset_due = False  # before the reset: what is asked for from now on concerns the next frame
            self.front_end.reset()
        self._size = frame.image.shape

    def _remember(self, bundle: Bundle, result: FrontEndResult) -> None:
        now_s, processing_ms = time.monotonic(), sum(result.stages_ms.values())
        overhead_ms = (now_s - bundle.arrived_s) * 1e3 - processing_ms
        skew_ms = bundle.skew_ns * 1e-6
        self.statistics.add(FrameRecord(now_s, self._age_ms(bundle), processing_ms, overhead_ms, skew_ms, result))

    def _say_once(self, sentence: str, cause: str) -> None:
        """Warn, unless that was done for the same cause."""
        if self._is_new(cause):
            _LOG.warning("%s%s", self.prefix, sentence)

    def _is_new(self, cause: str) -> bool:
        if cause in self._said or len(self._said) >= _MAX_SENTENCES:
            return False
        self._said.add(cause)
        return True


def is_too_old(age_ms: float, config: NodeConfig) -> bool:
    """Tell whether an image is left out for its age; that of stamps of another clock is none."""
    return not config.process_every_frame and 0.0 < config.max_frame_age_ms < age_ms <= _OTHER_CLOCK_MS


def _reason_of(error: FeatureMatcherError) -> DropReason:
    if isinstance(error, CalibrationError):
        return DropReason.NOT_CALIBRATED
    return DropReason.NOT_DECODED if isinstance(error, ImageError) else DropReason.FAILED
