"""What the node says about itself on ``/diagnostics``, once a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feature_matcher_ros.datatypes import TrackingState
from feature_matcher_ros.ros.frame_ledger import DropReason, FrameCounts
from feature_matcher_ros.ros.frame_statistics import FrameSummary, RateMeter
from feature_matcher_ros.ros.graph import Graph
from feature_matcher_ros.ros.live_camera import LiveCamera
from feature_matcher_ros.ros.messages import make_header

_OK, _WARN, _ERROR = 0, 1, 2  # DiagnosticStatus.level
_SILENT_S = 2.0
_FEW_INLIERS = 0.3
_BY_DESIGN = (DropReason.SUPERSEDED, DropReason.STOPPED)  # drops that are no fault


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a camera is doing: WAITING, OK, DEGRADED, LOST or RECOVERED, and why."""

    level: int
    state: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}" if self.reason else self.state


class CameraDiagnostics:
    """Follows one camera from one report to the next."""

    def __init__(self, camera: LiveCamera, matching: Mapping[str, str]) -> None:
        """``matching`` says by name how images are matched, the same for all cameras."""
        self.camera, self._matching = camera, matching
        self.missing = ""  # why nothing is processed, once that has lasted
        self._input_rate = RateMeter()
        self._rate_hz = 0.0
        self._bad_drops = self._new_drops = 0
        self._jumps = self._new_jumps = 0

    def follow(self) -> None:
        """Look at the counters, once a second whether or not anybody listens: what is new is so since the last look."""
        camera_input = self.camera.input
        counts = camera_input.ledger.counts()
        bad_drops = sum(count for reason, count in counts.dropped.items() if reason not in _BY_DESIGN)
        self._new_drops, self._bad_drops = bad_drops - self._bad_drops, bad_drops
        jumps = camera_input.num_time_jumps
        self._new_jumps, self._jumps = jumps - self._jumps, jumps
        self._rate_hz = self._input_rate.rate_hz(counts.received)

    def status(self, graph: Graph) -> Any:
        """One ``DiagnosticStatus``."""
        camera, make = self.camera, graph.make
        verdict = judge(
            camera.statistics.summary(),
            new_drops=self._new_drops,
            new_jumps=self._new_jumps,
            num_publishers=camera.input.num_publishers(),
            may_be_silent=graph.is_time_paused() or camera.is_at_work,
            missing=self.missing,
        )
        values = {"state": verdict.state, "input_rate_hz": f"{self._rate_hz:.1f}", **self.values(graph)}
        name = f"{graph.node_name.lstrip('/')}: {camera.namespace or 'camera'}"
        return make(
            "diagnostic_msgs/msg/DiagnosticStatus",
            level=verdict.level,
            name=name,
            message=str(verdict),
            hardware_id=camera.namespace,
            values=[make("diagnostic_msgs/msg/KeyValue", key=key, value=value) for key, value in values.items()],
        )

    def values(self, graph: Graph) -> dict[str, str]:
        """What is known of the camera, by name."""
        camera = self.camera
        counts, summary = camera.input.ledger.counts(), camera.statistics.summary()
        return {
            **_summary_values(summary),
            **_count_values(counts),
            "lost_by_middleware": str(camera.input.num_lost()),
            "callback_errors": str(camera.input.num_errors),
            "unsent": str(camera.outputs.num_unsent),
            "time_jumps": str(camera.input.num_time_jumps),
            "camera_changes": str(camera.input.rig.num_changes),
            "other_clock": str(camera.has_other_clock).lower(),
            "time_paused": str(graph.is_time_paused()).lower(),
            **({"missing": self.missing} if self.missing else {}),
            **self._matching,
        }


def diagnostics_array(graph: Graph, cameras: Sequence[CameraDiagnostics]) -> Any:
    """The message of the whole node."""
    statuses = [camera.status(graph) for camera in cameras]
    header = make_header(graph.make, graph.now_ns(), "")
    return graph.make("diagnostic_msgs/msg/DiagnosticArray", header=header, status=statuses)


def judge(
    summary: FrameSummary,
    *,
    new_drops: int = 0,
    new_jumps: int = 0,
    num_publishers: int = 1,
    may_be_silent: bool = False,
    missing: str = "",
) -> Verdict:
    """Sum up a camera's latest frames; the first thing that is wrong counts.

    Silence is a warning at first, and an error as soon as it is known what is ``missing``. It means nothing while time
    stands still or the front-end is at a frame. Publishers are those of the images: those of several cameras make up
    no video.
    """
    silence = _ERROR if missing or summary.state is TrackingState.LOST else _WARN
    if summary.silent_s is None or summary.state is None:
        return Verdict(silence, "WAITING", missing or "no frame yet")
    if summary.silent_s > _SILENT_S and (missing or not may_be_silent):
        why = f": {missing}" if missing else ""
        return Verdict(silence, "DEGRADED", f"no frame for {summary.silent_s:.0f} s{why}")
    mixed = f", and {num_publishers} publishers send images: end all but one" if num_publishers > 1 else ""
    if new_jumps > 1:
        return Verdict(_WARN, "DEGRADED", f"the stamps of the images went back {new_jumps} times{mixed}")
    if summary.state is TrackingState.LOST:
        return Verdict(_ERROR, "LOST", f"the newest frame could not be connected to a keyframe{mixed}")
    if new_drops:
        return Verdict(_WARN, "DEGRADED", f"{new_drops} images could not be used")
    if summary.inlier_ratio is not None and summary.inlier_ratio < _FEW_INLIERS:
        return Verdict(_WARN, "DEGRADED", f"only {summary.inlier_ratio:.0%} of the matches agree with the pose")
    return Verdict(_OK, "RECOVERED" if summary.state is TrackingState.RECOVERED else "OK")


def _summary_values(summary: FrameSummary) -> dict[str, str]:
    values = {"frame_rate_hz": f"{summary.rate_hz:.1f}"}
    for name, pair in (
        ("age", summary.age_ms),
        ("processing", summary.processing_ms),
        ("overhead", summary.overhead_ms),
    ):
        if pair is not None:
            values[f"{name}_p50_ms"], values[f"{name}_p95_ms"] = (f"{value:.1f}" for value in pair)
    if summary.max_skew_ms is not None:
        values["max_skew_ms"] = f"{summary.max_skew_ms:.3f}"
    if summary.inlier_ratio is not None:
        values["inlier_ratio"] = f"{summary.inlier_ratio:.3f}"
    if summary.layers_run:
        values["layers_run"] = " ".join(f"{layers}:{count}" for layers, count in summary.layers_run.items())
    return values


def _count_values(counts: FrameCounts) -> dict[str, str]:
    dropped = {f"dropped_{reason.value}": str(count) for reason, count in counts.dropped.items()}
    totals = {"received": counts.received, "processed": counts.processed, "damaged": counts.damaged}
    return {**{name: str(count) for name, count in totals.items()}, **dropped}
