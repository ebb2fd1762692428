"""The front-end: camera frames in; correspondences with track ids and robust poses out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from feature_matcher_ros.config import FrontEndConfig
from feature_matcher_ros.datatypes import (
    Camera,
    Features,
    Float,
    Frame,
    FrontEndResult,
    GateMeasurement,
    KeyframeReason,
    Matches,
    MetricPoints,
    MotionType,
    Odometry,
    PoseEstimate,
    Status,
    TrackingState,
)
from feature_matcher_ros.gate import OpticalFlowGate
from feature_matcher_ros.geometry import homogeneous, normalize_points
from feature_matcher_ros.keyframes import Keyframe, RecentKeyframes, reason_for_keyframe
from feature_matcher_ros.landmarks import Landmarks, without_length
from feature_matcher_ros.matchers import create_matcher
from feature_matcher_ros.matchers.matcher import Matcher, naming_frame
from feature_matcher_ros.metric_points import measure_points
from feature_matcher_ros.odometry import Step, chain, first_place
from feature_matcher_ros.relative_pose import estimate_from_normalized
from feature_matcher_ros.timing import StageTimer
from feature_matcher_ros.tracks import Ids, TrackRegistry, TrackTable


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """The current frame compared with one keyframe."""

    keyframe: Keyframe
    matches: Matches
    normalized0: Float  # (M, 2), undistorted normalised coordinates
    normalized1: Float  # (M, 2)
    track_ids: Ids  # (M,)
    metric: MetricPoints | None  # where the points of the keyframe are
    estimate: PoseEstimate


class FrontEnd:
    """Connects every frame to the keyframe before it; live node and replay run this same object."""

    def __init__(self, config: FrontEndConfig | None = None, matcher: Matcher | None = None) -> None:
        self._config = FrontEndConfig() if config is None else config
        self._matcher = create_matcher(self._config) if matcher is None else matcher
        self._registry = TrackRegistry(self._config.tracks)  # outlives a reset: no id is given twice
        self._segment = -1
        self.reset()

    @property
    def matcher(self) -> Matcher:
        return self._matcher

    def follow(self, config: FrontEndConfig) -> None:
        """Take other parameters of pose and keyframes from the next frame on; keyframes and tracks stay."""
        self._config = config

    def reset(self) -> None:
        """Forget all keyframes and tracks; the next frame begins a new segment."""
        self._keyframes = RecentKeyframes(self._config.keyframes.max_recovery_keyframes)
        self._last_stamp_ns: int | None = None
        self._last_match_ns = 0
        self._lost_frames = 0

    def process(self, frame: Frame) -> FrontEndResult:
        """Take in the next frame of the stream and return all there is to say about it."""
        timer = StageTimer()
        keyframe, last_stamp_ns = self._keyframes.newest, self._last_stamp_ns
        self._last_stamp_ns = frame.stamp_ns
        if last_stamp_ns is not None and frame.stamp_ns < last_stamp_ns:
            self.reset()
            self._last_stamp_ns = frame.stamp_ns
            return self._begin(frame, self._extract(frame, timer), KeyframeReason.TIME_JUMP, timer)
        if keyframe is None:
            return self._begin(frame, self._extract(frame, timer), KeyframeReason.FIRST_FRAME, timer)
        if frame.stamp_ns == last_stamp_ns:
            return self._without_pair(frame, Status.REPEATED_STAMP, keyframe, None, timer)

        with timer.stage("gate"):
            gate = keyframe.gate.measure(frame)
            reason = reason_for_keyframe(self._config.keyframes, gate, frame.stamp_ns - keyframe.frame.stamp_ns)
        if reason is None and not self._is_match_due(frame.stamp_ns):
            return self._without_pair(frame, Status.GATED, keyframe, gate, timer)

        self._last_match_ns = frame.stamp_ns
        features = self._extract(frame, timer)
        if len(features) < self._config.pose.min_matches:
            self._lost_frames += 1
            return self._without_pair(frame, Status.TOO_FEW_FEATURES, keyframe, gate, timer)
        pair = self._connect(frame, features, timer)
        if pair.estimate.pose is None:
            return self._disconnected(frame, features, pair, gate, timer)
        return self._connected(frame, features, pair, gate, reason, timer)

    def _is_match_due(self, stamp_ns: int) -> bool:
        config = self._config.keyframes
        waited_ns = stamp_ns - self._last_match_ns
        return config.match_every_frame or self._lost_frames > 0 or waited_ns >= config.max_interval_ms * 1e6

    def _extract(self, frame: Frame, timer: StageTimer) -> Features:
        with timer.stage("extract"), naming_frame(frame.stamp_ns, frame.frame_id):
            return self._matcher.extract(frame.image, frame.mask)

    def _connect(self, frame: Frame, features: Features, timer: StageTimer) -> _Pair:
        """Compare with the keyframe and, while lost or if that fails, with an older one."""
        first = None
        for keyframe in self._keyframes.candidates():
            pair = self._compare(keyframe, frame, features, timer)
            if pair.estimate.pose is not None:
                return pair
            first = pair if first is None else first
        assert first is not None
        return first

    def _compare(self, keyframe: Keyframe, frame: Frame, features: Features, timer: StageTimer) -> _Pair:
        with timer.stage("match"), naming_frame(frame.stamp_ns, frame.frame_id):
            matches = self._matcher.match(keyframe.features, features)
        with timer.stage("track"):
            track_ids, keyframe.tracks = self._registry.label(keyframe.tracks, matches)
        cameras = keyframe.frame.camera, frame.camera
        with timer.stage("pose"):
            x0, x1 = _normalized(matches, cameras)
        with timer.stage("points"):
            metric = measure_points(keyframe.frame, matches.points0, normalized=x0)
        with timer.stage("pose"):
            estimate = estimate_from_normalized(x0, x1, *cameras, self._config.pose, metric=metric)
        with timer.stage("track"):
            anchored = self._registry.anchored(keyframe.tracks, track_ids, matches)
        # The pose uses the matches as found, whose errors are independent; everything else uses the tracks.
        is_moved = anchored is not matches
        if estimate.status is Status.DEGENERATE and metric is None:
            # Two motions explain a plane equally well, but only one agrees with where landmarks say that it lies.
            with timer.stage("pose"):
                known = keyframe.landmarks.to_points(track_ids)
                known = _seen_at(x0, known) if is_moved else known
                estimate = without_length(estimate_from_normalized(x0, x1, *cameras, self._config.pose, metric=known))
        if is_moved:
            with timer.stage("track"):
                x0, x1 = _normalized(anchored, cameras)
                metric = None if metric is None else _seen_at(x0, metric)
        return _Pair(keyframe, anchored, x0, x1, track_ids, metric, estimate)

    def _connected(
        self,
        frame: Frame,
        features: Features,
        pair: _Pair,
        gate: GateMeasurement,
        reason: KeyframeReason | None,
        timer: StageTimer,
    ) -> FrontEndResult:
        keyframe, was_lost = pair.keyframe, self._lost_frames > 0
        self._lost_frames = 0
        if was_lost or keyframe is not self._keyframes.newest:
            reason = KeyframeReason.RECOVERY
        with timer.stage("track"):
            step = chain(keyframe, pair.normalized0, pair.normalized1, pair.track_ids, pair.metric, pair.estimate)
            if step is None and reason is not None:
                reason, step = KeyframeReason.RESTART, self._new_segment(frame)
        if reason is not None and step is not None:
            with timer.stage("keyframe"):
                tracks = self._registry.carry(pair.track_ids, pair.matches, pair.estimate.inliers)
                self._push(frame, features, step, tracks)
        return self._result(
            frame,
            Status.OK,
            TrackingState.RECOVERED if was_lost else TrackingState.OK,
            timer,
            keyframe,
            gate=gate,
            pair=pair,
            reason=reason,
            odometry=None if step is None else step.odometry,
        )

    def _disconnected(
        self, frame: Frame, features: Features, pair: _Pair, gate: GateMeasurement, timer: StageTimer
    ) -> FrontEndResult:
        self._lost_frames += 1
        is_blind = len(pair.keyframe.features) < self._config.pose.min_matches  # taken in the dark, say
        if is_blind or self._lost_frames > self._config.keyframes.max_lost_frames:
            return self._begin(frame, features, KeyframeReason.RESTART, timer)
        return self._result(frame, pair.estimate.status, TrackingState.LOST, timer, pair.keyframe, gate=gate, pair=pair)

    def _begin(self, frame: Frame, features: Features, reason: KeyframeReason, timer: StageTimer) -> FrontEndResult:
        """Start anew with this frame, connected to nothing."""
        self._lost_frames = 0
        self._last_match_ns = frame.stamp_ns
        step = self._new_segment(frame)
        with timer.stage("keyframe"):
            self._push(frame, features, step, TrackTable.empty())
        state = TrackingState.INITIALIZING
        return self._result(frame, Status.FIRST_FRAME, state, timer, None, reason=reason, odometry=step.odometry)

    def _new_segment(self, frame: Frame) -> Step:
        """Make this frame the origin of a new segment, metric if it brings depth of its own."""
        self._segment += 1
        return Step(first_place(frame.scale_source, self._segment), Landmarks.empty())

    def _push(self, frame: Frame, features: Features, step: Step, tracks: TrackTable) -> None:
        self._keyframes.push(
            Keyframe(
                frame=frame,
                features=features,
                gate=OpticalFlowGate(frame, self._config.keyframes.max_gate_points),
                odometry=step.odometry,
                tracks=tracks,
                landmarks=step.landmarks,
            )
        )

    def _without_pair(
        self, frame: Frame, status: Status, keyframe: Keyframe, gate: GateMeasurement | None, timer: StageTimer
    ) -> FrontEndResult:
        state = TrackingState.LOST if self._lost_frames else TrackingState.OK
        return self._result(frame, status, state, timer, keyframe, gate=gate)

    def _result(
        self,
        frame: Frame,
        status: Status,
        state: TrackingState,
        timer: StageTimer,
        keyframe: Keyframe | None,
        *,
        gate: GateMeasurement | None = None,
        pair: _Pair | None = None,
        reason: KeyframeReason | None = None,
        odometry: Odometry | None = None,
    ) -> FrontEndResult:
        return FrontEndResult(
            stamp_ns=frame.stamp_ns,
            frame_id=frame.frame_id,
            status=status,
            state=state,
            motion_type=MotionType.UNKNOWN if pair is None else pair.estimate.motion_type,
            keyframe_stamp_ns=None if keyframe is None else keyframe.frame.stamp_ns,
            keyframe_reason=reason,
            gate=gate,
            matches=None if pair is None else pair.matches,
            inliers=None if pair is None else pair.estimate.inliers,
            track_ids=None if pair is None else pair.track_ids,
            pose=None if pair is None else pair.estimate.pose,
            odometry=odometry,
            stages_ms=timer.stages_ms,
        )


def _normalized(matches: Matches, cameras: tuple[Camera, Camera]) -> tuple[Float, Float]:
    """Undistorted normalised coordinates (M, 2) in both images."""
    return normalize_points(matches.points0, cameras[0]), normalize_points(matches.points1, cameras[1])


def _seen_at(normalized: Float, measured: MetricPoints) -> MetricPoints:
    """The same depths at other points (M, 2) of the image."""
    return replace(measured, points=homogeneous(normalized).T * measured.points[:, 2:])
